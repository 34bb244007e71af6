"""The helper that fetches suites says why it cannot, so that a skipped suite has a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.suites import fetching


def test_what_cannot_be_fetched_has_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a package index the error names package and version, and nothing is kept."""
    monkeypatch.setattr(fetching, "_CACHE", tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(fetching.NotFetched, match=r"^django 1\.0: "):
        fetching.sources("django", "1.0")
    assert list(tmp_path.iterdir()) == []


def test_what_was_fetched_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources that are there are not fetched a second time."""
    monkeypatch.setattr(fetching, "_CACHE", tmp_path)
    monkeypatch.setattr(fetching, "_downloaded", lambda *_: pytest.fail("fetched again"))
    (tmp_path / "django-1.0").mkdir()
    assert fetching.sources("django", "1.0") == tmp_path / "django-1.0"
