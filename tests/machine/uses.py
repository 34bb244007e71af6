"""The rules of the machine that use sessions: validation, rolls, refreshes and data."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule

from sessiond.authority.question import DataRequest, Question
from sessiond.authority.results import ChangeResult, ValidationResult
from sessiond.domain.errors import SessionNotFound, VersionMismatch
from sessiond.domain.lifecycle import with_activity
from sessiond.domain.session import Session
from sessiond.domain.values import VersionedData
from tests.machine.applications import APPLICATIONS
from tests.machine.bench import PAUSES, PICKS, Bench, lifetimes_of
from tests.machine.model import ABSOLUTE, IDLE, INSUFFICIENT, UNKNOWN, VALID, Record, Ticket, Times
from tests.machine.opening import TIMES

__all__ = ["Uses"]

Wanted = tuple[frozenset[str], int | None]
"""The requested keys of the data, if it is newer than the version so far from the current one; None: always."""

WANTED = st.none() | st.tuples(
    st.sampled_from([frozenset[str](), frozenset({"cart"}), frozenset({"cart", "none"})]),
    st.sampled_from([None, -1, 0, 1]),
)
_CHANGES: list[dict[str, bytes | None]] = [{"cart": b"1"}, {"cart": b"12", "theme": None}, {"cart": None}, {}]


class Uses(Bench):
    """Rules that use a session."""

    @rule(pick=PICKS, passive=st.booleans(), wanted=WANTED)
    def validate(self, pick: int, passive: bool, wanted: Wanted | None) -> None:
        """Present any token that was ever issued, and request data with the response."""
        self.present(self.ticket(pick), passive=passive, wanted=wanted)

    def present(self, ticket: Ticket, *, passive: bool, wanted: Wanted | None = None) -> None:
        number, record = ticket.session, self.records[ticket.session]
        request = _request(record, wanted)
        answer: ValidationResult = self.ask(
            lambda authority: authority.validation.validate(
                Question(self.call(authority, record.application), self.token(ticket), passive, data=request)
            )
        )
        expected = self.judged(ticket)
        assert answer.verdict.name == expected.verdict
        assert bool(answer.judgement.signals) == expected.suspected
        assert bool(answer.unmet) == (expected.verdict == INSUFFICIENT)
        if expected.verdict == VALID and not passive:
            self.active(number)
        if expected.verdict in (VALID, INSUFFICIENT):
            self.check_session(number, _current(answer))
        else:
            assert answer.session is None
        assert answer.data == (_data(record, request) if expected.verdict == VALID else None)
        if expected.hand_out is None:
            assert answer.renewed is None
        else:
            self.issued(Ticket(number, ticket.secret, expected.hand_out), answer.renewed)
        if answer.cacheable_until is not None:
            assert expected.verdict == VALID
            assert expected.hand_out is None
            coming = [edge for edge in record.edges_of_the_token_in_use() if edge > self.now]
            assert self.now < answer.cacheable_until <= min(coming, default=answer.cacheable_until)

    @rule(pick=PICKS, pauses=st.lists(st.sampled_from(PAUSES), min_size=1, max_size=5))
    def stay(self, pick: int, pauses: list[int]) -> None:
        """Use one token for a while, then the last one that was issued for it."""
        ticket = self.ticket(pick)
        for pause in pauses:
            self.clock.advance(pause)
            self.present(ticket, passive=False)
        self.present(next(reversed(self.texts)), passive=False)

    @rule(pick=PICKS, application=st.sampled_from(APPLICATIONS))
    def validate_elsewhere(self, pick: int, application: str) -> None:
        """Present a token to another application."""
        ticket = self.ticket(pick)
        if application != self.records[ticket.session].application:
            answer: ValidationResult = self.ask(
                lambda authority: authority.validation.validate(
                    Question(self.call(authority, application), self.token(ticket))
                )
            )
            assert answer.verdict.name == UNKNOWN

    @rule(pick=PICKS, with_id=st.booleans())
    def roll(self, pick: int, with_id: bool) -> None:
        """Roll at a privilege change."""
        ticket = self.ticket(pick)
        number, record = ticket.session, self.records[ticket.session]
        changed: ChangeResult = self.change(
            lambda authority, reply: authority.logins.roll(
                self.call(authority, record.application), self.token(ticket), reply
            ),
            with_id=with_id,
        )
        if not self.accepted(ticket, changed):
            return
        self.lowered(number)
        record.roll(self.now)
        self.tell("SESSION_ROLLED", number)
        self.rolled(number, changed)
        self.is_newest(changed)

    @rule(pick=PICKS, times=st.sampled_from(TIMES), with_id=st.booleans())
    def refresh(self, pick: int, times: Times | None, with_id: bool) -> None:
        """Refresh, perhaps with own timeouts from now on."""
        ticket = self.ticket(pick)
        number, record = ticket.session, self.records[ticket.session]
        changed: ChangeResult = self.change(
            lambda authority, reply: authority.sessions.refresh(
                self.call(authority, record.application), self.token(ticket), reply, lifetimes_of(times)
            ),
            with_id=with_id,
        )
        if not self.accepted(ticket, changed):
            return
        self.lowered(number)
        record.refresh(self.now, times)
        self.tell("SESSION_REFRESHED", number)
        self.check_session(number, changed.session)
        self.is_newest(changed)

    def accepted(self, ticket: Ticket, changed: ChangeResult) -> bool:
        """Compare the verdict of a change that only the rightful client may make. Return whether it was made."""
        expected = self.judged(ticket)
        assert changed.verdict.name == expected.verdict
        if expected.verdict == VALID:
            self.is_kept(ticket.session)
            return True
        if self.told and expected.verdict in (IDLE, ABSOLUTE):
            self.is_kept()  # the call itself has recorded that
        self.unchanged(changed)
        return False

    # Data

    @rule(
        pick=PICKS,
        by_id=st.booleans(),
        changes=st.sampled_from(_CHANGES),
        offset=st.sampled_from([None, None, -1, 0, 0, 1]),
        wanted=WANTED,
        with_id=st.booleans(),
    )
    def update_data(
        self,
        pick: int,
        by_id: bool,
        changes: dict[str, bytes | None],
        offset: int | None,
        wanted: Wanted | None,
        with_id: bool,
    ) -> None:
        """Set and delete data under the condition of a version, and return the data afterwards."""
        ticket = self.ticket(pick)
        number, record = ticket.session, self.records[ticket.session]
        named = self.ids[number] if by_id else self.token(ticket)
        version = None if offset is None else record.version + offset
        request = _request(record, wanted)
        verdict = record.standing(self.now) if by_id else record.expect(ticket, self.now).verdict
        mismatch = verdict == VALID and version not in (None, record.version)
        try:
            changed: ChangeResult = self.change(
                lambda authority, reply: authority.data.update(
                    self.call(authority, record.application),
                    named,
                    changes,
                    reply,
                    expected_version=version,
                    wanted=request,
                ),
                with_id=with_id,
            )
        except VersionMismatch as refusal:
            assert mismatch
            assert (refusal.expected, refusal.current) == (version, record.version)  # noqa: PT017 - most are not refused
            if not by_id and record.expect(ticket, self.now).suspected:
                self.suspected(number)  # this was noticed before the versions were compared
            return
        except SessionNotFound:
            assert by_id
            assert record.pruned
            return
        assert not mismatch
        if by_id:
            assert changed.verdict.name == verdict
            self.expired(number, verdict)
            if self.told or verdict == VALID:
                self.is_kept(number)
        else:
            self.accepted(ticket, changed)
        if verdict != VALID:
            assert (changed.session, changed.data) == (None, None)
            return
        for key, value in changes.items():
            if value is None:
                record.data.pop(key, None)
            else:
                record.data[key] = value
        record.version += 1
        self.tell("SESSION_DATA_CHANGED", number)
        assert changed.session is not None
        assert changed.session.data_version == record.version
        self.is_newest(changed)
        assert changed.data == _data(record, request)

    @rule(pick=PICKS)
    def read_data(self, pick: int) -> None:
        """Read data by a session's id."""
        number = self.ticket(pick).session
        record = self.records[number]
        try:
            verdict, data = self.ask(
                lambda authority: authority.data.read(
                    self.call(authority, record.application), self.ids[number], DataRequest()
                )
            )
        except SessionNotFound:
            assert record.pruned
            return
        assert verdict.name == record.standing(self.now)
        assert data == (VersionedData(record.data, record.version) if verdict.name == VALID else None)


def _current(answer: ValidationResult) -> Session | None:
    """Return the session of a response, with the activity in that response."""
    if answer.session is None or answer.activity is None:
        return answer.session
    return with_activity(answer.session, answer.activity)


def _request(record: Record, wanted: Wanted | None) -> DataRequest | None:
    if wanted is None:
        return None
    keys, offset = wanted
    return DataRequest(keys, 0 if offset is None else max(0, record.version + offset))


def _data(record: Record, request: DataRequest | None) -> VersionedData | None:
    """Return the expected data in the response to a request."""
    if request is None or (request.newer_than and record.version <= request.newer_than):
        return None
    keys = [key for key in record.data if not request.keys or key in request.keys]
    return VersionedData({key: record.data[key] for key in keys}, record.version)
