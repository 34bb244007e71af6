"""Validation: the verdict on a presented token, from memory if possible."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace

from sessiond.authority.parts import Parts
from sessiond.authority.question import Question
from sessiond.authority.requirements import NO_REQUIREMENTS, Requirements, unmet
from sessiond.authority.results import EncodedAnswer, ValidationResult
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

_UNKNOWN = ValidationResult(UNKNOWN)
_EXPIRED = (Verdict.EXPIRED_IDLE, Verdict.EXPIRED_ABSOLUTE)
_AUTHENTICATE_AGAIN = Unmet(RequirementKind.REAUTHENTICATION, "authenticate the subject again from this client")


class Validation:
    """Judges presented tokens, detects suspicious uses, and has the consequences carried out."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.verdicts: Counter[tuple[str, Verdict]] = Counter()
        """How many tokens of each application have got each verdict."""

    @property
    def keys_version(self) -> int:
        """Differs once tokens may be opened by other keys: what was presented before may be forged since."""
        return self._parts.gate.version

    async def validate(self, question: Question) -> ValidationResult:
        """Judge a token.

        Waits for a commit only if there is something to record: a successor's first use, a suspicion that was not
        reported recently, an expiry, or activity that would otherwise lag by more than the granularity, which bounds
        how much earlier a session can end after a crash. Raises `PositionOutOfRange`, `Unavailable`, and
        `DataUnreadable` if data was requested.
        """
        if question.at_least is not None:
            await self._parts.feed.wait_for(question.at_least)
        opened = self.immediate_result(question)
        return opened if isinstance(opened, ValidationResult) else await self.judge(question, opened)

    def immediate_result(self, question: Question) -> ValidationResult | OpenedToken:
        """Return the result if it is available without waiting, else the opened token for `judge`.

        Most are: tokens that were never issued, and tokens that are valid without consequences.
        """
        opened = self._parts.gate.open(question.call, question.token)
        if isinstance(opened, Judgement):
            self.verdicts[question.call.application, opened.verdict] += 1
            return ValidationResult(opened)
        if not question.is_plain:
            return opened
        return self.plain_valid_result(question.call, opened.presented, passive=question.passive) or opened

    def plain_valid_result(
        self, call: Call, presented: Presented, *, passive: bool, at_least: Position | None = None
    ) -> ValidationResult | None:
        """Return the result if memory shows that the token is VALID without consequences except activity, else None.

        Most validations end here. None says nothing about the token; then `judge` decides.
        """
        parts = self._parts
        entry = parts.cache.get(presented.session_id)
        if entry is None or entry.session.application != call.application:
            return None
        if at_least is not None and not parts.feed.has(at_least):
            return None
        now, session = parts.clock.now(), entry.session
        if judge(session, presented, call.policy, now) is not PLAIN or not self._token_alone_decides(call, session):
            return None
        if passive:
            seen = parts.activity.apply_to(session)
            until = cacheable_until(seen, call.policy, now, False, None)
            self.verdicts[call.application, Verdict.VALID] += 1
            return ValidationResult(
                PLAIN, seen, presented=presented, cacheable_until=until, revision=parts.feed.revision
            )
        if now - entry.saved >= touch_granularity(session, call.policy):
            return None
        until = cacheable_until(session, call.policy, now, True, None)
        deadline = idle_deadline(session, call.policy, now)
        activity = parts.activity.note(session, now, deadline, call.client)
        self.verdicts[call.application, Verdict.VALID] += 1
        return ValidationResult(
            PLAIN, session, None, activity, presented, cacheable_until=until, revision=parts.feed.revision
        )

    async def judge(self, question: Question, opened: OpenedToken) -> ValidationResult:
        """Return the result for an opened token, and have its consequences carried out."""
        result = await self._judge_with_data(question, opened)
        self.verdicts[question.call.application, result.verdict] += 1
        return result

    async def _judge_with_data(self, question: Question, opened: OpenedToken) -> ValidationResult:
        stored: VersionedData | None = None
        while True:
            result = await self._judge(question, opened)
            session, wanted = result.session, question.data
            if wanted is None or session is None or result.verdict is not Verdict.VALID:
                return result
            if wanted.newer_than and session.data_version <= wanted.newer_than:
                return result
            if stored is not None and stored.version == session.data_version:
                return replace(result, data=wanted.of(stored))
            stored = await self._parts.store.data(session.id)
            entry = await self._parts.cache.fetch(session.id)
            # No await from here on. If the session changed while its data was read, judge it again: it may belong to
            # another subject now, or have ended, and then the missing data would look like empty data.
            unchanged = entry is not None and entry.session.revision == session.revision
            if unchanged and stored.version == session.data_version:
                return replace(result, data=wanted.of(stored))

    async def accept(
        self, call: Call, token: Token, recall: Callable[[], Awaitable[EncodedAnswer | None]]
    ) -> OpenedToken | ValidationResult | EncodedAnswer:
        """Check a token before a change that only the rightful client may make.

        Return the opened token for the unit that makes the change and judges the token again. Return a result instead
        if the gate denies the token or its verdict is INSUFFICIENT, REPLAYED or REVOKED. Return the kept answer if
        `recall` finds that the same call was already carried out, because that call may have replaced the token.
        """
        opened = self.open(call, token)
        if isinstance(opened, ValidationResult):
            return opened
        entry = await _fetch(self._parts, call, opened.presented.session_id)
        if entry is None:
            return opened
        now = self._parts.clock.now()
        session = self._parts.activity.apply_to(entry.session)
        judgement = judge(session, opened.presented, call.policy, now)
        consequences, suspicion, urgent = self._examine(call, session, judgement, None, now)
        judgement = consequences.judgement
        if judgement.verdict is Verdict.VALID and not urgent:
            return opened
        if (kept := await recall()) is not None:
            return kept
        if urgent:
            # Carry out only the reaction to the suspicion. The change itself may still be refused.
            unit = Use(call, opened.presented, passive=True, suspicion=suspicion, renews=False)
            judgement = (await self._parts.journal.submit(unit)).result.judgement
        if judgement.verdict in (Verdict.INSUFFICIENT, Verdict.REPLAYED, Verdict.REVOKED):
            return ValidationResult(judgement)
        return opened

    def open(self, call: Call, token: Token) -> OpenedToken | ValidationResult:
        """Open a token for a change that every holder may make. Return a result instead if the gate denies it."""
        opened = self._parts.gate.open(call, token)
        return ValidationResult(opened) if isinstance(opened, Judgement) else opened

    async def _judge(self, question: Question, opened: OpenedToken) -> ValidationResult:
        call, presented, parts = question.call, opened.presented, self._parts
        companion_signal = await _foreign_companion_signal(parts, opened, question.requirements)
        # No await between fetching the entry and judging it, so the entry cannot become outdated in between.
        entry = await _fetch(parts, call, presented.session_id)
        if entry is not None and _is_level_outdated(parts, call, entry):
            entry = await parts.cache.reload(presented.session_id)
        if entry is None:
            return _UNKNOWN
        now, revision = parts.clock.now(), parts.feed.revision
        known, judgement = self._judged(entry.session, presented, question, now)
        session: Session | None = known
        expires = judgement.verdict in _EXPIRED and entry.session.ending is None  # recorded before it is returned
        consequences, suspicion, urgent = self._examine(call, known, judgement, companion_signal, now)
        judgement, passive = consequences.judgement, question.passive
        suffices = judgement.verdict is Verdict.VALID
        if suffices and question.requirements is not NO_REQUIREMENTS:
            # A request with unmet requirements is denied, so it does not count as activity.
            seen = as_seen(known, call.policy, now)
            passive = passive or bool(unmet(parts.keys, opened, seen, question.requirements, call.policy, now))
        active = suffices and not passive
        lags = active and now - entry.saved >= touch_granularity(entry.session, call.policy)
        if judgement.activates or urgent or lags or expires:
            quiet = not (judgement.activates or urgent or expires)
            done = await parts.journal.submit(Use(call, presented, passive, suspicion, quiet=quiet))
            judgement, session, revision = done.result.judgement, done.result.session, done.revision
        if session is None or judgement.verdict not in (Verdict.VALID, Verdict.INSUFFICIENT):
            return ValidationResult(judgement)
        result = self._build_result(question, opened, judgement, session, now)
        if not active or result.verdict is not Verdict.VALID:
            return replace(result, revision=revision)
        deadline = idle_deadline(session, call.policy, now)
        activity = parts.activity.note(entry.session, now, deadline, call.client)
        return replace(result, activity=activity, revision=revision)

    def _judged(
        self, session: Session, presented: Presented, question: Question, now: Instant
    ) -> tuple[Session, Judgement]:
        """Return the judgement and the session, with its unsaved activity only if the result depends on it.

        Activity only extends the idle deadline, so a token that is valid without it is valid with it. Then the cached
        session object is returned, because its encoded message is cached too. The level of a remembered session does
        depend on activity.
        """
        judgement = judge(session, presented, question.call.policy, now)
        if judgement.verdict is Verdict.VALID and not question.passive and not session.persistent:
            return session, judgement
        session = self._parts.activity.apply_to(session)
        return session, judge(session, presented, question.call.policy, now)

    def _token_alone_decides(self, call: Call, session: Session) -> bool:
        """Return whether the token alone decides: nothing about the session or its client needs a closer look."""
        return (
            session.elevation is None
            and not session.persistent
            and not session.must_authenticate
            and not self._parts.suspicions.must_examine(session)
            and (not call.has_client_context or self._parts.suspicions.can_skip_examine(session, call.client))
            and not self._parts.gate.is_locked_out(call)
            # The call may come from a cached question and hold a policy that has been replaced.
            and self._parts.policies.get(call.application) is call.policy
        )

    def _examine(
        self, call: Call, session: Session, judgement: Judgement, companion_signal: Signal | None, now: Instant
    ) -> tuple[Consequences, Suspicion | None, bool]:
        """Return the consequences of a judgement and this use, the signals found, and whether a commit is required."""
        noticed: tuple[Signal, ...] = ()
        suspicions, one_holder = self._parts.suspicions, False
        if judgement.verdict is Verdict.REPLAYED and suspicions.is_own_client(session, call.client, call.policy):
            judgement = replace(judgement, signals=as_copies(judgement.signals))
        elif judgement.verdict is Verdict.SUPERSEDED and session.last_active > (session.rolled_at or now):
            suspicions.note_superseded(session, now)
        elif judgement.verdict is Verdict.VALID:
            one_holder = session.old_token is not None and suspicions.presented_old_token(
                session, call.client, call.policy
            )
            if one_holder:
                judgement = replace(judgement, signals=as_copies(judgement.signals))
            noticed = suspicions.superseded_uses(session)
            if call.has_client_context:
                noticed = (*noticed, *suspicions.examine(session, call.client, call.policy, now))
            if companion_signal is not None:
                noticed = (*noticed, companion_signal)
        if noticed:
            judgement = replace(judgement, signals=(*judgement.signals, *noticed))
        consequences = consequences_of(session, judgement, call.policy)
        is_news = judgement.may_have_missed_roll and suspicions.is_new_old_token(session, call.client)
        urgent = one_holder or is_news
        if consequences.reaction is Reaction.IGNORE:
            return consequences, None, urgent
        reported, window = self._parts.reported, call.policy.fold_window
        is_unreported = any(
            call.policy.reactions[signal.type] is not Reaction.IGNORE
            and not reported.was_reported(session.id, signal.type, window, now)
            for signal in judgement.signals
        )
        suspicion = Suspicion(noticed, session.client) if noticed else None
        return consequences, suspicion, urgent or is_unreported or consequences.changes_session

    def _build_result(
        self, question: Question, opened: OpenedToken, judgement: Judgement, session: Session, now: Instant
    ) -> ValidationResult:
        policy, requirements = question.call.policy, question.requirements
        seen = as_seen(session, policy, now)
        missing = () if judgement.verdict is Verdict.VALID else (_AUTHENTICATE_AGAIN,)
        missing = (*missing, *unmet(self._parts.keys, opened, seen, requirements, policy, now))
        if missing:
            # A denied client gets no tokens: it may be an intruder.
            return ValidationResult(replace(judgement, verdict=Verdict.INSUFFICIENT), seen, unmet=missing)
        renewed = None if judgement.hand_out is None else self._parts.keys.successor(opened, judgement.hand_out)
        reusable = renewed is None and not judgement.signals and not requirements.companion and not requirements.csrf
        max_age = requirements.authentication.max_age
        until = cacheable_until(session, policy, now, not question.passive, max_age) if reusable else None
        csrf = csrf_token(opened) if question.with_csrf else None
        return ValidationResult(judgement, seen, renewed, csrf=csrf, cacheable_until=until)


async def _fetch(parts: Parts, call: Call, session_id: SessionId) -> Entry | None:
    entry = await parts.cache.fetch(session_id)
    return None if entry is None or in_application(entry.session, call.application) is None else entry


def _is_level_outdated(parts: Parts, call: Call, entry: Entry) -> bool:
    """Return whether the level of a remembered session may depend on activity that another replica has seen."""
    if parts.follower is None or not entry.session.persistent:
        return False
    return parts.clock.now() - entry.saved >= touch_granularity(entry.session, call.policy)


async def _foreign_companion_signal(parts: Parts, opened: OpenedToken, requirements: Requirements) -> Signal | None:
    """Return a signal if the presented companion token belongs to a different session, so the cookies do not match.

    A companion token that has expired, or that is left over from an earlier session of the same subject, is not
    suspicious: it only fails the requirement.
    """
    companion = requirements.foreign_companion(parts.keys, opened)
    if companion is None or parts.clock.now() >= companion.expires:
        return None
    mine, other = opened.presented.session_id, companion.session_id
    entries = [await parts.cache.fetch(session_id) for session_id in (mine, other)]
    if entries[0] is None or entries[1] is None:
        return None
    own, theirs = entries[0].session, expired_view(entries[1].session, parts.clock.now())
    if theirs.application != own.application or theirs.ending is not None:
        return None
    if own.subject and own.subject == theirs.subject:
        return None
    return Signal(SignalType.COMPANION_MISMATCH, str(mine), f"companion of {other}")
