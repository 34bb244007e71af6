"""The machine: every step is taken by the real authority and by the model, and every answer is compared."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sessiond.authority import Answer, Changed
from sessiond.domain.errors import SubjectMismatch
from sessiond.domain.policy import Policy
from sessiond.domain.session import Session
from sessiond.domain.values import ClientContext, Millis, SessionId
from sessiond.store import SessionQuery
from sessiond.tokens import Token
from sessiond.units import Call
from tests.machine.living import LivingAuthority
from tests.machine.model import ABSOLUTE, IDLE, UNKNOWN, VALID, Expected, Record, Rules, Ticket
from tests.support.clock import ManualClock

RULES = {
    "shop": Rules(60_000, 240_000, 40_000, overlap=10_000, tolerance=5_000, refresh_extends=False),
    "bank": Rules(20_000, None, 15_000, overlap=15_000, tolerance=1_000, refresh_extends=True),
    "blog": Rules(None, 100_000, None, overlap=1, tolerance=30_000, refresh_extends=True),
}
SUBJECTS = ["ada", "bob"]
PICKS = st.integers(0, 3) | st.integers(0, 60)  # from the newest token back, the newest ones more often
MEMORY = Path("/dev/shm")  # a thousand small databases: nothing here is about what a disk does
PAUSES = [1, 999, 1_000, 2_999, 3_000, 9_000, 14_999, 15_000, 19_999, 40_000]


def _millis(value: int | None) -> Millis | None:
    return None if value is None else Millis(value)


def policy_of(rules: Rules) -> Policy:
    """The rules as the authority takes them."""
    return Policy(
        preset="owasp-low",
        idle_timeout=_millis(rules.idle),
        absolute_timeout=_millis(rules.absolute),
        renewal_timeout=_millis(rules.renewal),
        renewal_overlap=Millis(rules.overlap),
        roll_tolerance=Millis(rules.tolerance),
        refresh_extends_lifetime=rules.refresh_extends,
    )


class AuthorityMachine(RuleBasedStateMachine):
    """Sessions of three applications, and every token ever issued."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="sessiond-machine-", dir=MEMORY if MEMORY.is_dir() else None))
        self.clock = ManualClock()
        policies = {name: policy_of(rules) for name, rules in RULES.items()}
        self.living = LivingAuthority(self.folder, policies, self.clock)
        self.records: list[Record] = []
        self.ids: list[SessionId] = []
        self.texts: dict[Ticket, str] = {}  # every token ever issued, in order

    def teardown(self) -> None:
        self.living.close()
        shutil.rmtree(self.folder)

    # Steps

    @initialize(subject=st.sampled_from(["", "ada"]))
    def begin(self, subject: str) -> None:
        """A session of each application."""
        for application in RULES:
            self.create(application, subject)

    @rule(application=st.sampled_from(sorted(RULES)), subject=st.sampled_from(["", *SUBJECTS]))
    def create(self, application: str, subject: str) -> None:
        """Open a session."""
        changed = self.ask("create", self.call(application), subject, 1, ("pwd",), {})
        self.records.append(Record(application, RULES[application], subject, self.now))
        self.ids.append(changed.session.id)
        self.issued(Ticket(len(self.records) - 1, 0, 0), changed.token)

    @rule(pick=PICKS, passive=st.booleans())
    def validate(self, pick: int, passive: bool) -> None:
        """Present any token that was ever issued."""
        self.present(self.ticket(pick), passive=passive)

    def present(self, ticket: Ticket, *, passive: bool) -> None:
        record = self.records[ticket.session]
        answer: Answer = self.ask("validate", self.call(record.application), self.token(ticket), passive=passive)
        expected = self.check(record, ticket, answer.verdict.name)
        if expected.verdict != VALID:
            assert (answer.session, answer.renewed) == (None, None)
            return
        if not passive:
            record.active(self.now)
        self.check_session(record, answer.current)
        if expected.hand_out is None:
            assert answer.renewed is None
            return
        self.issued(Ticket(ticket.session, ticket.secret, expected.hand_out), answer.renewed)

    @rule(pick=PICKS, pauses=st.lists(st.sampled_from(PAUSES), min_size=1, max_size=5))
    def stay(self, pick: int, pauses: list[int]) -> None:
        """Use one token for a while, then the one that came along last."""
        ticket = self.ticket(pick)
        for pause in pauses:
            self.clock.advance(pause)
            self.present(ticket, passive=False)
        self.present(next(reversed(self.texts)), passive=False)

    @rule(pick=PICKS, application=st.sampled_from(sorted(RULES)))
    def validate_elsewhere(self, pick: int, application: str) -> None:
        """Present a token to another application."""
        ticket = self.ticket(pick)
        if application != self.records[ticket.session].application:
            answer = self.ask("validate", self.call(application), self.token(ticket))
            assert answer.verdict.name == UNKNOWN

    @rule(pick=PICKS, subject=st.sampled_from(SUBJECTS))
    def authenticate(self, pick: int, subject: str) -> None:
        """Log in, or authenticate again."""
        ticket = self.ticket(pick)
        record = self.records[ticket.session]
        before = (record.generation, record.since)
        try:
            changed: Changed = self.ask(
                "authenticate", self.call(record.application), self.token(ticket), subject, 2, ("otp",)
            )
        except SubjectMismatch:
            assert record.subject not in ("", subject)
            assert self.check(record, ticket, VALID).verdict == VALID
            record.generation, record.since = before  # the call failed: nothing has changed
            return
        if self.check(record, ticket, changed.verdict.name).verdict != VALID:
            self.unchanged(changed)
            return
        assert record.subject in ("", subject)
        record.subject = subject
        record.live_again(self.now)
        self.rolled(ticket, record, changed)

    @rule(pick=PICKS)
    def roll(self, pick: int) -> None:
        """Roll at a privilege change."""
        ticket = self.ticket(pick)
        record = self.records[ticket.session]
        changed: Changed = self.ask("roll", self.call(record.application), self.token(ticket))
        if self.check(record, ticket, changed.verdict.name).verdict != VALID:
            self.unchanged(changed)
            return
        self.rolled(ticket, record, changed)

    @rule(pick=PICKS)
    def refresh(self, pick: int) -> None:
        """Make as good as new."""
        ticket = self.ticket(pick)
        record = self.records[ticket.session]
        changed: Changed = self.ask("refresh", self.call(record.application), self.token(ticket))
        if self.check(record, ticket, changed.verdict.name).verdict != VALID:
            self.unchanged(changed)
            return
        record.active(self.now)
        if record.rules.refresh_extends:
            record.live_again(self.now)
        self.check_session(record, changed.session)

    @rule(pick=PICKS, by_id=st.booleans())
    def revoke(self, pick: int, by_id: bool) -> None:
        """Log out."""
        ticket = self.ticket(pick)
        record = self.records[ticket.session]
        named = self.ids[ticket.session] if by_id else self.token(ticket)
        changed, revoked = self.ask("revoke", self.call(record.application), named)
        if by_id:
            self.check_standing(record, changed.verdict.name)
        elif self.check(record, ticket, changed.verdict.name).verdict != VALID:
            assert changed.session is None
        assert revoked == (changed.verdict.name == VALID)
        record.revoked = record.revoked or revoked

    @rule(application=st.sampled_from(sorted(RULES)), subject=st.sampled_from(["", *SUBJECTS, None]))
    def revoke_all(self, application: str, subject: str | None) -> None:
        """Log out everywhere."""
        self.look_at_all()
        doomed = [
            record
            for record in self.records
            if record.application == application
            and subject in (None, record.subject)
            and record.standings(self.now) == {VALID}
        ]
        query = SessionQuery(application, self.clock.now(), subject=subject)
        count, _ = self.ask("revoke_all", self.call(application), query, None)
        assert count == len(doomed)
        for record in doomed:
            record.revoked = True

    @rule(pick=PICKS, edge=st.integers(0, 5), offset=st.sampled_from([-1, 0, 0, 1]), passive=st.booleans())
    def present_at_an_edge(self, pick: int, edge: int, offset: int, passive: bool) -> None:
        """Present a token just when its session's answers change, or one millisecond beside."""
        ticket = self.ticket(pick)
        moments = sorted({moment + offset for moment in self.records[ticket.session].edges()})
        coming = [moment for moment in moments if moment > self.now]
        if coming:
            self.clock.advance(coming[edge % len(coming)] - self.now)
            self.present(ticket, passive=passive)

    @rule(millis=st.sampled_from(PAUSES))
    def wait(self, millis: int) -> None:
        """Let time pass, often enough less than the touch granularity."""
        self.clock.advance(millis)

    @rule()
    def sweep(self) -> None:
        """Let the sweeper do a round."""
        self.living.run(self.living.sweeper.sweep())
        self.living.run(self.living.sweeper.save_activity())
        self.look_at_all()
        for record in self.records:
            record.swept = record.standings(self.now) <= {IDLE, ABSOLUTE}

    @rule(pick=PICKS, pauses=st.lists(st.sampled_from(PAUSES), max_size=3))
    def crash(self, pick: int, pauses: list[int]) -> None:
        """Lose what only memory knows, and start again."""
        for pause in pauses:
            self.clock.advance(pause)
            self.present(self.ticket(pick), passive=False)
        self.living.crash()
        for record in self.records:
            record.crash()
        self.look_at_all()

    @rule()
    def restart(self) -> None:
        """Stop in order, and start again: nothing is lost."""
        self.living.restart()
        self.look_at_all()

    @invariant()
    def sessions_are_as_they_should_be(self) -> None:
        """The newest session shows what the model has, seen by its id."""
        if self.records:
            self.look_at(len(self.records) - 1)

    # Comparing

    @property
    def now(self) -> int:
        return self.clock.now()

    def call(self, application: str) -> Call:
        return self.living.authority.call(application, ClientContext())

    def ask(self, name: str, *arguments: Any, **named: Any) -> Any:
        return self.living.run(getattr(self.living.authority, name)(*arguments, **named))

    def ticket(self, pick: int) -> Ticket:
        issued = list(self.texts)
        return issued[-1 - pick % len(issued)]

    def token(self, ticket: Ticket) -> Token:
        return Token(self.texts[ticket])

    def issued(self, ticket: Ticket, token: Token | None) -> None:
        """The token of a ticket is the same string whenever and by whomever it is given out, and no other's."""
        assert token is not None
        assert self.texts.setdefault(ticket, token.reveal()) == token.reveal()
        assert len(set(self.texts.values())) == len(self.texts)

    def check(self, record: Record, ticket: Ticket, verdict: str) -> Expected:
        """Compare a verdict, and take in what a good token's use does."""
        standings = record.standings(self.now)
        expected = record.judge(ticket, self.now)
        allowed = {expected.verdict if standing == VALID else standing for standing in standings}
        assert verdict in allowed, f"{verdict}, the model has {sorted(allowed)}"
        standing = verdict if verdict in standings - {VALID} else VALID
        record.seen(standing, self.now)
        if standing != VALID:
            return Expected(verdict)
        if expected.moves_on:
            record.move_on(self.now)
        return expected

    def check_standing(self, record: Record, verdict: str) -> None:
        assert verdict in record.standings(self.now)
        record.seen(verdict, self.now)

    def check_session(self, record: Record, session: Session | None) -> None:
        assert session is not None
        assert session.application == record.application
        assert session.subject == record.subject
        assert session.generation == record.generation
        assert session.absolute_deadline == record.absolute
        if record.idle_from is None or record.idle_to is None:
            assert session.idle_deadline is None
        else:
            assert session.idle_deadline is not None
            assert record.idle_from <= session.idle_deadline <= record.idle_to

    def look_at(self, number: int) -> None:
        """Compare one session, seen by its id, its ending included."""
        record = self.records[number]
        verdict, session = self.ask("get", self.call(record.application), self.ids[number])
        self.check_standing(record, verdict.name)
        self.check_session(record, session)
        if verdict.name == ABSOLUTE:
            assert session.ending.at == record.absolute
        elif verdict.name == IDLE:
            assert session.ending.at == session.idle_deadline

    def look_at_all(self) -> None:
        for number in range(len(self.records)):
            self.look_at(number)

    def rolled(self, ticket: Ticket, record: Record, changed: Changed) -> None:
        record.roll(self.now)
        self.check_session(record, changed.session)
        self.issued(Ticket(ticket.session, record.secret, record.generation), changed.token)

    def unchanged(self, changed: Changed) -> None:
        assert (changed.session, changed.token) == (None, None)
