"""The rules of the machine that log in: with any token or none, twice, repeatedly, and with an elevation."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, NamedTuple

from hypothesis import strategies as st
from hypothesis.stateful import rule

from sessiond.authority.authority import Authority
from sessiond.authority.results import AnswerSpec, ChangeResult, EncodedAnswer, TicketChoice
from sessiond.crypto.tokens import Token
from sessiond.domain.errors import AuthorityError, InvalidField, SubjectMismatch
from sessiond.domain.login import Login
from tests.machine.applications import APPLICATIONS, SUBJECTS
from tests.machine.bench import PICKS
from tests.machine.model import (
    INSUFFICIENT,
    MOST_LABELS,
    UNKNOWN,
    VALID,
    Expected,
    Ticket,
    Times,
)
from tests.machine.opening import NO_CHOICE, WISHES, Opening, Wish, choice_of

__all__ = ["LoggingIn", "Logins"]

# Tokens that belong to no session, and their verdicts.
_NO_TOKENS = {"": "MALFORMED", "nonsense": "MALFORMED", "A" * 69 + "Q": "FORGED"}


class KeptLogin(NamedTuple):
    """The first response to a login: the session whose token it returned, and the generation."""

    message: bytes
    expires: int
    number: int
    generation: int


class LoggingIn(NamedTuple):
    """A login that may be repeated."""

    ticket: Ticket
    application: str
    login: Login
    elevates: bool
    or_create: bool


class Logins(Opening):
    """Rules that log in and elevate."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[Any, ...], KeptLogin] = {}  # by what makes two logins the same
        self.logins: list[LoggingIn] = []

    @rule(
        pick=PICKS,
        subject=st.sampled_from(["", "", *SUBJECTS]),
        level=st.sampled_from([1, 2]),
        or_create=st.booleans(),
        wish=WISHES,
        with_id=st.booleans(),
        elsewhere=st.sampled_from([None, None, None, *APPLICATIONS]),
    )
    def authenticate(
        self, pick: int, subject: str, level: int, or_create: bool, wish: Wish, with_id: bool, elsewhere: str | None
    ) -> None:
        """Log in or authenticate again with any token that was ever issued, perhaps in another application."""
        ticket = self.ticket(pick)
        record = self.records[ticket.session]
        application = elsewhere or record.application
        login = wish.login(application, subject or record.subject or "ada", level)
        self.log_in_or_choose(LoggingIn(ticket, application, login, False, or_create), with_id=with_id)

    @rule(pick=PICKS, subject=st.sampled_from(["", "", *SUBJECTS]))
    def elevate(self, pick: int, subject: str) -> None:
        """Elevate a session."""
        ticket = self.ticket(pick)
        record = self.records[ticket.session]
        login = Login(subject or record.subject or "ada", 3, ("otp",))
        self.log_in(LoggingIn(ticket, record.application, login, True, False))

    @rule(pick=PICKS, subject=st.sampled_from(["", "", *SUBJECTS]), or_create=st.booleans(), wish=WISHES)
    def log_in_twice(self, pick: int, subject: str, or_create: bool, wish: Wish) -> None:
        """Click twice on "log in": the second click gets the first response, and has no other effect."""
        ticket = self.ticket(pick)
        record = self.records[ticket.session]
        login = wish.login(record.application, subject or record.subject or "ada", 2)
        made = LoggingIn(ticket, record.application, login, False, or_create)
        first = self.log_in_or_choose(made)
        message = self.last.message
        if first is None or first.token is None:
            return
        assert self.log_in(made) == first
        assert self.last.message == message is not None
        assert self.told == []

    @rule(pick=PICKS, subject=st.sampled_from(["", "", *SUBJECTS]), or_create=st.booleans(), wish=WISHES)
    def log_in_at_once(self, pick: int, subject: str, or_create: bool, wish: Wish) -> None:
        """Log in twice at the same time: the effect is that of two logins in sequence, in one commit."""
        ticket = self.ticket(pick)
        record = self.records[ticket.session]
        login = wish.login(record.application, subject or record.subject or "ada", 2)
        made = LoggingIn(ticket, record.application, login, False, or_create)
        reply = self.transcript.reply(None)

        async def both(authority: Authority) -> list[ChangeResult | EncodedAnswer | BaseException]:
            calls = (self.make(authority, made, reply), self.make(authority, made, reply))
            return list(await asyncio.gather(*calls, return_exceptions=True))

        for given in self.ask(both):
            message = given.message if isinstance(given, EncodedAnswer) else None
            self.logged_in(made, self.transcript.answer(given), message, NO_CHOICE)

    @rule(pick=PICKS)
    def log_in_again(self, pick: int) -> None:
        """Repeat an earlier login, whatever has happened since."""
        if self.logins:
            self.log_in_or_choose(self.logins[-1 - pick % len(self.logins)])

    @rule(
        text=st.sampled_from(sorted(_NO_TOKENS)),
        application=st.sampled_from(APPLICATIONS),
        subject=st.sampled_from(SUBJECTS),
        or_create=st.sampled_from([False, True, True]),
        wish=WISHES,
        with_id=st.booleans(),
    )
    def log_in_without_a_token(
        self, text: str, application: str, subject: str, or_create: bool, wish: Wish, with_id: bool
    ) -> None:
        """Log in without a token, or with one that was never issued."""
        login = wish.login(application, subject, 2)
        limit = self.log_in_anew(text, application, login, or_create, NO_CHOICE, with_id=with_id).limit
        if limit is not None and limit.ticket is not None:
            assert self.log_in_anew(text, application, login, or_create, choice_of(limit)).limit is None
            self.reuse(application, login, limit)

    def log_in_anew(
        self, text: str, application: str, login: Login, or_create: bool, choice: TicketChoice, *, with_id: bool = False
    ) -> ChangeResult:
        changed: ChangeResult = self.change(
            lambda authority, reply: authority.logins.authenticate(
                self.call(authority, application), Token(text), login, reply, or_create=or_create, choice=choice
            ),
            with_id=with_id,
        )
        if not or_create:
            assert changed.verdict.name == _NO_TOKENS[text]
            self.unchanged(changed)
            return changed
        self.is_kept()
        self.opened_instead(application, login, choice, changed, _NO_TOKENS[text])
        self.is_newest(changed)
        return changed

    def log_in_or_choose(self, made: LoggingIn, *, with_id: bool = False) -> ChangeResult | None:
        """Log in; if the limit refuses and the subject may choose what to end, choose."""
        changed = self.log_in(made, with_id=with_id)
        if changed is not None and changed.limit is not None and changed.limit.ticket is not None:
            changed = self.log_in(made, choice=choice_of(changed.limit))
            assert changed is not None
            assert changed.limit is None
        return changed

    def log_in(
        self, made: LoggingIn, *, choice: TicketChoice = NO_CHOICE, with_id: bool = False
    ) -> ChangeResult | None:
        """Log in and compare the result with the model. Return None if the call was refused."""
        self.logins.append(made)
        try:
            changed: ChangeResult = self.change(
                lambda authority, reply: self.make(authority, made, reply, choice), with_id=with_id
            )
        except (SubjectMismatch, InvalidField) as refusal:
            self.logged_in(made, refusal, None, choice)
            return None
        is_first = self.repeated(made) is None
        self.logged_in(made, changed, self.last.message, choice)
        if self.told and is_first:
            self.is_kept(None if made.or_create else made.ticket.session)
        return changed

    def make(
        self, authority: Authority, made: LoggingIn, reply: AnswerSpec[ChangeResult], choice: TicketChoice = NO_CHOICE
    ) -> Coroutine[Any, Any, ChangeResult | EncodedAnswer]:
        """Make the call of a login."""
        return authority.logins.authenticate(
            self.call(authority, made.application),
            self.token(made.ticket),
            made.login,
            reply,
            elevates=made.elevates,
            or_create=made.or_create,
            choice=choice,
        )

    def logged_in(
        self, made: LoggingIn, answer: ChangeResult | AuthorityError, message: bytes | None, choice: TicketChoice
    ) -> None:
        """Apply the outcome of a login to the model: a response and its message, or a refusal."""
        ticket, application, login, _, or_create = made
        if (again := self.repeated(made)) is not None:
            assert message == again.message
            if self.records[again.number].welcome(self.now):
                self.tell("SESSION_REFRESHED", again.number)
            return
        must_refuse = self.refused(made)
        assert must_refuse is None or isinstance(answer, must_refuse)
        if must_refuse is not None:
            return  # nothing has changed
        assert isinstance(answer, ChangeResult)
        at_home = application == self.records[ticket.session].application
        expected = self.judged(ticket, lenient=True) if at_home else Expected(UNKNOWN)
        number = None
        if self.suits(made, expected.verdict):
            number = self.bound(made, answer, choice)
        elif or_create:
            number = self.opened_instead(application, login, choice, answer, expected.verdict)
            if number is not None and expected.verdict in (VALID, INSUFFICIENT):
                self.revoked(ticket.session)  # another subject's session
        else:
            assert answer.verdict.name == expected.verdict
            self.unchanged(answer)
        self.is_newest(answer)
        if number is not None:
            assert message is not None
            expires = self.now + self.in_force[application].login_kept
            generation = self.records[number].generation
            self.kept[_facts(made)] = KeptLogin(message, expires, number, generation)

    def repeated(self, made: LoggingIn) -> KeptLogin | None:
        """Return the first response, if this is the same login within the tolerance and its token is still in use."""
        kept = self.kept.get(_facts(made))
        if kept is None or self.now >= kept.expires:
            return None
        record = self.records[kept.number]
        return kept if record.standing(self.now) == VALID and record.generation == kept.generation else None

    def suits(self, made: LoggingIn, verdict: str) -> bool:
        """Return whether the login is for the session of the presented token."""
        subject = self.records[made.ticket.session].subject
        right = (made.login.subject,) if made.elevates else ("", made.login.subject)
        return verdict in (VALID, INSUFFICIENT) and subject in right

    def refused(self, made: LoggingIn) -> type[AuthorityError] | None:
        """Return the expected refusal of the login."""
        record = self.records[made.ticket.session]
        if made.application != record.application:
            return None
        verdict = record.expect(made.ticket, self.now, lenient=True).verdict
        if self.suits(made, verdict):
            too_many = len({**record.labels, **dict(made.login.labels)}) > MOST_LABELS
            return InvalidField if too_many and not made.elevates else None
        return SubjectMismatch if verdict in (VALID, INSUFFICIENT) and not made.or_create else None

    def bound(self, made: LoggingIn, changed: ChangeResult, choice: TicketChoice) -> int | None:
        """Apply a login of the token's session. Return its number, or None if the limit does not allow it."""
        number, login = made.ticket.session, made.login
        record = self.records[number]
        assert changed.verdict.name == VALID
        assert changed.presented is None
        if made.elevates:
            assert (changed.limit, changed.evicted) == (None, ())
            self.lowered(number)
            record.elevate(login.level, self.now)
        else:
            if not record.subject and not self.has_room(record.application, login.subject, number, choice, changed):
                return None
            record.labels |= dict(login.labels)
            times = None if login.lifetimes is None else Times(login.lifetimes.idle, login.lifetimes.absolute)
            record.bind(login.subject, login.level, self.now, persistent=login.persistent, times=times)
        self.tell("SESSION_AUTHENTICATED", number)
        self.tell("SESSION_ROLLED", number)
        self.rolled(number, changed)
        return number

    def opened_instead(
        self, application: str, login: Login, choice: TicketChoice, changed: ChangeResult, presented: str
    ) -> int | None:
        """Apply a new session in place of the presented token. Return its number, or None if the limit refuses it."""
        assert changed.verdict.name == VALID
        if not self.has_room(application, login.subject, None, choice, changed):
            return None
        assert changed.presented is not None
        assert changed.presented.name == presented
        return self.opened(application, login, changed, {})


def _facts(made: LoggingIn) -> tuple[Any, ...]:
    """Return what two logins must have in common to be the same: the presented token, and what is asked for."""
    login, ticket = made.login, made.ticket
    return (
        ticket.session,
        ticket.secret,
        made.application,
        login.subject,
        login.level,
        login.methods,
        login.persistent,
        made.elevates,
    )
