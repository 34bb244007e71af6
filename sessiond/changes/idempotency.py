"""Idempotency: a unit that is carried out once, however often it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field, replace
from typing import Generic, TypeVar

from sessiond.domain.errors import InvalidField
from sessiond.domain.immutable import immutable
from sessiond.domain.lifecycle import expired_view
from sessiond.domain.session import Session
from sessiond.domain.values import Instant, Millis
from sessiond.eventlog.work import Done, Needs, Unit, Work
from sessiond.store.contract import ANY_GENERATION, KeptAnswer

__all__ = ["KEEP_FOR", "Kept", "Once", "Recall", "Retry"]

T = TypeVar("T")

KEEP_FOR = Millis(24 * 3_600_000)
"""How long the first answer to a call with a `request_id` is kept."""


@immutable
class Kept:
    """An answer to a change as it is given, and kept for repeats: the bytes of its message. They may hold a token."""

    message: bytes = field(repr=False)


def _changes_nothing(work: Work, session: Session) -> None:
    """What giving an answer again does, if nothing else is said."""


@immutable
class Retry:
    """What makes a change safe to repeat.

    key, parameters   as in `KeptAnswer`
    seal, open        the answer's message, so that only this call's secret opens it; `open` raises `InvalidField`
    keep_for          for how long a repeat gets the first answer
    while_current     the answer counts only while the session that it gives a token of is still at that token
    while_live        the answer counts only while the session that it is about lives
    again             what giving such an answer again does to that session
    """

    key: bytes
    parameters: bytes
    seal: Callable[[bytes], bytes]
    open: Callable[[bytes], bytes]
    keep_for: Millis = KEEP_FOR
    while_current: bool = False
    while_live: bool = False
    again: Callable[[Work, Session], None] = _changes_nothing

    def recall(self, work: Work) -> Kept | None:
        """The first answer, if there is one that counts. Raises `InvalidField` if the key was used for another call."""
        answer = work.answer(self.key)
        if answer is None:
            return None
        if answer.parameters != self.parameters:
            raise InvalidField("request_id", "was used for another call; take a fresh UUIDv4 for each call")
        if answer.session_id is not None:
            session = work.session(answer.session_id)
            if session is None or expired_view(session, work.now).ending is not None:
                return None
            if answer.generation not in (session.generation, ANY_GENERATION):
                return None
            self.again(work, session)
        return Kept(self.open(answer.sealed))

    def keep(self, work: Work, message: bytes, granted: Session | None) -> None:
        """Keep the first answer; `granted` is the session that it is about, or gives a token of."""
        depends = granted if self.while_current or self.while_live else None
        if self.while_current and depends is None:
            return  # a refusal gives no token: asked again, it is decided again
        work.keep_answer(
            KeptAnswer(
                self.key,
                self.parameters,
                self.seal(message),
                Instant(work.now + self.keep_for),
                None if depends is None else depends.id,
                _generation(depends, current=self.while_current),
            )
        )


def _generation(depends: Session | None, *, current: bool) -> int:
    if depends is None:
        return 0
    return depends.generation if current else ANY_GENERATION


@immutable
class Recall:
    """Look for the first answer to a call before anything of it is judged: its token may have been replaced by now."""

    retries: Sequence[Retry]

    def needs(self) -> Needs:
        """The first answers."""
        return Needs(answers=tuple(retry.key for retry in self.retries))

    def apply(self, work: Work) -> Kept | None:
        """The first that there is. Raises `InvalidField` if the id was used for another call."""
        # All are looked for: giving an answer again may do something, and each knows its own.
        found = [(retry, retry.recall(work)) for retry in self.retries]
        first = next((kept for _, kept in found if kept is not None), None)
        if first is not None:
            for retry, kept in found:
                if kept is None and not retry.while_current:
                    # A second click with an id of its own: from now on this is the answer to that id.
                    retry.keep(work, first.message, None)
        return first


def _grants_nothing(_: object) -> Session | None:
    return None


@immutable
class Once(Generic[T]):
    """A unit that leaves its answer for repeats. `encode` makes the answer's message.

    A unit that refuses or changes nothing leaves nothing, unless `always`: asked again, it decides again.
    """

    unit: Unit[T]
    retries: Sequence[Retry]
    encode: Callable[[Done[T]], bytes]
    granted: Callable[[T], Session | None] = _grants_nothing
    always: bool = False

    def needs(self) -> Needs:
        """What the unit needs, and the first answers."""
        needs = self.unit.needs()
        return replace(needs, answers=(*needs.answers, *(retry.key for retry in self.retries)))

    def apply(self, work: Work) -> Kept:
        """Raises `InvalidField` if the id was used for another call."""
        if (kept := Recall(self.retries).apply(work)) is not None:
            return kept
        result = self.unit.apply(work)
        message = self.encode(Done(result, work.revision, work.now))
        if not work.untouched or self.always:
            for retry in self.retries:
                retry.keep(work, message, self.granted(result))
        return Kept(message)
