"""Positions in the log, and whether the log that they come from still exists."""

from __future__ import annotations

from collections.abc import Sequence

from sessiond.domain.errors import PositionOutOfRange
from sessiond.domain.immutable import immutable
from sessiond.domain.values import Revision

__all__ = ["INCARNATION_BYTES", "Incarnation", "Position", "check_position"]

INCARNATION_BYTES = 8


@immutable
class Incarnation:
    """One run of a log between two starts: its random id, and the first revision that it could write."""

    id: bytes
    first: Revision


@immutable
class Position:
    """A place in the log as it was known under an incarnation: everything up to `revision`, inclusive."""

    incarnation: bytes
    revision: Revision


def check_position(field: str, position: Position, incarnations: Sequence[Incarnation], head: Revision) -> Revision:
    """The position's revision. Raises `PositionOutOfRange` if it belongs to a log that no longer exists.

    That is so if its incarnation is not in the list (a backup from before it was restored), or if its revision lies
    beyond the incarnation's end (a lost tail), or beyond the head.
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
    raise PositionOutOfRange(field, "comes from a log that no longer exists: the authority was restored from a backup")
