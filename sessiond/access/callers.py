"""Callers: deriving the identity that the authority uses from what the transport knows about a call."""

from __future__ import annotations

from collections.abc import Sequence

from sessiond.domain.call import Caller

__all__ = ["Callers"]

_ANY_CALLER = "caller"


class Callers:
    """Identifies callers. At present all callers that reach the port share one identity and may do everything."""

    def identify(self, peer: str, metadata: Sequence[tuple[str, str | bytes]] | None) -> Caller:
        """Return the caller. This is evaluated before any other part of a call, the fast path included."""
        return Caller(_ANY_CALLER, peer, metadata or ())
