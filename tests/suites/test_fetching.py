"""The helper that fetches suites says why it cannot, so that a skipped suite has a reason."""

from __future__ import annotations

import subprocess
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


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder."""
    who = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    done = subprocess.run(["git", "-C", str(folder), *who, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that SESSIOND_TEST_SUITES names; the cache is the empty folder `cache` beside it."""
    folder = tmp_path / "given"
    folder.mkdir()
    monkeypatch.setattr(fetching, "_CACHE", tmp_path / "cache")
    monkeypatch.setenv(fetching.GIVEN, str(folder))
    return folder


@pytest.mark.parametrize("kind", ["clone", "bare"])
def test_a_given_repository_is_used_at_its_commit(given: Path, kind: str) -> None:
    """The suite has the files of the commit that is asked for, and not those that the repository has now."""
    clone = given / "suite"
    clone.mkdir()
    git(clone, "init", "--quiet")
    (clone / "test.txt").write_text("then", encoding="utf-8")
    git(clone, "add", "test.txt")
    git(clone, "commit", "--quiet", "-m", "then")
    commit = git(clone, "rev-parse", "HEAD")
    (clone / "test.txt").write_text("now", encoding="utf-8")
    git(clone, "commit", "--quiet", "-a", "-m", "now")
    if kind == "bare":
        git(given, "clone", "--quiet", "--bare", str(clone), "other")
        given.joinpath("suite").rename(given / "before")
        given.joinpath("other").rename(given / "suite")
    folder = fetching.repository("suite", "https://example.invalid/suite", commit)
    assert (folder / "test.txt").read_text(encoding="utf-8") == "then"
    assert folder.parent != given


def test_given_files_without_git_are_used_as_they_are(given: Path) -> None:
    """A folder that is no repository is the suite."""
    (given / "suite").mkdir()
    assert fetching.repository("suite", "https://example.invalid/suite", "0" * 40) == given / "suite"


def test_a_given_folder_without_the_suite_has_a_reason(given: Path) -> None:
    """The error names the variable, the folder that is missing, and what to clone; GitHub is not asked."""
    with pytest.raises(fetching.NotFetched) as raised:
        fetching.repository("suite", "https://example.invalid/suite", "0" * 40)
    assert "SESSIOND_TEST_SUITES" in str(raised.value)
    assert f"no folder {given / 'suite'}; clone https://example.invalid/suite there" in str(raised.value)


def test_a_commit_that_a_given_repository_lacks_has_a_reason(given: Path) -> None:
    """The error names the suite and the commit, and nothing is kept."""
    (given / "suite").mkdir()
    git(given / "suite", "init", "--quiet")
    with pytest.raises(fetching.NotFetched, match=r"^suite 0{12}: "):
        fetching.repository("suite", "https://example.invalid/suite", "0" * 40)
    assert list(given.with_name("cache").iterdir()) == []


def test_an_address_that_cannot_be_reached_has_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the variable the address is asked, and the error has what git says."""
    monkeypatch.setattr(fetching, "_CACHE", tmp_path)
    monkeypatch.delenv(fetching.GIVEN, raising=False)
    with pytest.raises(fetching.NotFetched, match=r"^suite 0{12}: fatal: .*missing"):
        fetching.repository("suite", f"file://{tmp_path}/missing", "0" * 40)
    assert list(tmp_path.iterdir()) == []
