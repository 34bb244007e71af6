"""The rules of the machine that need no token: time, the sweeper, crashes, lists and policies."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule

from sessiond.domain.query import SessionQuery
from sessiond.domain.session import Session, SessionState
from tests.machine.applications import REMEMBERING, policies_of
from tests.machine.bench import PAUSES, PICKS, numbers_of
from tests.machine.model import ABSOLUTE, ALERT, IDLE, MOST_LABELS, REVOKED, STEP_UP, VALID
from tests.machine.uses import Uses

__all__ = ["Upkeep"]

_STANDINGS = {
    SessionState.ACTIVE: (VALID,),
    SessionState.EXPIRED: (IDLE, ABSOLUTE),
    SessionState.REVOKED: (REVOKED,),
}


class Upkeep(Uses):
    """Rules for time and for the process."""

    @rule(millis=st.sampled_from(PAUSES))
    def wait(self, millis: int) -> None:
        """Let time pass, often less than the touch granularity."""
        self.clock.advance(millis)

    @rule()
    def sweep(self) -> None:
        """Run the sweeper once: expired sessions are recorded, and old history is deleted."""
        self.check_log()
        self.living.sweep()
        for number, record in enumerate(self.records):
            self.expired(number, record.standing(self.now))
            if record.purge_at is not None and self.now >= record.purge_at:
                record.pruned = True
        self.check_log(in_order=False)
        self.look_at_all()

    @rule(pick=PICKS, pauses=st.lists(st.sampled_from(PAUSES), max_size=3))
    def crash(self, pick: int, pauses: list[int]) -> None:
        """Lose what is only in memory, and start again."""
        for pause in pauses:
            self.clock.advance(pause)
            self.present(self.ticket(pick), passive=False)
        self.check_log()
        self.living.crash()
        for record in self.records:
            record.crash()
        self.look_at_all()

    @rule(changed=st.sampled_from([False, False, True]))
    def restart(self, changed: bool) -> None:
        """Stop cleanly and start again, without loss; perhaps with another policy from then on."""
        self.check_log()
        self.living.restart()
        self.look_at_all()
        if changed:
            self.change_the_reaction()

    def change_the_reaction(self) -> None:
        """Switch the reaction to replays between an alert and a new authentication."""
        self.check_log()
        before = self.in_force[REMEMBERING].on_replay
        self.follow_rules(REMEMBERING, on_replay=STEP_UP if before == ALERT else ALERT)
        self.living.change_policies(policies_of(self.in_force))
        self.tell("POLICY_CHANGED", None)

    @rule(
        pick=PICKS,
        by_subject=st.booleans(),
        by_labels=st.sampled_from([0, 1, MOST_LABELS]),
        state=st.sampled_from([None, None, *SessionState]),
        size=st.sampled_from([1, 2, 100]),
    )
    def list_sessions(self, pick: int, by_subject: bool, by_labels: int, state: SessionState | None, size: int) -> None:
        """List the sessions that resemble an existing one, page by page: all that match, newest first."""
        like = self.records[self.ticket(pick).session]
        application, subject = like.application, like.subject if by_subject else None
        labels = tuple(sorted(like.labels.items()))[:by_labels]
        if state is None:
            standing = like.standing(self.now)
            state = next((one for one, which in _STANDINGS.items() if standing in which), SessionState.ACTIVE)
        query = SessionQuery(application, self.clock.now(), state, subject, labels=labels)
        found: list[Session] = []
        before = None
        while True:
            asked = query.page(before, size)
            page, before = self.ask(
                lambda authority: authority.reading.list(self.call(authority, application), asked)  # noqa: B023 - asked at once
            )
            found += page
            assert 0 < len(page) <= size or before is None
            if before is None:
                break
        expected = [
            number
            for number, record in enumerate(self.records)
            if record.application == application
            and subject in (None, record.subject)
            and record.standing(self.now) in _STANDINGS[state]
            and set(labels) <= set(record.labels.items())
        ]
        newest_first = sorted(expected, key=self.ids.__getitem__, reverse=True)
        assert numbers_of((session.id for session in found), self.ids) == newest_first
        for number, session in zip(newest_first, found, strict=True):
            self.check_session(number, session)
