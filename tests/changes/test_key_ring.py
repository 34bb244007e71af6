"""Units that change the key ring: what they leave, what they refuse, and what their events say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from sessiond.changes.key_ring import (
    AddSealingKey,
    PromoteSealingKey,
    ReconcileKeys,
    RecordKeys,
    RemoveSealingKey,
    RetireSealingKey,
)
from sessiond.domain.errors import InvalidField, KeyNotFound, KeyRingRefused
from sessiond.domain.event import EventType
from sessiond.domain.key_ring import KeyHolder, KeyState, SealingKey, reconciled
from sessiond.domain.values import Cause, CauseKind, Instant, Revision
from sessiond.eventlog.work import Read, Work
from tests.support.clock import START
from tests.support.work import KnownMemory

CAUSE = Cause(CauseKind.REQUEST, "ops", "ticket 17")
PRINTS = [bytes([n]) * 16 for n in range(1, 6)]
A, B, C, D, E = PRINTS
EARLIER = Instant(START - 1000)
SEALING = SealingKey(A, KeyState.SEALING, EARLIER)
OPENING = SealingKey(B, KeyState.OPENING, EARLIER, sealed_until=EARLIER)
ADDED = SealingKey(C, KeyState.ADDED, EARLIER, wrapped=b"wrapped")
RETIRING = replace(OPENING, state=KeyState.RETIRING)


def work_with(*keys: SealingKey, holders: Sequence[KeyHolder] = ()) -> Work:
    """Work on this key ring."""
    return Work(START, Revision(7), Read(keys=keys, holders=holders), KnownMemory())


def shape(keys: Sequence[SealingKey] | None) -> list[tuple[int, str]]:
    """The keys by the first byte of their fingerprints, and their states."""
    return [(key.fingerprint[0], key.state.value) for key in keys or ()]


def reason_of(work: Work) -> str:
    """The reason of the only event, which belongs to no application and session."""
    (event,) = work.changes.events
    assert (event.type, event.application, event.session_id) == (EventType.KEY_RING_CHANGED, "", None)
    return event.cause.reason


def test_an_added_key_seals_nothing() -> None:
    """An added key comes last, with the time and what others need to learn it; the event has its fingerprint alone."""
    work = work_with(SEALING)
    added = work.run(AddSealingKey(C, b"for others", CAUSE)).result
    assert added == SealingKey(C, KeyState.ADDED, START, wrapped=b"for others")
    assert shape(work.changes.keys) == [(1, "sealing"), (3, "added")]
    assert reason_of(work) == "added 03030303; ticket 17"


def test_a_ring_has_three_keys() -> None:
    """A fourth key is refused; retired ones do not count."""
    with pytest.raises(KeyRingRefused, match="has 3 keys"):
        work_with(SEALING, OPENING, ADDED).run(AddSealingKey(D, b"", CAUSE))
    retired = replace(OPENING, state=KeyState.RETIRED)
    work = work_with(SEALING, ADDED, retired)
    work.run(AddSealingKey(D, b"", CAUSE))
    assert shape(work.changes.keys) == [(1, "sealing"), (3, "added"), (4, "added"), (2, "retired")]


def test_a_promotion() -> None:
    """The promoted key comes first; the one before opens from then on, and its time is recorded."""
    work = work_with(SEALING, ADDED)
    assert work.run(PromoteSealingKey("", CAUSE)).result.fingerprint == C
    assert work.changes.keys is not None
    assert shape(work.changes.keys) == [(3, "sealing"), (1, "opening")]
    assert [(key.since, key.sealed_until) for key in work.changes.keys] == [(START, None), (START, START)]
    assert reason_of(work) == "promoted 03030303, which replaces 01010101; ticket 17"


@pytest.mark.parametrize(
    ("keys", "prefix", "error", "text"),
    [
        ([SEALING], "", InvalidField, "add one first"),
        ([SEALING, ADDED, replace(ADDED, fingerprint=D)], "", InvalidField, "there are several"),
        ([SEALING, ADDED], A.hex(), KeyRingRefused, "is the sealing key already"),
        ([SEALING, RETIRING], B.hex(), KeyRingRefused, "is being retired"),
        ([SEALING], B.hex(), KeyNotFound, r"no key starts with .*; the keys are 01010101"),
        ([SEALING, replace(OPENING, state=KeyState.RETIRED)], B.hex(), KeyNotFound, "no key starts with"),
    ],
)
def test_promotions_that_are_refused(keys: list[SealingKey], prefix: str, error: type[Exception], text: str) -> None:
    """A promotion names one key of the ring that neither seals nor is being retired."""
    work = work_with(*keys)
    with pytest.raises(error, match=text):
        work.run(PromoteSealingKey(prefix, CAUSE))
    assert work.changes.keys is None


def test_a_promotion_waits_for_every_holder() -> None:
    """A promotion is refused with the names of those that lack the key, also of two with the same name."""
    holders = [KeyHolder("east", [A, C]), KeyHolder("west", [A]), KeyHolder("west", [A, C])]
    with pytest.raises(KeyRingRefused, match=r"forged ones: west$"):
        work_with(SEALING, ADDED, holders=holders).run(PromoteSealingKey("", CAUSE))
    work_with(SEALING, ADDED, holders=[holders[0], holders[2]]).run(PromoteSealingKey("", CAUSE))


def test_retiring() -> None:
    """The sealing key stays; one that never sealed is removed; another begins to retire; a repeat changes nothing."""
    with pytest.raises(KeyRingRefused, match="add and promote another one"):
        work_with(SEALING).run(RetireSealingKey(A.hex(), False, CAUSE))
    work = work_with(SEALING, ADDED)
    assert work.run(RetireSealingKey(C.hex(), False, CAUSE)).result.state is KeyState.RETIRED
    assert reason_of(work) == "removed 03030303; ticket 17"
    work = work_with(SEALING, OPENING)
    assert work.run(RetireSealingKey(B.hex(), True, CAUSE)).result.log_out
    assert reason_of(work) == "began to retire 02020202, even if that logs out sessions; ticket 17"
    work = work_with(SEALING, RETIRING)
    work.run(RetireSealingKey(B.hex(), False, CAUSE))
    assert (work.changes.keys, work.changes.events) == (None, [])


def test_a_retry_without_force_takes_nothing_back() -> None:
    """A key that is being retired by force stays so if it is retired once more without."""
    work = work_with(SEALING, replace(RETIRING, log_out=True))
    assert work.run(RetireSealingKey(B.hex(), False, CAUSE)).result.log_out


def test_a_removal() -> None:
    """A retired key is removed, and what was encrypted under it for others goes with it."""
    work = work_with(SEALING, RETIRING, ADDED)
    assert work.run(RemoveSealingKey(B)).result
    assert shape(work.changes.keys) == [(1, "sealing"), (3, "added"), (2, "retired")]
    assert not any(key.wrapped for key in work.changes.keys or ())
    assert reason_of(work) == "removed 02020202: nothing needs it any more"


def test_removals_that_are_not_due() -> None:
    """A key stays if it is not being retired, or if some process seals with it still."""
    for keys, holders in (
        ((SEALING, OPENING), []),
        ((SEALING,), []),
        ((SEALING, RETIRING), [KeyHolder("east", [A, B]), KeyHolder("west", [B, A])]),
    ):
        work = work_with(*keys, holders=holders)
        assert not work.run(RemoveSealingKey(B)).result
        assert (work.changes.keys, work.changes.events) == (None, [])


def test_what_a_source_has_is_taken_over() -> None:
    """New keys are added, a first one is promoted once all hold it, and those that were taken away begin to retire."""
    work = work_with(SEALING, OPENING, holders=[KeyHolder("east", [A, C]), KeyHolder("west", [A])])
    work.run(ReconcileKeys([C, A], [B], {C: b"wrapped"}, "a file"))
    assert shape(work.changes.keys) == [(1, "sealing"), (2, "retiring"), (3, "added")]
    assert reason_of(work) == "began to retire 02020202, added 03030303; found in a file"
    work = work_with(SEALING, ADDED, holders=[KeyHolder("east", [A, C])])
    work.run(ReconcileKeys([C, A], [], {}, "a file"))
    assert shape(work.changes.keys) == [(3, "sealing"), (1, "opening")]
    assert reason_of(work) == "promoted 03030303; found in a file"
    work = work_with(SEALING, ADDED)
    work.run(ReconcileKeys([A, C], [], {}, "a file"))
    assert (work.changes.keys, work.changes.events) == (None, [])


def test_what_the_opening_has_changed_is_recorded() -> None:
    """The event of a change at the start names what differs from before; without a difference there is none."""
    work = work_with(replace(SEALING, fingerprint=C), replace(OPENING, fingerprint=A))
    work.run(RecordKeys([SEALING], {}, "a file"))
    assert reason_of(work) == "promoted 03030303; found in a file"
    work = work_with(SEALING)
    work.run(RecordKeys([SEALING], {}, "a file"))
    assert work.changes.events == []


def test_the_record_decides_which_key_seals() -> None:
    """A file in an older order promotes nothing; a new first key does; and a retired key does not come back."""

    def found(recorded: Sequence[SealingKey], held: Sequence[bytes], *, alone: bool = True) -> list[tuple[int, str]]:
        return shape(reconciled(recorded, held, START, alone=alone, may_promote=True))

    assert found([], [A, B]) == [(1, "sealing"), (2, "opening")]
    assert found([SEALING, OPENING], [B, A]) == [(1, "sealing"), (2, "opening")]
    assert found([SEALING], [C, A]) == [(3, "sealing"), (1, "opening")]
    assert found([SEALING], [A, C]) == [(1, "sealing"), (3, "added")]
    assert found([SEALING, OPENING], [A]) == [(1, "sealing"), (2, "retired")]
    assert found([SEALING, OPENING], [A], alone=False) == [(1, "sealing"), (2, "opening")]
    retired = replace(OPENING, state=KeyState.RETIRED)
    assert found([SEALING, retired], [B, A]) == [(1, "sealing"), (2, "retired")]
    assert shape(reconciled([SEALING], [C, A], START, alone=False, may_promote=False)) == [
        (1, "sealing"),
        (3, "added"),
    ]


def test_keys_from_before_states_were_recorded() -> None:
    """A key without a time is dated at the first start, so that it is kept as long as its tokens may live."""
    old = [SealingKey(A, KeyState.SEALING), SealingKey(B, KeyState.OPENING)]
    keys = reconciled(old, [A, B], START, alone=True, may_promote=True)
    assert [(key.since, key.sealed_until) for key in keys] == [(START, None), (START, START)]
