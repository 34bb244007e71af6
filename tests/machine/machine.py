"""The machine: the real authority and the model take every step, and every response is compared."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from sessiond.domain.login import Login
from tests.machine.applications import APPLICATIONS, SUBJECTS
from tests.machine.bench import PAUSES, PICKS
from tests.machine.endings import Endings
from tests.machine.logins import LoggingIn, Logins
from tests.machine.model import VALID, Ticket, Times
from tests.machine.opening import TIMES, WISHES, Wish
from tests.machine.retries import Retries
from tests.machine.upkeep import Upkeep

__all__ = ["AuthorityMachine"]

_USES = ["validate", "validate passively", "roll", "refresh", "elevate", "log in", "update data"]
_SOON = 600_000  # so that the responses to calls with an id, which are kept for a day, stay available throughout
_PROCESS = ["goes on", "goes on", "restarts", "crashes"]


class AuthorityMachine(Logins, Endings, Retries, Upkeep):
    """Sessions of four applications, and every token ever issued. The rules here combine the other rules to stories."""

    @initialize(subjects=st.lists(st.sampled_from(["", *SUBJECTS]), min_size=4, max_size=4), wish=WISHES)
    def begin(self, subjects: list[str], wish: Wish) -> None:
        """Open a session of each application."""
        for application, subject in zip(APPLICATIONS, subjects, strict=True):
            self.create(application, subject, 2, wish, False)

    @rule(
        pick=PICKS,
        edge=st.integers(0, 5),
        offset=st.sampled_from([-1, 0, 0, 1]),
        use=st.sampled_from(_USES),
        times=st.sampled_from(TIMES),
    )
    def use_at_an_edge(self, pick: int, edge: int, offset: int, use: str, times: Times | None) -> None:
        """Use a token exactly when its session's response changes, or one millisecond before or after."""
        ticket = self.ticket(pick)
        moments = sorted({moment + offset for moment in self.records[ticket.session].edges()})
        coming = [moment for moment in moments if self.now < moment < self.now + _SOON]
        if coming:
            self.clock.advance(coming[edge % len(coming)] - self.now)
            self.use(ticket, use, times)

    @rule(
        pick=PICKS,
        subject=st.sampled_from(["", *SUBJECTS]),
        pauses=st.tuples(st.sampled_from([0, 1, 1_000, 3_000]), st.sampled_from(PAUSES), st.sampled_from(PAUSES)),
        process=st.sampled_from(_PROCESS),
        use=st.sampled_from(_USES),
    )
    def lose_an_answer(self, pick: int, subject: str, pauses: tuple[int, int, int], process: str, use: str) -> None:
        """Lose the response of a login or roll: its client presents the old token, and then the new one is used.

        In between the authority may be stopped and started again.
        """
        ticket = self.ticket(pick)
        record = self.records[ticket.session]
        self.clock.advance(pauses[0])
        before = record.secrets
        self.use(ticket, "log in" if subject else "roll", None, subject)
        if record.secrets == before:
            return
        self.clock.advance(pauses[1])
        self.present(ticket, passive=False)
        self.look_at(ticket.session)
        self.clock.advance(pauses[2])
        self.interrupt(process)
        self.use(Ticket(ticket.session, record.secret, record.generation), use, None)

    @rule(
        pick=PICKS,
        subject=st.sampled_from(SUBJECTS),
        pause=st.sampled_from([0, 1, 1_000, 3_000]),
        asks_first=st.booleans(),
    )
    def log_in_after_a_lost_answer(self, pick: int, subject: str, pause: int, asks_first: bool) -> None:
        """Lose the response of a login, perhaps ask for a page with the old token, and log in again with it."""
        ticket = self.ticket(pick)
        record = self.records[ticket.session]
        before = record.secrets
        self.use(ticket, "log in", None, subject)
        if record.secrets == before:
            return
        if asks_first:
            self.clock.advance(record.rules.tolerance)
            self.present(ticket, passive=False)
        self.clock.advance(pause)
        self.log_in_or_choose(self.logins[-1])
        self.present(ticket, passive=False)
        self.look_at(ticket.session)

    @rule(application=st.sampled_from(APPLICATIONS), subject=st.sampled_from(SUBJECTS), wish=WISHES)
    def reach_the_limit(self, application: str, subject: str, wish: Wish) -> None:
        """Open one session more than a subject may have."""
        for _ in range(self.in_force[application].most + 1):
            self.create(application, subject, 2, wish, False)

    @rule(
        pick=PICKS,
        pause=st.sampled_from(PAUSES),
        between=st.sampled_from(["goes on", "restarts", "has another policy", "has another policy"]),
        use=st.sampled_from(_USES),
    )
    def replay(self, pick: int, pause: int, between: str, use: str) -> None:
        """Replay a rolled token twice although the new one is in use, and then use the new one."""
        old = self.ticket(pick)
        record = self.records[old.session]
        self.use(old, "roll", None)
        new = Ticket(old.session, record.secret, record.generation)
        self.clock.advance(record.rules.tolerance)
        self.present(new, passive=False)
        self.present(old, passive=False)
        if between == "has another policy":
            self.change_the_reaction()
        else:
            self.interrupt(between)
        self.clock.advance(pause)
        self.present(old, passive=True)
        self.use(new, use, None)

    @rule(pick=PICKS, offset=st.sampled_from([-1, 0, 0, 1]), process=st.sampled_from(_PROCESS))
    def renew(self, pick: int, offset: int, process: str) -> None:
        """Use a session until its token is renewed, then the new token, and the old one as the overlap ends."""
        number = self.ticket(pick).session
        record = self.records[number]
        old = Ticket(number, record.secret, record.generation)
        if old not in self.texts or record.rules.renewal is None:
            return
        due = record.since + record.rules.renewal
        while self.now < due and record.standing(self.now) == VALID:
            left = due - self.now
            self.clock.advance(left if record.idle is None else min(left, record.idle - 1))
            self.present(old, passive=False)
        new = Ticket(number, record.secret, old.generation + 1)
        self.interrupt(process)
        if new not in self.texts:
            return
        self.present(new, passive=False)
        self.clock.advance(max(1, record.since + record.rules.overlap + offset - self.now))
        self.present(old, passive=False)

    def interrupt(self, process: str) -> None:
        """Continue, or stop the authority and start it again."""
        if process == "restarts":
            self.restart(False)
        elif process == "crashes":
            self.crash(0, [])

    def use(self, ticket: Ticket, use: str, times: Times | None, subject: str = "") -> None:
        """Use a token in one of several ways."""
        back = 2 * list(self.texts)[::-1].index(ticket) + 1
        record = self.records[ticket.session]
        subject = subject or record.subject or "ada"
        match use:
            case "validate":
                self.present(ticket, passive=False)
            case "validate passively":
                self.present(ticket, passive=True)
            case "roll":
                self.roll(back, False)
            case "refresh":
                self.refresh(back, times, False)
            case "elevate":
                self.log_in(LoggingIn(ticket, record.application, Login(subject, 3, ("otp",)), True, False))
            case "log in":
                self.log_in_or_choose(LoggingIn(ticket, record.application, Login(subject, 2), False, False))
            case _:
                self.update_data(back, False, {"cart": b"3"}, None, None, False)

    @invariant()
    def sessions_are_as_they_should_be(self) -> None:
        """The newest session, read by its id, matches the model."""
        if self.records:
            self.look_at(len(self.records) - 1)

    @invariant()
    def events_explain_rows(self) -> None:
        """The log contains the model's events, and a follower can explain every row of the store by them."""
        self.check_log()
        self.look_at_rows()
