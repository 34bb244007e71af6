"""Callers: deriving the identity that the authority uses from what the transport knows about a call."""

from __future__ import annotations

from collections.abc import Sequence

from sessiond.access.book import CallerBook
from sessiond.domain.call import Caller

__all__ = ["PEER_KEY", "Callers", "CallersOfWorkers"]

_ANY_CALLER = "caller"
PEER_KEY = "sessiond-peer"
"""The metadata in which a worker says on which connection it received a call. Nobody else may set it."""


class Callers:
    """Identifies callers. Without a book, or with an empty one, all share one identity and may do everything."""

    def __init__(self, book: CallerBook | None = None) -> None:
        self._book = book

    def identify(self, peer: str, metadata: Sequence[tuple[str, str | bytes]] | None) -> Caller:
        """Return the caller. This is evaluated before any other part of a call, the fast path included.

        Raises `Unauthenticated`.
        """
        record = None if self._book is None else self._book.identify(metadata)
        if record is None:
            return Caller(_ANY_CALLER, peer, metadata or ())
        return Caller(record.name, peer, metadata or (), record.grants, record.revision)


class CallersOfWorkers(Callers):
    """Identifies callers whose calls arrive through workers. Only for a socket that nobody else can open.

    So what one connection may cost the others is limited as without workers.
    """

    def identify(self, peer: str, metadata: Sequence[tuple[str, str | bytes]] | None) -> Caller:
        """Return the caller; its peer is the connection to the worker. Raises `Unauthenticated`."""
        for key, value in metadata or ():
            if key == PEER_KEY and isinstance(value, str):
                return super().identify(value, metadata)
        return super().identify(peer, metadata)
