"""The machine: every step is taken by the real authority and by the model, and every answer is compared."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sessiond.authority.results import Answer, Changed, Login, Repeat, Revoked
from sessiond.changes import Call, Repeated
from sessiond.crypto.tokens import Token
from sessiond.domain.errors import InvalidField, SubjectMismatch
from sessiond.domain.policy import PRESETS, LimitRule, Policy
from sessiond.domain.session import Session
from sessiond.domain.signals import Reaction, SignalType
from sessiond.domain.values import ClientContext, Millis, SessionId
from sessiond.store.contract import SessionQuery
from tests.machine.living import LivingAuthority
from tests.machine.model import (
    ABSOLUTE,
    ALERT,
    ASK,
    EVICT_OLDEST,
    IDLE,
    REJECT,
    REPLAYED,
    REVOKE_SUBJECT,
    UNKNOWN,
    VALID,
    Expected,
    Record,
    Rules,
    Ticket,
)
from tests.support.clock import ManualClock

RULES = {
    "shop": Rules(
        60_000, 240_000, 40_000, overlap=10_000, tolerance=5_000, refresh_extends=False, most=2, at_most=EVICT_OLDEST
    ),
    "bank": Rules(
        20_000,
        None,
        15_000,
        overlap=15_000,
        tolerance=1_000,
        refresh_extends=True,
        on_replay=REVOKE_SUBJECT,
        most=2,
        at_most=ASK,
        elevation=5_000,
    ),
    "blog": Rules(
        None,
        100_000,
        None,
        overlap=1,
        tolerance=30_000,
        refresh_extends=True,
        on_replay=ALERT,
        most=3,
        at_most=REJECT,
        elevation=9_000,
        fold=9_000,
    ),
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
        lost_answer_tolerance=Millis(0),  # has tests of its own: a crash would leave the model unsure what was used
        refresh_extends_lifetime=rules.refresh_extends,
        elevation_timeout=Millis(rules.elevation),
        max_sessions=rules.most,
        on_limit=LimitRule(rules.at_most),
        fold_window=Millis(rules.fold),
        reactions=dict(PRESETS["owasp-low"].reactions) | {SignalType.TOKEN_REPLAY: Reaction(rules.on_replay)},
    )


def _text_of(changed: Any) -> str:
    return "" if changed.token is None else changed.token.reveal()


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
        self.repeats: list[tuple[str, Login, Repeat, str]] = []  # calls that may be repeated, and their answers

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
        login = Login(subject, 1, ("pwd",))
        room = self.room(application, subject)
        changed: Changed | None = self.ask("create", self.call(application), login, {})
        assert changed is not None
        changed = self.limited(
            changed, room, login, lambda chosen: self.ask("create", self.call(application), chosen, {})
        )
        if changed is not None:
            self.opened(application, subject, changed)

    @rule(application=st.sampled_from(["blog", "shop"]), subject=st.sampled_from(["", *SUBJECTS]))
    def create_once(self, application: str, subject: str) -> None:
        """Open a session by a call that may be repeated."""
        key = hashlib.sha256(len(self.repeats).to_bytes(8, "big")).digest()
        repeat = Repeat(key, bytes(32), lambda changed: _text_of(changed).encode())
        login = Login(subject, 1, ("pwd",))
        room = self.room(application, subject)
        changed: Changed = self.ask("create", self.call(application), login, {}, repeat=repeat)
        self.repeats.append((application, login, repeat, _text_of(changed)))
        if self.limited(changed, room, login, None) is not None:
            self.opened(application, subject, changed)

    @rule(pick=PICKS, otherwise=st.booleans())
    def ask_again(self, pick: int, otherwise: bool) -> None:
        """Repeat a call: the first answer again, and nothing else; with other parameters a refusal."""
        if not self.repeats:
            return
        application, login, repeat, text = self.repeats[-1 - pick % len(self.repeats)]
        if otherwise:
            repeat = replace(repeat, parameters=bytes(31) + b"x")
        try:
            answers = [
                self.ask("recall", repeat),
                self.ask("create", self.call(application), login, {}, repeat=repeat),
            ]
        except InvalidField:
            assert otherwise
            return
        assert not otherwise
        assert [isinstance(answer, Repeated) and answer.sealed.decode() for answer in answers] == [text, text]
        assert self.log() == []

    @rule(pick=PICKS, passive=st.booleans())
    def validate(self, pick: int, passive: bool) -> None:
        """Present any token that was ever issued."""
        self.present(self.ticket(pick), passive=passive)

    def present(self, ticket: Ticket, *, passive: bool) -> None:
        record = self.records[ticket.session]
        self.look_before(record, ticket)
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

    @rule(pick=PICKS, subject=st.sampled_from(SUBJECTS), elevates=st.sampled_from([False, False, True]))
    def authenticate(self, pick: int, subject: str, elevates: bool) -> None:
        """Log in, authenticate again, or elevate."""
        ticket = self.ticket(pick)
        record = self.records[ticket.session]
        before = (record.generation, record.since)
        self.look_before(record, ticket)
        room = [] if elevates else self.room(record.application, subject, ticket.session)
        login = Login(subject, 3 if elevates else 2, ("otp",))

        def ask(chosen: Login) -> Changed:
            answer: Changed = self.ask(
                "authenticate", self.call(record.application), self.token(ticket), chosen, elevates=elevates
            )
            return answer

        right = (subject,) if elevates else ("", subject)
        try:
            changed = ask(login)
        except SubjectMismatch:
            assert record.subject not in right
            assert self.check(record, ticket, VALID).verdict == VALID
            record.generation, record.since = before  # the call failed: nothing has changed
            return
        if self.check(record, ticket, changed.verdict.name).verdict != VALID:
            self.unchanged(changed)
            return
        assert record.subject in right
        bound = self.limited(changed, room, login, ask, own=ticket.session)
        if bound is None:
            return
        if elevates:
            record.elevate(login.level, self.now)
        else:
            record.bind(subject, login.level)
            record.live_again(self.now)
        self.rolled(ticket, record, bound)

    @rule(pick=PICKS, subject=st.sampled_from(SUBJECTS), pause=st.sampled_from(PAUSES))
    def stay_elevated(self, pick: int, subject: str, pause: int) -> None:
        """Elevate, and see how long it lasts."""
        self.authenticate(pick, subject, elevates=True)
        self.clock.advance(pause)
        self.refresh(0)
        self.present(self.ticket(0), passive=False)

    @rule(pick=PICKS)
    def roll(self, pick: int) -> None:
        """Roll at a privilege change."""
        ticket = self.ticket(pick)
        record = self.records[ticket.session]
        self.look_before(record, ticket)
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
        self.look_before(record, ticket)
        changed: Changed = self.ask("refresh", self.call(record.application), self.token(ticket))
        if self.check(record, ticket, changed.verdict.name).verdict != VALID:
            self.unchanged(changed)
            return
        record.active(self.now)
        if record.rules.refresh_extends:
            record.live_again(self.now)
        self.check_session(record, changed.session)

    @rule(pick=PICKS, by_id=st.booleans(), anew=st.booleans())
    def revoke(self, pick: int, by_id: bool, anew: bool) -> None:
        """Log out, and perhaps go on as a guest."""
        ticket = self.ticket(pick)
        record = self.records[ticket.session]
        self.look_before(record, ticket)
        named = self.ids[ticket.session] if by_id else self.token(ticket)
        answer: Revoked = self.ask("revoke", self.call(record.application), named, open_anonymous=anew)
        verdict = answer.ended.verdict.name
        if by_id:
            self.check_standing(record, verdict)
        elif self.check(record, ticket, verdict).verdict != VALID:
            assert answer.ended.session is None
        assert answer.revoked == (verdict == VALID)
        record.revoked = record.revoked or answer.revoked
        if answer.revoked:
            self.check_session(record, answer.ended.session)
        assert (answer.anonymous is not None) == anew
        if answer.anonymous is not None:
            self.opened(record.application, "", answer.anonymous)

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
        self.living.run(self.living.sweeper.forget_answers())
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
        for record in self.records:
            record.stop()
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
        self.head = self.living.revision
        authority = self.living.authority
        return self.living.run(
            getattr(authority.validation if name == "validate" else authority, name)(*arguments, **named)
        )

    def log(self) -> list[str]:
        """What the last call has written to the log, first uses left out."""
        told = [event.type.name for event in self.living.events_after(self.head)]
        return [name for name in told if name != "SESSION_RENEWED"]

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
        if expected.verdict == REPLAYED:
            self.replayed(record)
        return expected

    def replayed(self, record: Record) -> None:
        """Take in what the policy does about a replay, and compare what is told of it, in its order."""
        tells = record.tells(self.now)
        if record.rules.on_replay == ALERT:
            assert self.log() == ["HIJACK_SUSPECTED"] * tells
            return
        doomed = [record]
        if record.rules.on_replay == REVOKE_SUBJECT and record.subject:
            doomed = self.of_subject(record.application, record.subject)
        assert self.log() == ["HIJACK_SUSPECTED", *["SESSION_REVOKED"] * len(doomed)]
        for one in doomed:
            one.revoked = True

    def of_subject(self, application: str, subject: str) -> list[Record]:
        """The live sessions of a subject, in the order they were opened."""
        numbers = sorted(range(len(self.records)), key=lambda number: (self.records[number].created, self.ids[number]))
        found = [self.records[number] for number in numbers]
        return [
            record
            for record in found
            if (record.application, record.subject) == (application, subject) and VALID in record.standings(self.now)
        ]

    def look_before(self, record: Record, ticket: Ticket) -> None:
        """Where a replay will end all of a subject's sessions: see first which of them live."""
        if record.rules.on_replay == REVOKE_SUBJECT and record.judge(ticket, self.now).verdict == REPLAYED:
            self.look_at_subject(record.application, record.subject)

    def room(self, application: str, subject: str, own: int | None = None) -> list[Record] | None:
        """The sessions that must go for one more of the subject; None where that is not for the authority to say."""
        rules = RULES[application]
        if not subject:
            return []
        self.look_at_subject(application, subject)
        mine = None if own is None else self.records[own]
        live = [record for record in self.of_subject(application, subject) if record is not mine]
        if len(live) < rules.most:
            return []
        return live[: len(live) - rules.most + 1] if rules.at_most == EVICT_OLDEST else None

    def limited(
        self,
        changed: Changed,
        room: list[Record] | None,
        login: Login,
        ask: Callable[[Login], Changed] | None,
        own: int | None = None,
    ) -> Changed | None:
        """Compare what the limit did; the answer once there is room, None where there is none."""
        if room is not None:
            assert changed.limit is None
            self.evicted(changed, room)
            return changed
        self.unchanged(changed)
        assert self.log() == ["CONCURRENCY_LIMIT_REACHED"]
        limit = changed.limit
        assert limit is not None
        assert (limit.ticket is None) == (limit.live == ())
        if limit.ticket is None or ask is None:
            return None
        choice = limit.live[-1].id
        chosen = replace(login, ticket=limit.ticket, evict=(choice,))
        changed = ask(chosen)
        self.evicted(changed, [self.records[self.ids.index(choice)]])
        if own is None:  # a token that has logged in is another one now, and so would be the call
            self.reuse(replace(chosen, evict=tuple(session.id for session in limit.live)))
        return changed

    def evicted(self, changed: Changed, room: list[Record]) -> None:
        assert [self.records[self.ids.index(one)] for one in changed.evicted] == room
        if room:
            assert self.log()[: len(room) + 1] == ["CONCURRENCY_LIMIT_REACHED", *["SESSION_REVOKED"] * len(room)]
        for record in room:
            record.revoked = True

    def reuse(self, chosen: Login) -> None:
        """A ticket is good once."""
        refused = ""
        try:
            self.ask("create", self.call("bank"), chosen, {})
        except InvalidField as refusal:
            refused = refusal.field
        assert refused == "ticket"

    def opened(self, application: str, subject: str, changed: Changed) -> None:
        """Take in a new session."""
        assert changed.session is not None
        self.records.append(Record(application, RULES[application], subject, self.now, level=1))
        self.ids.append(changed.session.id)
        self.check_session(self.records[-1], changed.session)
        self.issued(Ticket(len(self.records) - 1, 0, 0), changed.token)

    def check_standing(self, record: Record, verdict: str) -> None:
        assert verdict in record.standings(self.now)
        record.seen(verdict, self.now)

    def check_session(self, record: Record, session: Session | None) -> None:
        assert session is not None
        assert session.application == record.application
        assert session.subject == record.subject
        assert session.generation == record.generation
        assert session.absolute_deadline == record.absolute
        if not record.subject:
            assert session.authentication is None
        else:
            assert session.authentication is not None
            assert session.authentication.level == record.level_at(self.now)
        raised = record.raised if record.raised is not None and self.now < record.raised[1] else None
        assert (session.elevation and session.elevation.until) == (raised and raised[1])
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

    def look_at_subject(self, application: str, subject: str) -> None:
        for number, record in enumerate(self.records):
            if (record.application, record.subject) == (application, subject) and not record.revoked:
                self.look_at(number)

    def look_at_all(self) -> None:
        for number in range(len(self.records)):
            self.look_at(number)

    def rolled(self, ticket: Ticket, record: Record, changed: Changed) -> None:
        record.roll(self.now)
        self.check_session(record, changed.session)
        self.issued(Ticket(ticket.session, record.secret, record.generation), changed.token)

    def unchanged(self, changed: Changed) -> None:
        assert (changed.session, changed.token) == (None, None)
