"""The limit on open streams of one kind: in total and per connection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from sessiond.domain.errors import Overloaded
from sessiond.domain.immutable import immutable

__all__ = ["StreamBounds", "StreamLimit"]


@immutable
class StreamBounds:
    """The bounds on streams.

    write_timeout  how many seconds a caller may leave a message of its stream unread
    subscribers    how many streams of events may be open
    validations    how many streams of validations may be open
    """

    write_timeout: float = 30.0
    subscribers: int = 200
    validations: int = 128


class StreamLimit:
    """Counts the open streams of one kind. At most half of `most` may be on one connection.

    `what` names them in the error message, and `setting` the setting that raises the limit, if there is one.
    """

    def __init__(self, most: int, what: str, setting: str = "") -> None:
        self._most = most
        self._what = what
        self._remedy = f"close some, or raise {setting}" if setting else "close some"
        self._by_peer: Counter[str] = Counter()

    @contextmanager
    def counted(self, peer: str) -> Iterator[None]:
        """Count one stream for the duration of the block. Raises `Overloaded` if there are too many."""
        total, own = self._by_peer.total(), self._by_peer[peer]
        if total >= self._most or own >= max(1, self._most // 2):
            raise Overloaded(
                f"there are already {total} {self._what}, {own} of them on this connection; {self._remedy}"
            )
        self._by_peer[peer] += 1
        try:
            yield
        finally:
            self._by_peer[peer] -= 1
            if not self._by_peer[peer]:
                del self._by_peer[peer]
