"""The rules of the machine that open sessions, and the limit of sessions per subject."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import rule

from sessiond.authority.results import ChangeResult, Limit, TicketChoice
from sessiond.domain.errors import InvalidField
from sessiond.domain.login import Login
from sessiond.domain.values import Labels
from tests.machine.applications import APPLICATIONS, REMEMBERING, SUBJECTS
from tests.machine.bench import Bench, lifetimes_of, numbers_of
from tests.machine.model import ASK, EVICT_LEAST_RECENT, EVICT_OLDEST, MOST_LABELS, Times

__all__ = ["NO_CHOICE", "TIMES", "WISHES", "Opening", "Wish", "choice_of"]

TIMES = [None, None, None, None, Times(idle=8_000), Times(absolute=30_000), Times(8_000, 30_000), Times(10**9, 10**9)]
LABELS: list[Labels] = [
    (),
    (("device", "phone"),),
    (("device", "phone"), ("tenant", "a")),
    (("device", "laptop"), ("tenant", "a")),
    (("device", "laptop"), ("tenant", "b")),
    tuple((f"label-{number}", "x") for number in range(MOST_LABELS)),
]
_DATA: list[dict[str, bytes]] = [{}, {}, {"cart": b"2"}, {"cart": b"1", "theme": b"dark"}]
NO_CHOICE = TicketChoice()


@dataclass(frozen=True)
class Wish:
    """The requested properties of a session, except its subject."""

    persistent: bool
    login_page: bool
    times: Times | None
    labels: Labels
    data: dict[str, bytes]

    def login(self, application: str, subject: str, level: int) -> Login:
        """Return the login of a subject, or of none."""
        persistent = self.persistent and application == REMEMBERING
        return Login(subject, level, ("pwd",), persistent, lifetimes_of(self.times), self.labels)


WISHES = st.builds(
    Wish,
    persistent=st.booleans(),
    login_page=st.sampled_from([False, False, False, True]),
    times=st.sampled_from(TIMES),
    labels=st.sampled_from(LABELS),
    data=st.sampled_from(_DATA),
)


class Opening(Bench):
    """Rules that open sessions."""

    @rule(
        application=st.sampled_from(APPLICATIONS),
        subject=st.sampled_from(["", *SUBJECTS]),
        level=st.sampled_from([1, 2]),
        wish=WISHES,
        with_id=st.booleans(),
    )
    def create(self, application: str, subject: str, level: int, wish: Wish, with_id: bool) -> None:
        """Open a session."""
        login, login_page = wish.login(application, subject, level), wish.login_page and not subject
        limit = self.open(application, login, wish.data, login_page=login_page, with_id=with_id).limit
        if limit is not None and limit.ticket is not None:
            assert self.open(application, login, wish.data, choice=choice_of(limit)).limit is None
            self.reuse(application, login, limit)

    def open(
        self,
        application: str,
        login: Login,
        data: dict[str, bytes],
        *,
        login_page: bool = False,
        choice: TicketChoice = NO_CHOICE,
        with_id: bool = False,
    ) -> ChangeResult:
        changed: ChangeResult = self.change(
            lambda authority, reply: authority.logins.create(
                self.call(authority, application), login, data, reply, login_page=login_page, choice=choice
            ),
            with_id=with_id,
        )
        self.is_kept()
        if self.has_room(application, login.subject, None, choice, changed):
            self.opened(application, login, changed, data, login_page=login_page)
            self.is_newest(changed)
        return changed

    def reuse(self, application: str, login: Login, limit: Limit) -> None:
        """Check that a ticket works only once."""
        choice = TicketChoice(limit.ticket, tuple(session.id for session in limit.live))
        refused = ""
        try:
            self.change(
                lambda authority, reply: authority.logins.create(
                    self.call(authority, application), login, {}, reply, choice=choice
                )
            )
        except InvalidField as refusal:
            refused = refusal.field
        assert refused == "ticket"

    def has_room(
        self, application: str, subject: str, own: int | None, choice: TicketChoice, changed: ChangeResult
    ) -> bool:
        """Apply the session limit to one more session. Return whether there is room for it then."""
        rules = self.in_force[application]
        live = [number for number in self.live(application, subject) if number != own]
        doomed: list[int] = []
        if subject and rules.most and len(live) >= rules.most:
            self.tell("CONCURRENCY_LIMIT_REACHED", None)
            excess = len(live) - rules.most + 1
            if rules.at_most == EVICT_OLDEST:
                doomed = live[:excess]
            elif rules.at_most == EVICT_LEAST_RECENT:
                doomed = sorted(live, key=lambda number: (self.records[number].active, self.ids[number]))[:excess]
            elif choice.evict:
                doomed = numbers_of(choice.evict, self.ids)
            else:
                self.unchanged(changed)
                assert changed.limit is not None
                assert (changed.limit.ticket is not None) == (rules.at_most == ASK)
                shown = numbers_of((session.id for session in changed.limit.live), self.ids)
                assert shown == (live[::-1] if rules.at_most == ASK else [])
                return False
        assert changed.limit is None
        assert numbers_of(changed.evicted, self.ids) == doomed
        for number in doomed:
            self.revoked(number)
        return True


def choice_of(limit: Limit) -> TicketChoice:
    """Return the subject's choice: end the oldest session."""
    return TicketChoice(limit.ticket, (limit.live[-1].id,))
