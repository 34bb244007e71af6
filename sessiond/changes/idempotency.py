"""Idempotency: a unit is carried out once, however often its call is repeated."""

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

__all__ = ["KEEP_FOR", "EncodedAnswer", "Idempotent", "Recall", "Retry"]

T = TypeVar("T")

KEEP_FOR = Millis(24 * 3_600_000)
"""The default time for which the first answer to a call with a `request_id` is kept, in milliseconds."""


@immutable
class EncodedAnswer:
    """The encoded message of the answer to a change, as sent and as kept for repeats. It may hold a token."""

    message: bytes = field(repr=False)


def _do_nothing(work: Work, session: Session) -> None:
    """The default of `Retry.on_repeat`."""


@immutable
class Retry:
    """Makes a change safe to repeat: finds and keeps its first answer.

    key, parameters   as in `KeptAnswer`
    seal, open        encrypt and decrypt the answer's message; only the secret of this call decrypts it; `open` raises
                      `InvalidField` if it cannot be decrypted
    keep_for          how long a repeat gets the first answer, in milliseconds
    while_current     the answer is valid only while the token that it issued is the session's current one
    while_live        the answer is valid only while the session that it is about is live
    on_repeat         called with the session when such an answer is returned to a repeat
    """

    key: bytes
    parameters: bytes
    seal: Callable[[bytes], bytes]
    open: Callable[[bytes], bytes]
    keep_for: Millis = KEEP_FOR
    while_current: bool = False
    while_live: bool = False
    on_repeat: Callable[[Work, Session], None] = _do_nothing

    def recall(self, work: Work) -> EncodedAnswer | None:
        """Return the first answer, if one is kept and valid. Raises `InvalidField` if the key is of another call."""
        answer = work.answer(self.key)
        if answer is None:
            return None
        if answer.parameters != self.parameters:
            raise InvalidField("request_id", "was used for another call; use a new UUIDv4 for each call")
        if answer.session_id is not None:
            session = work.session(answer.session_id)
            if session is None or expired_view(session, work.now).ending is not None:
                return None
            if answer.generation not in (session.generation, ANY_GENERATION):
                return None
            self.on_repeat(work, session)
        return EncodedAnswer(self.open(answer.sealed))

    def keep(self, work: Work, message: bytes, granted: Session | None) -> None:
        """Keep the first answer. `granted` is the session that it is about or issued a token for, if any."""
        depends = granted if self.while_current or self.while_live else None
        if self.while_current and depends is None:
            return  # no token was issued, so a repeat is decided again
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
    """Look for the first answer to a call before its token is judged: the first call may have replaced the token."""

    retries: Sequence[Retry]

    def needs(self) -> Needs:
        """Return what to read: the first answers."""
        return Needs(answers=tuple(retry.key for retry in self.retries))

    def apply(self, work: Work) -> EncodedAnswer | None:
        """Return the first answer found. Raises `InvalidField` if a key was used for a different call."""
        # No short cut after the first match: each `recall` may also act on its session.
        found = [(retry, retry.recall(work)) for retry in self.retries]
        first = next((kept for _, kept in found if kept is not None), None)
        if first is not None:
            for retry, kept in found:
                if kept is None and not retry.while_current:
                    # A repeat that has a new request id: from now on this is the answer to that id too.
                    retry.keep(work, first.message, None)
        return first


def _no_session(_: object) -> Session | None:
    return None


@immutable
class Idempotent(Generic[T]):
    """A unit that keeps its answer for repeats.

    If the unit raises or records no event, no answer is kept and a repeat is decided again.

    encode    returns the encoded message of an answer
    granted   returns the session that the answer is about or issues a token for, if any
    always    keep the answer even if the unit records no event
    """

    unit: Unit[T]
    retries: Sequence[Retry]
    encode: Callable[[Done[T]], bytes]
    granted: Callable[[T], Session | None] = _no_session
    always: bool = False

    def needs(self) -> Needs:
        """Return what the unit needs to read, and the first answers."""
        needs = self.unit.needs()
        return replace(needs, answers=(*needs.answers, *(retry.key for retry in self.retries)))

    def apply(self, work: Work) -> EncodedAnswer:
        """Return the first answer, or carry out the unit. Raises `InvalidField` if a key is of a different call."""
        if (kept := Recall(self.retries).apply(work)) is not None:
            return kept
        result = self.unit.apply(work)
        message = self.encode(Done(result, work.revision, work.now))
        if not work.has_no_events or self.always:
            for retry in self.retries:
                retry.keep(work, message, self.granted(result))
        return EncodedAnswer(message)
