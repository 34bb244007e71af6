"""Positions: which places of a log that was set back still exist."""

from __future__ import annotations

import pytest

from sessiond.domain.errors import PositionOutOfRange
from sessiond.domain.position import Incarnation, Position, check_position
from sessiond.domain.values import Revision

FIRST, EMPTY, LAST, OTHER = b"first...", b"empty...", b"last....", b"another."
# The first run wrote up to 10, of which 8 to 10 were lost; the second wrote nothing; the last one has written 8 to 12.
RUNS = [Incarnation(FIRST, Revision(1)), Incarnation(EMPTY, Revision(8)), Incarnation(LAST, Revision(8))]
HEAD = Revision(12)


def check(incarnation: bytes, revision: int, runs: list[Incarnation] = RUNS, head: int = HEAD) -> Revision:
    """Check a position against the log."""
    return check_position("cursor", Position(incarnation, Revision(revision)), runs, Revision(head))


@pytest.mark.parametrize(
    ("incarnation", "revision"),
    [
        (FIRST, 0),
        (FIRST, 1),
        (FIRST, 7),
        (EMPTY, 0),
        (EMPTY, 7),
        (LAST, 0),
        (LAST, 7),
        (LAST, 8),
        (LAST, 12),
    ],
)
def test_a_place_that_exists(incarnation: bytes, revision: int) -> None:
    """A position up to the end of its run of the log, that end included, is its revision."""
    assert check(incarnation, revision) == revision


@pytest.mark.parametrize("revision", [8, 10, 12, 13])
@pytest.mark.parametrize("incarnation", [FIRST, EMPTY])
def test_a_place_in_a_lost_tail(incarnation: bytes, revision: int) -> None:
    """A position beyond the end of an earlier run is refused, though the log has such a revision again."""
    with pytest.raises(PositionOutOfRange, match=f"revision {revision} no longer exists.* set back to revision 7"):
        check(incarnation, revision)


@pytest.mark.parametrize("revision", [13, 14, 2**63 - 1])
def test_a_place_ahead_of_the_log(revision: int) -> None:
    """A position of the current run beyond the head is refused, with where the log ends."""
    with pytest.raises(PositionOutOfRange, match=f"revision {revision} is ahead of the log, which ends at revision 12"):
        check(LAST, revision)


@pytest.mark.parametrize("revision", [0, 1, 7, 12, 13])
def test_a_run_that_nobody_knows(revision: int) -> None:
    """A position of a run that is not in the list is refused, whatever its revision."""
    with pytest.raises(PositionOutOfRange, match="restored from a backup"):
        check(OTHER, revision)


def test_a_log_without_runs() -> None:
    """Without any run no position exists, not even the beginning."""
    with pytest.raises(PositionOutOfRange, match="restored from a backup"):
        check(FIRST, 0, [])


@pytest.mark.parametrize(("revision", "exists"), [(0, True), (1, False)])
def test_an_empty_log(revision: int, exists: bool) -> None:
    """Of a new log that nothing was written to only the beginning exists."""
    runs = [Incarnation(FIRST, Revision(1))]
    if exists:
        assert check(FIRST, revision, runs, 0) == revision
    else:
        with pytest.raises(PositionOutOfRange, match="ends at revision 0"):
            check(FIRST, revision, runs, 0)


@pytest.mark.parametrize(("incarnation", "revision"), [(OTHER, 0), (FIRST, 8), (LAST, 13)])
def test_the_refusal_names_the_field(incarnation: bytes, revision: int) -> None:
    """Each refusal begins with the field that the position came in."""
    with pytest.raises(PositionOutOfRange, match=r"^at_least: "):
        check_position("at_least", Position(incarnation, Revision(revision)), RUNS, HEAD)
