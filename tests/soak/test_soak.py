"""A short soak, and that its report can fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.soak import Report, Sample, Size, soak, table

COUNTS = {"validations": 10, "hits": 10, "awaited": 1}


def sample(after: float, **changes: int) -> Sample:
    server = {"resident": 100_000_000, "threads": 10, "descriptors": 50} | changes
    return Sample(after, server, {"resident": 90_000_000, "threads": 5, "descriptors": 40, "tasks": 60})


@pytest.mark.slow
def test_a_short_soak(tmp_path: Path) -> None:
    """Twenty clients with near caches and 2,000 sessions: no wrong answer, and no descriptor or task is left."""
    report = soak(tmp_path / "soak", Size(seconds=20, sessions=2_000, clients=20, processes=2))
    # Resident memory takes minutes to settle; `make soak` judges it.
    assert [fault for fault in report.faults() if "resident" not in fault] == [], table(report)
    assert report.counts["hits"] > report.counts["misses"]
    assert report.counts["open"] == 20


def test_growth_is_reported() -> None:
    """A measure that is larger by more than 5 % in the last third is a fault, and one that is not is none."""
    steady = Report(Size(9), [sample(n, resident=100_000_000 + 500_000 * n) for n in range(9)], dict(COUNTS))
    assert steady.faults() == []
    growing = Report(Size(9), [sample(n, resident=100_000_000 + 1_000_000 * n) for n in range(9)], dict(COUNTS))
    assert growing.faults() == ["server resident grew by 5.9%"]
    leaking = Report(Size(9), [sample(n, descriptors=50 + n) for n in range(9)], dict(COUNTS))
    assert leaking.faults() == ["server descriptors grew by 11.8%"]
    assert "server resident" in table(steady)


@pytest.mark.parametrize("wrong", ["yes after an awaited revocation", "wrongly denied", "errors"])
def test_a_wrong_answer_is_reported(wrong: str) -> None:
    """One wrong answer is a fault, and so is a soak that checked nothing."""
    report = Report(Size(9), [sample(n) for n in range(9)], COUNTS | {wrong: 1})
    assert report.faults() == [f"1 times: {wrong}"]
    idle = Report(Size(9), [sample(n) for n in range(9)])
    assert idle.faults() == ["no validations", "no hits", "no awaited"]
