"""Validation: what a presented token is worth now, from memory where it can be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sessiond import changes
from sessiond.authority.requirements import Needed, unmet
from sessiond.authority.results import Answer
from sessiond.authority.token_gate import Gate
from sessiond.cache.sessions import Entry, SessionCache
from sessiond.changes import Call
from sessiond.crypto.companions import csrf_token
from sessiond.crypto.tokens import KeyRing, OpenedToken, Token
from sessiond.detection.suspicions import Watching
from sessiond.domain.errors import BeyondLog
from sessiond.domain.judge import PLAIN, UNKNOWN, Judgement, Presented, Verdict, judge
from sessiond.domain.policy import Policy
from sessiond.domain.requirements import RequirementKind, Unmet
from sessiond.domain.session import Session, as_seen, expired_view, idle_deadline
from sessiond.domain.signals import OF_THE_SESSION, Reaction, Signal, SignalType
from sessiond.domain.values import Instant
from sessiond.eventlog.feed import Feed
from sessiond.eventlog.journal import Journal
from sessiond.system.clock import Clock

__all__ = ["Validation"]

_UNKNOWN = Answer(UNKNOWN)
_EXPIRED = (Verdict.EXPIRED_IDLE, Verdict.EXPIRED_ABSOLUTE)
_REVOKING = (Reaction.REVOKE_SESSION, Reaction.REVOKE_SUBJECT)
_AUTHENTICATE_AGAIN = Unmet(RequirementKind.REAUTHENTICATION, "authenticate the subject again from this client")


class Validation:
    """Judges presented tokens, watches how they are used, and has carried out what follows."""

    def __init__(
        self,
        journal: Journal,
        feed: Feed,
        cache: SessionCache,
        keys: KeyRing,
        policies: Mapping[str, Policy],
        gate: Gate,
        watching: Watching,
        clock: Clock,
    ) -> None:
        self._journal = journal
        self._feed = feed
        self._cache = cache
        self._keys = keys
        self._policies = policies
        self._gate = gate
        self._watching = watching
        self._clock = clock

    def check_revision(self, wanted: int) -> None:
        """Raise `BeyondLog` where the log has not come that far."""
        if wanted > self._feed.revision:
            raise BeyondLog(wanted, self._feed.revision)

    async def validate(
        self,
        call: Call,
        token: Token,
        *,
        passive: bool = False,
        min_revision: int = 0,
        needed: Needed | None = None,
        with_csrf: bool = False,
    ) -> Answer:
        """Say what a token is worth.

        Only a verdict with consequences waits for a commit: a successor's first use, a fresh suspicion, and activity
        that would otherwise lag behind by more than the policy's granularity (so that a crash ends no session earlier
        than that).
        """
        self.check_revision(min_revision)
        opened = self.at_once(call, token, passive=passive, needed=needed, with_csrf=with_csrf)
        if isinstance(opened, Answer):
            return opened
        return await self.judge(call, opened, passive=passive, needed=needed, with_csrf=with_csrf)

    def at_once(
        self,
        call: Call,
        token: Token,
        *,
        passive: bool = False,
        needed: Needed | None = None,
        with_csrf: bool = False,
    ) -> Answer | OpenedToken:
        """The answer where it can be given without waiting, as nearly every one can; else the opened token, to `judge`.

        Refuses what was never issued, and passes what is plainly valid.
        """
        opened = self._gate.open(call, token)
        if isinstance(opened, Judgement):
            return Answer(opened)
        if needed is not None or with_csrf:
            return opened
        return self.plainly_valid(call, opened.presented, passive=passive) or opened

    async def judge(
        self,
        call: Call,
        opened: OpenedToken,
        *,
        passive: bool = False,
        needed: Needed | None = None,
        with_csrf: bool = False,
    ) -> Answer:
        """The answer to an opened token, whatever follows from it."""
        presented = opened.presented
        stray = await self._stray_companion(opened, needed)
        # From here to the judgement nothing waits, so the entry is as true as when it was found.
        entry = await self._cache.fetch(presented.session_id)
        if entry is None or entry.session.application != call.application:
            return _UNKNOWN
        now = self._clock.now()
        session: Session | None = self._cache.with_activity(entry.session)
        judgement = judge(session or entry.session, presented, call.policy, now)
        expires = judgement.verdict in _EXPIRED and entry.session.ending is None  # recorded before it is told
        judgement, suspicion, urgent = self._suspect(call, entry, judgement, stray, now, examines=True)
        suffices = judgement.verdict is Verdict.VALID
        if needed is not None and suffices:
            # A request that lacks something is denied, and so is no activity.
            seen = as_seen(session or entry.session, call.policy, now)
            passive = passive or bool(unmet(self._keys, opened, seen, needed, now))
        active = suffices and not passive
        lags = active and now - entry.saved >= call.policy.touch_granularity
        if judgement.activates or urgent or lags or expires:
            unit = changes.Settle(call, presented, passive, suspicion)
            outcome = (await self._journal.submit(unit)).result
            judgement, session = outcome.judgement, outcome.session
        if session is None or judgement.verdict not in (Verdict.VALID, Verdict.INSUFFICIENT):
            return Answer(judgement)
        answer = self._granted(call, opened, judgement, session, needed, now, with_csrf=with_csrf)
        if not active or answer.verdict is not Verdict.VALID:
            return answer
        deadline = idle_deadline(session, call.policy, now)
        self._cache.note_activity(entry.session, now, deadline)
        return replace(answer, active_at=now, idle_deadline=deadline)

    def plainly_valid(
        self, call: Call, presented: Presented, *, passive: bool = False, min_revision: int = 0
    ) -> Answer | None:
        """The answer where it is VALID, from memory, and nothing follows from it but activity; else None.

        Nearly every validation ends here. None says nothing about the token: the ordinary way decides.
        """
        entry = self._cache.get(presented.session_id)
        if entry is None or entry.session.application != call.application or min_revision > self._feed.revision:
            return None
        now = self._clock.now()
        session = entry.session
        if judge(session, presented, call.policy, now) is not PLAIN or not self._is_ordinary(call, session):
            return None
        if passive:
            return Answer(PLAIN, self._cache.with_activity(session), presented=presented)
        if now - entry.saved >= call.policy.touch_granularity:
            return None
        deadline = idle_deadline(session, call.policy, now)
        self._cache.note_activity(session, now, deadline)
        return Answer(PLAIN, session, None, now, deadline, presented)

    async def accept(self, call: Call, token: Token, *, heals: bool = False) -> OpenedToken | Answer:
        """A token for a change, or the answer where a signal stands in the way.

        Everything else is judged where the change is made. `heals` is for what a stranger may do as well, since it
        harms nobody or proves who it is: authenticate, revoke, report.
        """
        opened = self._gate.open(call, token)
        if isinstance(opened, Judgement):
            return Answer(opened)
        presented = opened.presented
        entry = await self._cache.fetch(presented.session_id)
        if entry is None or entry.session.application != call.application:
            return opened
        now = self._clock.now()
        judgement = judge(self._cache.with_activity(entry.session), presented, call.policy, now)
        judgement, suspicion, urgent = self._suspect(call, entry, judgement, None, now, examines=not heals)
        if urgent:
            # Only what the suspicion asks for: the change itself may yet be refused, and then nothing has changed.
            unit = changes.Settle(call, presented, passive=True, suspicion=suspicion, renews=False)
            judgement = (await self._journal.submit(unit)).result.judgement
        refused = judgement.signals or not heals
        if judgement.verdict in (Verdict.INSUFFICIENT, Verdict.REPLAYED, Verdict.REVOKED) and refused:
            return Answer(judgement)
        return opened

    def _is_ordinary(self, call: Call, session: Session) -> bool:
        """Whether nothing but the token has to be looked at: neither the session's state nor who uses it."""
        return (
            session.elevation is None
            and not session.persistent
            and not session.must_authenticate
            and not self._watching.second_holder(session)
            and (not call.tells_client or self._watching.is_at_home(session, call.client))
            and not self._gate.shuts_out(call)
            # A question that is remembered keeps the policy that it came with.
            and self._policies.get(call.application) is call.policy
        )

    def _suspect(
        self, call: Call, entry: Entry, judgement: Judgement, stray: Signal | None, now: Instant, *, examines: bool
    ) -> tuple[Judgement, changes.Suspicion | None, bool]:
        """The judgement with what is suspicious about this use; the suspicion; whether it must be carried out now."""
        session, signals = entry.session, judgement.signals
        if judgement.missed:
            self._watching.miss(session)
        if judgement.verdict is Verdict.VALID:
            if session.must_authenticate:
                judgement = replace(judgement, verdict=Verdict.INSUFFICIENT)
            if examines:
                signals = self._watching.second_holder(session)
            if examines and call.tells_client:
                signals = (*signals, *self._watching.examine(session, call.client, call.policy, now))
            if stray is not None:
                signals = (*signals, stray)
        reaction = call.policy.reaction_to(signals)
        if reaction is Reaction.IGNORE:
            return judgement, None, False
        # What the policy ignores is no suspicion by itself, but evidence beside another one.
        judgement = replace(judgement, signals=signals)
        fresh = self._watching.is_fresh(session, signals, call.policy, now)
        if reaction is Reaction.STEP_UP and judgement.verdict is Verdict.VALID:
            judgement = replace(judgement, verdict=Verdict.INSUFFICIENT)
        holds = (
            reaction is Reaction.STEP_UP
            and not session.must_authenticate
            and any(s.type in OF_THE_SESSION and call.policy.reactions[s.type] is reaction for s in signals)
        )
        return judgement, changes.Suspicion(signals, session.client, fresh), fresh or holds or reaction in _REVOKING

    async def _stray_companion(self, opened: OpenedToken, needed: Needed | None) -> Signal | None:
        """The signal that the companion token presented is somebody else's: two cookies that never were together.

        One that has expired, or is left over from an earlier session of the same subject, is only not good enough.
        """
        companion = None if needed is None else needed.foreign_companion(self._keys, opened)
        if companion is None or self._clock.now() >= companion.expires:
            return None
        mine, other = opened.presented.session_id, companion.session_id
        entries = [await self._cache.fetch(session_id) for session_id in (mine, other)]
        if entries[0] is None or entries[1] is None:
            return None
        own, theirs = entries[0].session, expired_view(entries[1].session, self._clock.now())
        if theirs.application != own.application or theirs.ending is not None:
            return None
        if own.subject and own.subject == theirs.subject:
            return None
        return Signal(SignalType.COMPANION_MISMATCH, str(mine), f"companion of {other}")

    def _granted(
        self,
        call: Call,
        opened: OpenedToken,
        judgement: Judgement,
        session: Session,
        needed: Needed | None,
        now: Instant,
        *,
        with_csrf: bool,
    ) -> Answer:
        session = as_seen(session, call.policy, now)
        missing = () if judgement.verdict is Verdict.VALID else (_AUTHENTICATE_AGAIN,)
        if needed is not None:
            missing = (*missing, *unmet(self._keys, opened, session, needed, now))
        if missing:
            # Who is denied is given nothing: it may be a stranger.
            return Answer(replace(judgement, verdict=Verdict.INSUFFICIENT), session, unmet=missing)
        renewed = None if judgement.hand_out is None else self._keys.successor(opened, judgement.hand_out)
        return Answer(judgement, session, renewed, csrf=csrf_token(opened) if with_csrf else None)
