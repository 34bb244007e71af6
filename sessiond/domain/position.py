"""Positions in the log, and the check that the log they come from still exists."""

from __future__ import annotations

from collections.abc import Sequence

from sessiond.domain.errors import PositionOutOfRange
from sessiond.domain.immutable import immutable
from sessiond.domain.values import Revision

__all__ = ["INCARNATION_BYTES", "Incarnation", "Position", "check_position"]

INCARNATION_BYTES = 8


@immutable
class Incarnation:
    """One run of a log between two starts: its random id, and the first revision that the run could write."""

    id: bytes
    first: Revision


@immutable
class Position:
    """A position in the log of one incarnation: everything up to and including `revision`."""

    incarnation: bytes
    revision: Revision


def check_position(field: str, position: Position, incarnations: Sequence[Incarnation], head: Revision) -> Revision:
    """Return the position's revision, or raise `PositionOutOfRange` if its log no longer exists.

    That is the case if the incarnation is not in the list (a backup that is older than the incarnation was restored),
    or if the revision lies after the incarnation's end (the tail of the log was lost) or after the head. `field` is
    the name of the field that the error message shows.
    """
    for number, incarnation in enumerate(incarnations):
        if incarnation.id != position.incarnation:
            continue
        is_last = number + 1 == len(incarnations)
        end = head if is_last else Revision(incarnations[number + 1].first - 1)
        if position.revision <= end:
            return position.revision
        if is_last:
            raise PositionOutOfRange(
                field, f"revision {position.revision} is ahead of the log, which ends at revision {head}"
            )
        raise PositionOutOfRange(
            field, f"revision {position.revision} no longer exists: the log was set back to revision {end}"
        )
    raise PositionOutOfRange(field, "comes from a log that no longer exists: the store was restored from a backup")
