"""Callers: deriving the identity that the authority uses from what the transport knows about a call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from sessiond.access.streams import OpenStreams
from sessiond.domain.access import ANY_APPLICATION, CallerRecord, Role
from sessiond.domain.call import PEER_KEY, Caller
from sessiond.domain.errors import AuthorityError, Unauthenticated, Unavailable

__all__ = ["Book", "Callers", "CallersOfWorkers"]

_ANY_CALLER = "caller"
_WORKER = "(worker)"
"""No caller can have this name."""
_OF_A_WORKER = frozenset({(ANY_APPLICATION, Role.VALIDATOR)})


class Book(Protocol):
    """The callers that are configured; see `CallerBook`."""

    on_change: Callable[[frozenset[str]], None]

    def identify(self, metadata: Sequence[tuple[str, str | bytes]] | None) -> CallerRecord | None:
        """Return who is calling; None if no caller is configured. Raises `Unauthenticated` and `Unavailable`."""

    def revision_of(self, name: str) -> int | None:
        """Return the revision of a caller's latest change; None if there is no such caller."""

    @property
    def is_open(self) -> bool:
        """Whether no caller is configured."""


class Callers:
    """Identifies callers. Without a book, or with an empty one, all share one identity and may do everything."""

    def __init__(self, book: Book | None = None) -> None:
        self._book = book
        self.open_streams = OpenStreams(self._refusal)
        if book is not None:
            book.on_change = self._end_streams

    def identify(self, peer: str, metadata: Sequence[tuple[str, str | bytes]] | None) -> Caller:
        """Return the caller. This is evaluated before any other part of a call, the fast path included.

        Raises `Unauthenticated` and `Unavailable`.
        """
        record = None if self._book is None else self._book.identify(metadata)
        if record is None:
            return Caller(_ANY_CALLER, peer, metadata or ())
        return Caller(record.name, peer, metadata or (), record.grants, record.revision)

    def _refusal(self, caller: Caller) -> AuthorityError | None:
        """Return why a stream of this caller must end; None if the caller is as it was when it was identified."""
        if self._book is None:
            return None
        now = self._book.revision_of(caller.name)
        if self._book.is_open if not caller.version else now == caller.version:
            return None
        if caller.version and now is not None:
            # Clients resume after that, with a key that may still be good.
            return Unavailable("this caller was changed; call again")
        return Unauthenticated("this caller was revoked, or the call has none; call again with the key of a caller")

    def _end_streams(self, changed: frozenset[str]) -> None:
        # The streams of those who called before there were callers end too.
        self.open_streams.end({*changed, _ANY_CALLER})


class CallersOfWorkers(Callers):
    """Identifies callers whose calls arrive through workers. Only for a socket that nobody else can open.

    So what one connection may cost the others is limited as without workers. A worker says on which connection a call
    arrived; a call without that is its own, the stream that feeds its memory, for which it needs no key.
    """

    def identify(self, peer: str, metadata: Sequence[tuple[str, str | bytes]] | None) -> Caller:
        """Return the caller; its peer is the connection to the worker. Raises `Unauthenticated`."""
        for key, value in metadata or ():
            if key == PEER_KEY and isinstance(value, str):
                return super().identify(value, metadata)
        return Caller(_WORKER, peer, metadata or (), _OF_A_WORKER)

    def _refusal(self, caller: Caller) -> AuthorityError | None:
        return None if caller.name == _WORKER else super()._refusal(caller)
