"""Shared parts of the machine's rules: calling the real authority, and comparing the results with the model."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

from sessiond.authority.authority import Authority
from sessiond.authority.results import AnswerSpec, ChangeResult, EncodedAnswer, RequestId
from sessiond.crypto.tokens import Token
from sessiond.domain.call import Call, Caller
from sessiond.domain.errors import SessionNotFound
from sessiond.domain.login import Login
from sessiond.domain.session import Session
from sessiond.domain.values import ClientContext, Lifetimes, Millis, Revision, SessionId
from tests.machine.applications import RULES, policies_of
from tests.machine.ledger import Ledger
from tests.machine.living import LivingAuthority
from tests.machine.model import (
    ABSOLUTE,
    IDLE,
    REVOKE_SESSION,
    REVOKE_SUBJECT,
    REVOKED,
    UNKNOWN,
    VALID,
    Expected,
    Record,
    Ticket,
    Times,
)
from tests.machine.transcript import Transcript
from tests.support.clock import ManualClock

__all__ = ["PAUSES", "PICKS", "Bench", "Made"]

PICKS = st.integers(0, 7) | st.integers(0, 80)
PAUSES = [1, 999, 1_000, 2_999, 3_000, 5_000, 9_000, 14_999, 15_000, 19_999, 40_000]
_MEMORY = Path("/dev/shm")  # a thousand small databases, and no test here is about durability
_CALLER = Caller("machine")
_CLIENT = ClientContext()


class Made(NamedTuple):
    """A changing call that was made: how to repeat it, its id, and the response's message if one was stored.

    `about` is the session whose token was judged. After that session has ended, a retry of the call is judged again.
    """

    make: Callable[[Authority, AnswerSpec[Any]], Coroutine[Any, Any, Any]]
    request: RequestId | None
    message: bytes | None
    about: int | None = None


class Bench(RuleBasedStateMachine):
    """The real authority, the model's records, and every token ever issued.

    `told` lists the events that the log must contain since the last call: each one's name and session number.
    """

    postgres: ClassVar[str] = ""
    """The URL of the Postgres that has the store; empty: the store is a SQLite file."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="sessiond-machine-", dir=_MEMORY if _MEMORY.is_dir() else None))
        self.clock = ManualClock()
        self.in_force = dict(RULES)
        self.living = LivingAuthority(self.folder, policies_of(self.in_force), self.clock, self.postgres)
        self.ledger = Ledger()
        self.transcript = Transcript()
        self.records: list[Record] = []
        self.ids: list[SessionId] = []
        self.texts: dict[Ticket, str] = {}  # every token ever issued, in order of issue
        self.repeats: list[Made] = []  # calls with an id whose response must be stored
        self.told: list[tuple[str, int | None]] = []
        self.head = Revision(0)
        self.last = Made(_nothing, None, None)

    def teardown(self) -> None:
        self.living.close()
        shutil.rmtree(self.folder)

    # Asking

    @property
    def now(self) -> int:
        return self.clock.now()

    def ask(self, make: Callable[[Authority], Coroutine[Any, Any, Any]]) -> Any:
        """Call the authority. The log must contain the last call's events before, and this call's events after it."""
        self.check_log()
        return self.living.run(make(self.living.authority))

    def change(
        self, make: Callable[[Authority, AnswerSpec[Any]], Coroutine[Any, Any, Any]], *, with_id: bool = False
    ) -> Any:
        """Make a change, and return its result, whether or not it was stored for a retry."""
        request = self.transcript.fresh_id() if with_id else None
        self.last = Made(make, request, None)  # it may raise an exception
        given = self.ask(lambda authority: make(authority, self.transcript.reply(request)))
        self.last = Made(make, request, given.message if isinstance(given, EncodedAnswer) else None)
        return self.transcript.answer(given)

    def is_kept(self, about: int | None = None) -> None:
        """Expect the last call's response to be stored if it has an id; `about` a session, only while that lives."""
        if self.last.request is not None:
            self.repeats.append(self.last._replace(about=about))

    @staticmethod
    def call(authority: Authority, application: str) -> Call:
        return authority.call(application, _CALLER, _CLIENT)

    def check_log(self, *, in_order: bool = True) -> None:
        """Compare the events since the last check with the expected ones."""
        news = self.living.revision != self.head
        events = self.living.events_after(self.head) if news else []
        got = [
            (event.type.name, None if event.session_id is None else self.ids.index(event.session_id))
            for event in events
        ]
        assert (got if in_order else sorted(got, key=str)) == (self.told if in_order else sorted(self.told, key=str)), (
            f"the log got {got}, the model has {self.told}"
        )
        self.ledger.follow(events)
        self.head = self.living.revision
        assert self.ledger.revision == self.head
        self.told = []

    def tell(self, name: str, number: int | None) -> None:
        """Expect the log to contain this event."""
        self.told.append((name, number))

    # Tokens

    def ticket(self, pick: int) -> Ticket:
        """Return a ticket, counted from the newest: with an odd number of any session, else of a live one."""
        issued = list(self.texts)
        if pick % 2 == 0:
            issued = [one for one in issued if self.records[one.session].standing(self.now) == VALID] or issued
        return issued[-1 - pick // 2 % len(issued)]

    def token(self, ticket: Ticket) -> Token:
        return Token(self.texts[ticket])

    def issued(self, ticket: Ticket, token: Token | None) -> None:
        """Check that a ticket's token is the same string whenever it is issued, and different from all others."""
        assert token is not None
        assert self.texts.setdefault(ticket, token.reveal()) == token.reveal()
        assert len(set(self.texts.values())) == len(self.texts)

    def judged(self, ticket: Ticket, *, lenient: bool = False) -> Expected:
        """Return the expected result of presenting a token, and apply its consequences to the model."""
        number, record = ticket.session, self.records[ticket.session]
        expected = record.expect(ticket, self.now, lenient=lenient)
        self.expired(number, expected.verdict)
        if expected.missed and not record.old_token:
            record.old_token = True
            self.tell("OLD_TOKEN_PRESENTED", number)
        if expected.suspected:
            self.suspected(number)
        if expected.moves_on:
            record.move_on(self.now)
            self.tell("SESSION_RENEWED", number)
        return expected

    def expired(self, number: int, verdict: str) -> None:
        """Expect that the expiry of a session is recorded by the call that reports it."""
        record = self.records[number]
        if verdict in (IDLE, ABSOLUTE) and record.ended is None:
            record.end(verdict, record.ended_at(verdict))
            self.tell("SESSION_EXPIRED", number)

    def suspected(self, number: int) -> None:
        """Apply the policy's reaction to a replay: first what is reported, and then what is done."""
        record = self.records[number]
        if record.reports(self.now):
            self.tell("HIJACK_SUSPECTED", number)
        if record.rules.on_replay in (REVOKE_SESSION, REVOKE_SUBJECT):
            self.revoked(number)
        if record.rules.on_replay == REVOKE_SUBJECT and record.subject:
            for other in self.live(record.application, record.subject):
                self.revoked(other)

    def revoked(self, number: int) -> None:
        """Record that a live session was ended."""
        self.records[number].end(REVOKED, self.now)
        self.tell("SESSION_REVOKED", number)

    def live(self, application: str, subject: str | None = None) -> list[int]:
        """Return the live sessions of an application, or of a subject, in the order of their creation."""
        found = [
            number
            for number, record in enumerate(self.records)
            if record.application == application
            and subject in (None, record.subject)
            and record.standing(self.now) == VALID
        ]
        return sorted(found, key=self.ids.__getitem__)

    # Sessions

    def opened(
        self, application: str, login: Login, changed: ChangeResult, data: dict[str, bytes], *, login_page: bool = False
    ) -> int:
        """Record a new session, and return its number."""
        assert changed.session is not None
        number = len(self.records)
        record = Record(
            application,
            self.in_force[application],
            login.subject,
            self.now,
            level=login.level if login.subject else 0,
            persistent=login.persistent,
            login_page=login_page,
            times=times_of(login.lifetimes),
            labels=dict(login.labels),
            data=data,
        )
        self.records.append(record)
        self.ids.append(changed.session.id)
        self.tell("SESSION_CREATED", number)
        self.check_session(number, changed.session)
        self.issued(Ticket(number, 0, 0), changed.token)
        return number

    def active(self, number: int) -> None:
        """Record a use of the session. If its level has fallen, this becomes permanent and is an event."""
        self.lowered(number)
        self.records[number].be_active(self.now)

    def lowered(self, number: int) -> None:
        """Expect the event of a level that has fallen, which comes with the next activity."""
        record = self.records[number]
        if record.own_level(self.now) != record.level:
            self.tell("SESSION_LEVEL_LOWERED", number)

    def rolled(self, number: int, changed: ChangeResult) -> None:
        """Record that the session has a new token."""
        record = self.records[number]
        self.check_session(number, changed.session)
        self.issued(Ticket(number, record.secret, record.generation), changed.token)

    def unchanged(self, changed: ChangeResult) -> None:
        """Check a response that returns no session and no token."""
        assert (changed.session, changed.token, changed.csrf) == (None, None, None)
        self.is_newest(changed)

    def is_newest(self, changed: ChangeResult) -> None:
        """Check that a response names the revision of the newest event that it knows: its own last, if it has any."""
        assert changed.revision == self.head + len(self.told)

    def check_session(self, number: int, session: Session | None) -> None:
        """Compare a session as callers see it with the model."""
        record = self.records[number]
        assert session is not None
        assert session.id == self.ids[number]
        assert (session.application, session.subject) == (record.application, record.subject)
        assert session.generation == record.generation
        assert (session.persistent, session.login_page) == (record.persistent, record.login_page)
        assert (session.must_authenticate, session.old_token is not None) == (record.held, record.old_token)
        assert dict(session.labels) == record.labels
        assert session.data_version == record.version
        data = record.data if record.standing(self.now) == VALID else {}
        assert session.data_bytes == sum(len(key) + len(value) for key, value in data.items())
        assert times_of(session.lifetimes) == record.times
        assert session.last_active == record.active
        assert (session.idle_deadline, session.absolute_deadline) == (record.idle_end, record.absolute)
        if record.subject:
            assert session.authentication is not None
            assert session.authentication.level == record.level_at(self.now)
        else:
            assert session.authentication is None
        raised = record.raised if record.raised is not None and self.now < record.raised[1] else None
        assert (session.elevation and session.elevation.until) == (raised and raised[1])

    def look_at(self, number: int) -> None:
        """Compare one session, read by its id, with the model, including its end."""
        record = self.records[number]
        try:
            verdict, session = self.ask(
                lambda authority: authority.reading.get(self.call(authority, record.application), self.ids[number])
            )
        except SessionNotFound:
            assert record.pruned
            return
        record.see_activity(session.last_active)
        standing = record.standing(self.now)
        assert standing != UNKNOWN
        assert verdict.name == standing
        self.check_session(number, session)
        assert (session.ending and session.ending.at) == (None if standing == VALID else record.ended_at(standing))

    def look_at_all(self) -> None:
        for number in range(len(self.records)):
            self.look_at(number)

    def look_at_rows(self) -> None:
        """Check every row of the store against the events."""
        ids = self.ledger.ids()
        rows = self.living.rows(ids)
        for session_id in ids:
            row = rows.get(session_id)
            self.ledger.explain(session_id, row)
            assert (row is None) == self.records[self.ids.index(session_id)].pruned

    def follow_rules(self, application: str, **changed: Any) -> None:
        """Put another policy into effect in the model."""
        self.in_force[application] = replace(self.in_force[application], **changed)
        for record in self.records:
            record.rules = self.in_force[record.application]


def times_of(lifetimes: Lifetimes | None) -> Times:
    """Return lifetimes in the form of the model."""
    return Times() if lifetimes is None else Times(lifetimes.idle, lifetimes.absolute)


def lifetimes_of(times: Times | None) -> Lifetimes | None:
    """Return the model's lifetimes in the form of the domain."""
    if times is None:
        return None
    return Lifetimes(_millis(times.idle), _millis(times.absolute))


def numbers_of(ids: Iterable[SessionId], known: list[SessionId]) -> list[int]:
    """Return the numbers of these sessions."""
    return [known.index(session_id) for session_id in ids]


def _millis(value: int | None) -> Millis | None:
    return None if value is None else Millis(value)


async def _nothing(_: Authority, __: AnswerSpec[Any]) -> None:
    raise AssertionError("no call was made")
