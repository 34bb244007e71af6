"""Logins: the calls that issue session tokens, and the limit of concurrent sessions that applies to them."""

from __future__ import annotations

from collections.abc import Mapping

from sessiond.authority.parts import Parts
from sessiond.authority.results import AnswerSpec, ChangeResult, EncodedAnswer, Limit, TicketChoice, ValidationResult
from sessiond.authority.retries import Retries
from sessiond.authority.validation import Validation
from sessiond.changes.judging import LimitReached, Outcome
from sessiond.changes.limits import Choice
from sessiond.changes.login import Authenticate, Create, OpenInstead, Roll
from sessiond.crypto.csrf import csrf_digest, csrf_token, csrf_token_of
from sessiond.crypto.tickets import Ticket, issue_ticket, open_ticket, scope_digest
from sessiond.crypto.tokens import Token, digest, new_secret
from sessiond.domain.call import Call
from sessiond.domain.errors import InvalidField
from sessiond.domain.judge import Verdict
from sessiond.domain.login import Login
from sessiond.domain.policy import LimitRule
from sessiond.domain.session import Session, as_seen
from sessiond.domain.values import Instant, SessionId
from sessiond.eventlog.work import Done

__all__ = ["Logins"]

_NO_CHOICE = TicketChoice()


class Logins:
    """Opens sessions, authenticates their subjects and rolls their tokens."""

    def __init__(self, parts: Parts, validation: Validation, retries: Retries) -> None:
        self._parts = parts
        self._validation = validation
        self._retries = retries

    async def create(
        self,
        call: Call,
        login: Login,
        data: Mapping[str, bytes],
        spec: AnswerSpec[ChangeResult],
        *,
        login_page: bool = False,
        choice: TicketChoice = _NO_CHOICE,
    ) -> ChangeResult | EncodedAnswer:
        """Open a session; anonymous if the login has no subject."""
        secret = new_secret(self._parts.entropy)
        chosen = self._chosen(call, login, None, choice)
        unit = self.create_unit(call, login, secret, data, login_page=login_page, choice=chosen)
        return await self._retries.carry_out(unit, lambda done: self.issued_result(call, login, done, secret), spec)

    async def authenticate(
        self,
        call: Call,
        token: Token,
        login: Login,
        spec: AnswerSpec[ChangeResult],
        *,
        elevates: bool = False,
        or_create: bool = False,
        choice: TicketChoice = _NO_CHOICE,
    ) -> ChangeResult | EncodedAnswer:
        """Bind a subject to a session, authenticate it again, or elevate. Each of them rolls the token.

        With `or_create` a new session is opened if the token cannot be used for this subject. Raises `InvalidField`,
        and `SubjectMismatch` if the session belongs to another subject and `or_create` is not set.
        """
        if or_create and elevates:
            raise InvalidField("or_create", "must not be set with elevate: only a live session can be elevated")
        secret = new_secret(self._parts.entropy)
        opened = self._validation.open(call, token)
        session_id = None if isinstance(opened, ValidationResult) else opened.presented.session_id
        chosen = self._chosen(call, login, session_id, choice)
        fresh = self.create_unit(call, login, secret, {}, choice=chosen) if or_create else None
        if isinstance(opened, ValidationResult):
            if fresh is None or opened.verdict is Verdict.LOCKED:
                return self.unchanged_result(opened.verdict)
            instead = OpenInstead(fresh, opened.verdict)
            return await self._retries.carry_out(
                instead, lambda done: self.issued_result(call, login, done, secret), spec
            )
        self._check_persistent(call, login)
        csrf = csrf_digest(csrf_token(opened))
        unit = Authenticate(call, opened.presented, login, digest(secret), elevates, chosen, fresh, csrf)
        return await self._retries.log_in(
            unit,
            lambda done: self.issued_result(call, login, done, secret, session_id),
            spec,
            self._retries.repeated_login(call, opened, login, elevates=elevates),
            _session_of,
            while_live=not or_create,  # with `or_create` a repeat after the session's end would open another session
        )

    async def roll(self, call: Call, token: Token, spec: AnswerSpec[ChangeResult]) -> ChangeResult | EncodedAnswer:
        """Replace the token at a privilege change."""
        opened = await self._validation.accept(call, token, self._retries.recall(spec))
        if isinstance(opened, ValidationResult):
            return self.unchanged_result(opened.verdict)
        if isinstance(opened, EncodedAnswer):
            return opened
        secret = new_secret(self._parts.entropy)
        unit = Roll(call, opened.presented, digest(secret))
        return await self._retries.carry_out(
            unit, lambda done: self.issued_result(call, None, done, secret), spec, _session_of
        )

    def create_unit(
        self,
        call: Call,
        login: Login,
        secret: bytes,
        data: Mapping[str, bytes],
        *,
        login_page: bool = False,
        choice: Choice | None = None,
    ) -> Create:
        """Return the unit that opens a session with this secret."""
        self._check_persistent(call, login)
        session_id = SessionId.make(self._parts.clock.now(), self._parts.entropy)
        return Create(call, session_id, login, digest(secret), data, login_page, choice)

    def issued_result(
        self, call: Call, login: Login | None, done: Done[Outcome], secret: bytes, session_id: SessionId | None = None
    ) -> ChangeResult:
        """Return the result of a unit that issues a token: with the token, or with the limit that prevented it."""
        outcome = done.result
        if outcome.limit_reached is not None and login is not None:
            limit = self._limit(call, login, outcome.limit_reached, session_id, digest(secret)[:16], done.at)
            return ChangeResult(outcome.verdict, None, done.revision, limit=limit)
        if outcome.session is None:
            return ChangeResult(outcome.verdict, None, done.revision)
        session = outcome.session
        return ChangeResult(
            outcome.verdict,
            as_seen(session, call.policy, done.at),
            done.revision,
            self._parts.keys.seal(session.id, session.generation, secret),
            csrf_token_of(session.id, secret),
            outcome.evicted,
            presented=outcome.replaced,
            at=done.at,
        )

    def unchanged_result(self, verdict: Verdict) -> ChangeResult:
        """Return the result of a call that changed nothing."""
        return ChangeResult(verdict, None, self._parts.feed.revision)

    def _limit(
        self,
        call: Call,
        login: Login,
        reached: LimitReached,
        session_id: SessionId | None,
        nonce: bytes,
        now: Instant,
    ) -> Limit:
        if call.policy.on_limit is not LimitRule.ASK:
            return Limit(call.policy.max_sessions)
        expires = Instant(now + call.policy.ticket_timeout)
        ticket = Ticket(nonce, expires, scope_digest(_ticket_scope(call, login, session_id)))
        return Limit(
            call.policy.max_sessions, reached.sessions, issue_ticket(self._parts.keys, ticket), expires, reached.count
        )

    def _chosen(self, call: Call, login: Login, session_id: SessionId | None, choice: TicketChoice) -> Choice | None:
        if choice.ticket is None:
            if choice.evict or choice.evict_oldest:
                field = "evict_session_ids" if choice.evict else "evict_oldest"
                raise InvalidField(field, "requires the ticket of the response that asked for the choice")
            return None
        ticket = open_ticket(self._parts.keys, choice.ticket)
        if ticket is None or not ticket.is_for(_ticket_scope(call, login, session_id)):
            raise InvalidField("ticket", "was not issued for this call; repeat the call without it to get a new one")
        return Choice(ticket.key, ticket.expires, choice.evict, choice.evict_oldest)

    @staticmethod
    def _check_persistent(call: Call, login: Login) -> None:
        if login.persistent and call.policy.remember_idle_timeout is None:
            raise InvalidField("persistent", "the application's policy sets no remember_idle_timeout")


def _session_of(outcome: Outcome) -> Session | None:
    return outcome.session


def _ticket_scope(call: Call, login: Login, session_id: SessionId | None) -> tuple[str, ...]:
    own = "" if session_id is None else str(session_id)
    wanted = repr((login.persistent, login.lifetimes, login.labels))
    return (call.application, login.subject, str(login.level), " ".join(login.methods), own, wanted)
