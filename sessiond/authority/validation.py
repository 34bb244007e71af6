"""Validation: the verdict on a presented token, from memory if possible."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from sessiond.authority.parts import Parts
from sessiond.authority.question import Question
from sessiond.authority.requirements import NO_REQUIREMENTS, Requirements, unmet
from sessiond.authority.results import Answer, Kept
from sessiond.cache.sessions import Entry
from sessiond.changes.judging import Suspicion
from sessiond.changes.use import Use
from sessiond.crypto.csrf import csrf_token
from sessiond.crypto.tokens import OpenedToken, Token
from sessiond.domain.call import Call
from sessiond.domain.judge import PLAIN, UNKNOWN, Judgement, Presented, Verdict, judge
from sessiond.domain.lifecycle import expired_view, idle_deadline
from sessiond.domain.position import Position
from sessiond.domain.reactions import Consequences, consequences_of
from sessiond.domain.requirements import RequirementKind, Unmet
from sessiond.domain.session import Session, as_seen, cacheable_until, in_application, touch_granularity
from sessiond.domain.signals import Reaction, Signal, SignalType, as_copies
from sessiond.domain.values import Instant, SessionId, VersionedData

__all__ = ["Validation"]

_UNKNOWN = Answer(UNKNOWN)
_EXPIRED = (Verdict.EXPIRED_IDLE, Verdict.EXPIRED_ABSOLUTE)
_AUTHENTICATE_AGAIN = Unmet(RequirementKind.REAUTHENTICATION, "authenticate the subject again from this client")


class Validation:
    """Judges presented tokens, watches how they are used, and has carried out what follows."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def validate(self, question: Question) -> Answer:
        """Judge a token.

        Only a verdict with consequences waits for a commit: a successor's first use, a fresh suspicion, and activity
        that would otherwise lag behind by more than its granularity (so that a crash ends no session earlier than
        that). Raises `PositionOutOfRange`, `Unavailable` and, if data was asked for, `DataUnreadable`.
        """
        if question.at_least is not None:
            await self._parts.feed.reached(question.at_least)
        opened = self.at_once(question)
        return opened if isinstance(opened, Answer) else await self.judge(question, opened)

    def at_once(self, question: Question) -> Answer | OpenedToken:
        """The answer if it can be given without waiting, as nearly every one can; else the opened token, to `judge`.

        Refuses what was never issued, and passes what is plainly valid.
        """
        opened = self._parts.gate.open(question.call, question.token)
        if isinstance(opened, Judgement):
            return Answer(opened)
        if not question.is_plain:
            return opened
        return self.plainly_valid(question.call, opened.presented, passive=question.passive) or opened

    def plainly_valid(
        self, call: Call, presented: Presented, *, passive: bool, at_least: Position | None = None
    ) -> Answer | None:
        """The answer if it is VALID, from memory, and nothing follows from it but activity; else None.

        Nearly every validation ends here. None says nothing about the token: the ordinary way decides.
        """
        parts = self._parts
        entry = parts.cache.get(presented.session_id)
        if entry is None or entry.session.application != call.application:
            return None
        if at_least is not None and not parts.feed.has(at_least):
            return None
        now, session = parts.clock.now(), entry.session
        if judge(session, presented, call.policy, now) is not PLAIN or not self._is_ordinary(call, session):
            return None
        if passive:
            seen = parts.activity.added_to(session)
            until = cacheable_until(seen, call.policy, now, False, None)
            return Answer(PLAIN, seen, presented=presented, cacheable_until=until, revision=parts.feed.revision)
        if now - entry.saved >= touch_granularity(session, call.policy):
            return None
        until = cacheable_until(session, call.policy, now, True, None)
        deadline = idle_deadline(session, call.policy, now)
        activity = parts.activity.note(session, now, deadline, call.client)
        return Answer(PLAIN, session, None, activity, presented, cacheable_until=until, revision=parts.feed.revision)

    async def judge(self, question: Question, opened: OpenedToken) -> Answer:
        """The answer to an opened token, whatever follows from it."""
        stored: VersionedData | None = None
        while True:
            answer = await self._judge(question, opened)
            session, wanted = answer.session, question.data
            if wanted is None or session is None or answer.verdict is not Verdict.VALID:
                return answer
            if wanted.newer_than and session.data_version <= wanted.newer_than:
                return answer
            if stored is not None and stored.version == session.data_version:
                return replace(answer, data=wanted.of(stored))
            stored = await self._parts.store.data(session.id)
            entry = await self._parts.cache.fetch(session.id)
            # From here on nothing waits. If anything about the session changed while its data was read, it is judged
            # again: it may belong to somebody else now, or have ended, and then no data would look like an empty cart.
            unchanged = entry is not None and entry.session.revision == session.revision
            if unchanged and stored.version == session.data_version:
                return replace(answer, data=wanted.of(stored))

    async def accept(
        self, call: Call, token: Token, recall: Callable[[], Awaitable[Kept | None]]
    ) -> OpenedToken | Answer | Kept:
        """A token for a change that only its rightful client may make, or the answer if a signal stands in the way.

        Everything else is judged where the change is made. `recall` looks for the first answer to the same call: its
        token may have been replaced by that very call.
        """
        opened = self.open(call, token)
        if isinstance(opened, Answer):
            return opened
        entry = await self._fetch(call, opened.presented.session_id)
        if entry is None:
            return opened
        now = self._parts.clock.now()
        session = self._parts.activity.added_to(entry.session)
        judgement = judge(session, opened.presented, call.policy, now)
        consequences, suspicion, urgent = self._examine(call, session, judgement, None, now)
        judgement = consequences.judgement
        if judgement.verdict is Verdict.VALID and not urgent:
            return opened
        if (kept := await recall()) is not None:
            return kept
        if urgent:
            # Only what the suspicion asks for: the change itself may yet be refused, and then nothing has changed.
            unit = Use(call, opened.presented, passive=True, suspicion=suspicion, renews=False)
            judgement = (await self._parts.journal.submit(unit)).result.judgement
        if judgement.verdict in (Verdict.INSUFFICIENT, Verdict.REPLAYED, Verdict.REVOKED):
            return Answer(judgement)
        return opened

    def open(self, call: Call, token: Token) -> OpenedToken | Answer:
        """A token for a change that anybody may make who has it, or the answer if it was never issued."""
        opened = self._parts.gate.open(call, token)
        return Answer(opened) if isinstance(opened, Judgement) else opened

    async def _judge(self, question: Question, opened: OpenedToken) -> Answer:
        call, presented, parts = question.call, opened.presented, self._parts
        stray = await self._stray_companion(opened, question.requirements)
        # From here to the judgement nothing waits, so the entry is as true as when it was found.
        entry = await self._fetch(call, presented.session_id)
        if entry is None:
            return _UNKNOWN
        now, revision = parts.clock.now(), parts.feed.revision
        known, judgement = self._judged(entry.session, presented, question, now)
        session: Session | None = known
        expires = judgement.verdict in _EXPIRED and entry.session.ending is None  # recorded before it is told
        consequences, suspicion, urgent = self._examine(call, known, judgement, stray, now)
        judgement, passive = consequences.judgement, question.passive
        suffices = judgement.verdict is Verdict.VALID
        if suffices and question.requirements is not NO_REQUIREMENTS:
            # A request that lacks something is denied, and so is no activity.
            seen = as_seen(known, call.policy, now)
            passive = passive or bool(unmet(parts.keys, opened, seen, question.requirements, now))
        active = suffices and not passive
        lags = active and now - entry.saved >= touch_granularity(entry.session, call.policy)
        if judgement.activates or urgent or lags or expires:
            done = await parts.journal.submit(Use(call, presented, passive, suspicion))
            judgement, session, revision = done.result.judgement, done.result.session, done.revision
        if session is None or judgement.verdict not in (Verdict.VALID, Verdict.INSUFFICIENT):
            return Answer(judgement)
        answer = self._granted(question, opened, judgement, session, now)
        if not active or answer.verdict is not Verdict.VALID:
            return replace(answer, revision=revision)
        deadline = idle_deadline(session, call.policy, now)
        activity = parts.activity.note(entry.session, now, deadline, call.client)
        return replace(answer, activity=activity, revision=revision)

    def _judged(
        self, session: Session, presented: Presented, question: Question, now: Instant
    ) -> tuple[Session, Judgement]:
        """The judgement, and the session with the activity that is not saved yet if anything depends on that.

        A valid token is valid without it, since activity only moves the idle deadline on, and a session as it is
        recorded has its message built already. The level of a remembered session does depend on activity.
        """
        judgement = judge(session, presented, question.call.policy, now)
        if judgement.verdict is Verdict.VALID and not question.passive and not session.persistent:
            return session, judgement
        session = self._parts.activity.added_to(session)
        return session, judge(session, presented, question.call.policy, now)

    async def _fetch(self, call: Call, session_id: SessionId) -> Entry | None:
        entry = await self._parts.cache.fetch(session_id)
        return None if entry is None or in_application(entry.session, call.application) is None else entry

    def _is_ordinary(self, call: Call, session: Session) -> bool:
        """Whether nothing but the token has to be looked at: neither the session's state nor who uses it."""
        return (
            session.elevation is None
            and not session.persistent
            and not session.must_authenticate
            and not self._parts.suspicions.is_watched(session)
            and (not call.tells_client or self._parts.suspicions.is_at_home(session, call.client))
            and not self._parts.gate.is_locked_out(call)
            # A question that is remembered keeps the policy that it came with.
            and self._parts.policies.get(call.application) is call.policy
        )

    def _examine(
        self, call: Call, session: Session, judgement: Judgement, stray: Signal | None, now: Instant
    ) -> tuple[Consequences, Suspicion | None, bool]:
        """What follows from a judgement and this use; what was noticed; whether it must be carried out now."""
        noticed: tuple[Signal, ...] = ()
        suspicions = self._parts.suspicions
        if judgement.verdict is Verdict.REPLAYED and suspicions.is_own_client(session, call.client, call.policy):
            judgement = replace(judgement, signals=as_copies(judgement.signals))
        elif judgement.verdict is Verdict.SUPERSEDED and session.last_active > (session.rolled_at or now):
            suspicions.note_superseded(session, now)
        elif judgement.verdict is Verdict.VALID:
            if session.old_token is not None and suspicions.presented_old_token(session, call.client, call.policy):
                judgement = replace(judgement, signals=as_copies(judgement.signals))
            noticed = suspicions.superseded_uses(session)
            if call.tells_client:
                noticed = (*noticed, *suspicions.examine(session, call.client, call.policy, now))
            if stray is not None:
                noticed = (*noticed, stray)
        if noticed:
            judgement = replace(judgement, signals=(*judgement.signals, *noticed))
        consequences = consequences_of(session, judgement, call.policy)
        urgent = judgement.missed and suspicions.is_new_old_token(session, call.client)
        if consequences.reaction is Reaction.IGNORE:
            return consequences, None, urgent
        reported, window = self._parts.reported, call.policy.fold_window
        is_news = any(
            call.policy.reactions[signal.type] is not Reaction.IGNORE
            and not reported.was_reported(session.id, signal.type, window, now)
            for signal in judgement.signals
        )
        suspicion = Suspicion(noticed, session.client) if noticed else None
        return consequences, suspicion, urgent or is_news or consequences.changes_session

    async def _stray_companion(self, opened: OpenedToken, requirements: Requirements) -> Signal | None:
        """The signal that the companion token presented is somebody else's: two cookies that never were together.

        One that has expired, or is left over from an earlier session of the same subject, is only not good enough.
        """
        companion = requirements.foreign_companion(self._parts.keys, opened)
        if companion is None or self._parts.clock.now() >= companion.expires:
            return None
        mine, other = opened.presented.session_id, companion.session_id
        entries = [await self._parts.cache.fetch(session_id) for session_id in (mine, other)]
        if entries[0] is None or entries[1] is None:
            return None
        own, theirs = entries[0].session, expired_view(entries[1].session, self._parts.clock.now())
        if theirs.application != own.application or theirs.ending is not None:
            return None
        if own.subject and own.subject == theirs.subject:
            return None
        return Signal(SignalType.COMPANION_MISMATCH, str(mine), f"companion of {other}")

    def _granted(
        self, question: Question, opened: OpenedToken, judgement: Judgement, session: Session, now: Instant
    ) -> Answer:
        policy, requirements = question.call.policy, question.requirements
        seen = as_seen(session, policy, now)
        missing = () if judgement.verdict is Verdict.VALID else (_AUTHENTICATE_AGAIN,)
        missing = (*missing, *unmet(self._parts.keys, opened, seen, requirements, now))
        if missing:
            # A denied client gets nothing: it may be a stranger.
            return Answer(replace(judgement, verdict=Verdict.INSUFFICIENT), seen, unmet=missing)
        renewed = None if judgement.hand_out is None else self._parts.keys.successor(opened, judgement.hand_out)
        reusable = renewed is None and not judgement.signals and not requirements.companion and not requirements.csrf
        max_age = requirements.authentication.max_age
        until = cacheable_until(session, policy, now, not question.passive, max_age) if reusable else None
        csrf = csrf_token(opened) if question.with_csrf else None
        return Answer(judgement, seen, renewed, csrf=csrf, cacheable_until=until)
