"""The check of streams can fail."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.ha.load import Seen, stream_faults

LOG: list[Seen] = [(n, "SESSION_CREATED", f"id-{n}", "ada") for n in range(1, 6)]


def test_a_stream_with_the_whole_log_is_accepted() -> None:
    """A subscriber that has received every event once, in order, has no fault."""
    assert stream_faults(LOG, LOG) == []


@pytest.mark.parametrize(
    ("seen", "fault"),
    [
        ([*LOG[:2], *LOG[3:]], "a gap"),
        (LOG[1:], "a gap"),
        (LOG[:-1], "missing"),
        ([*LOG[:2], LOG[1], *LOG[2:]], "not unique"),
        ([LOG[1], LOG[0], *LOG[2:]], "not ordered"),
        ([*LOG[:4], (5, "SESSION_CREATED", "lost", "ada")], "not in the log"),
    ],
)
def test_a_fault_of_a_stream_is_reported(seen: Sequence[Seen], fault: str) -> None:
    """A gap, a missing end, a repetition, a wrong order and an event that the log does not have are reported."""
    assert any(fault in found for found in stream_faults(seen, LOG))
