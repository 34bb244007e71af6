"""The rules of the machine that end sessions on request."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule

from sessiond.authority.results import BulkRevocationResult, RevocationResult
from sessiond.domain.errors import SessionNotFound
from sessiond.domain.login import ANONYMOUS
from sessiond.domain.query import SessionQuery
from tests.machine.applications import SUBJECTS
from tests.machine.bench import PICKS, Bench
from tests.machine.model import INSUFFICIENT, MOST_LABELS, VALID

__all__ = ["Endings"]


class Endings(Bench):
    """Rules that revoke sessions."""

    @rule(
        pick=PICKS,
        by_id=st.booleans(),
        anew=st.booleans(),
        owner=st.sampled_from([None, None, None, "", *SUBJECTS]),
        with_id=st.booleans(),
    )
    def revoke(self, pick: int, by_id: bool, anew: bool, owner: str | None, with_id: bool) -> None:
        """Log out, if the session belongs to the owner that is named, and perhaps continue as a guest."""
        ticket = self.ticket(pick)
        number, record = ticket.session, self.records[ticket.session]
        named = self.ids[number] if by_id else self.token(ticket)
        # Only a caller that proves the session, or names it by id, learns that it belongs to another subject.
        proves = by_id or record.expect(ticket, self.now, lenient=True).verdict in (VALID, INSUFFICIENT)
        foreign = owner is not None and owner != record.subject and not record.pruned and proves
        try:
            answer: RevocationResult = self.change(
                lambda authority, reply: authority.sessions.revoke(
                    self.call(authority, record.application), named, reply, open_anonymous=anew, owner=owner
                ),
                with_id=with_id,
            )
        except SessionNotFound:
            assert foreign or (by_id and record.pruned)
            return
        assert not foreign
        if by_id:
            verdict = record.standing(self.now)
            self.expired(number, verdict)
        else:
            verdict = self.judged(ticket, lenient=True).verdict
        ends = verdict in (VALID, INSUFFICIENT)
        assert answer.ended.verdict.name == verdict
        assert answer.revoked == ends
        assert (answer.anonymous is not None) == anew
        if answer.anonymous is not None:
            self.opened(record.application, ANONYMOUS, answer.anonymous, {})
        if ends:
            self.revoked(number)
        self.is_newest(answer.ended if answer.anonymous is None else answer.anonymous)
        if ends or by_id:
            self.check_session(number, answer.ended.session)
        else:
            assert answer.ended.session is None
        if self.told:
            self.is_kept()

    @rule(
        pick=PICKS,
        by_subject=st.sampled_from([True, True, False]),
        by_labels=st.sampled_from([0, 1, MOST_LABELS]),
        keeps=st.booleans(),
    )
    def revoke_all(self, pick: int, by_subject: bool, by_labels: int, keeps: bool) -> None:
        """Log out everywhere, or everywhere else: all sessions that match the attributes of an existing one."""
        like = self.records[self.ticket(pick).session]
        application, subject = like.application, like.subject if by_subject else None
        labels = tuple(sorted(like.labels.items()))[:by_labels]
        doomed = [
            number
            for number in reversed(self.live(application, subject))
            if set(labels) <= set(self.records[number].labels.items())
        ]
        keep = self.ids[doomed.pop(0)] if keeps and doomed else None
        query = SessionQuery(application, self.clock.now(), subject=subject, labels=labels)
        answer: BulkRevocationResult = self.change(
            lambda authority, reply: authority.sessions.revoke_all(
                self.call(authority, application), query, keep, reply
            )
        )
        for number in doomed:
            self.revoked(number)
        assert (answer.count, answer.revision) == (len(doomed), self.head + len(self.told))
