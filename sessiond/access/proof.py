"""What a call proves about its caller."""

from __future__ import annotations

from collections.abc import Sequence

from sessiond.domain.access import CallerRecord
from sessiond.domain.immutable import immutable
from sessiond.domain.values import Instant

__all__ = ["AUTHORIZATION", "Identified", "sends_key"]

AUTHORIZATION = "authorization"
"""The metadata with the key of a caller."""


@immutable
class Identified:
    """Who is calling, and until when what proves it counts; None: it does not expire."""

    record: CallerRecord
    until: Instant | None


def sends_key(metadata: Sequence[tuple[str, str | bytes]] | None) -> bool:
    """Return whether a call sends a key, which alone counts then."""
    return any(key == AUTHORIZATION for key, _ in metadata or ())
