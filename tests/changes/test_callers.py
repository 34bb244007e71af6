"""Units that change callers: what they leave, what they refuse, and what their events say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sessiond.changes.callers import AddCaller, RemoveCaller, RotateCaller
from sessiond.domain.access import EVERYTHING, CallerRecord, Credential, CredentialKind, Role
from sessiond.domain.errors import CallerExists, CallerNotFound, InvalidField, LastAdmin, Unauthenticated, Unavailable
from sessiond.domain.event import EventType
from sessiond.domain.values import Cause, CauseKind, Instant, Millis, Revision
from sessiond.eventlog.work import Read, Work
from tests.contracts import samples
from tests.support.clock import START
from tests.support.work import KnownMemory

HEAD = Revision(7)
CAUSE = Cause(CauseKind.REQUEST, "ops", "ticket 17")
OPS, SHOP = samples.caller("ops"), samples.caller("shop", grants=frozenset({("shop", Role.ISSUER)}))


def key(number: int, expires: int | None = None) -> Credential:
    """A key that no other caller has."""
    end = None if expires is None else Instant(expires)
    return Credential(f"new{number:07d}", CredentialKind.KEY, bytes([number]) * 32, Instant(START), end)


def work_with(*callers: CallerRecord) -> Work:
    """Work on these callers."""
    return Work(START, HEAD, Read(callers={caller.name: caller for caller in callers}), KnownMemory())


def test_an_added_caller() -> None:
    """A caller is added as it is given, with the revision of its event, which names its roles and its key's id."""
    work = work_with(OPS)
    grants = frozenset({("shop", Role.VALIDATOR), ("bank", Role.ISSUER)})
    added = work.run(AddCaller("edge", grants, key(1), CAUSE, 1))
    assert added.result == CallerRecord("edge", grants, (key(1),), START, Revision(8))
    assert work.changes.callers == {"edge": added.result}
    (event,) = work.changes.events
    assert (event.type, event.application, event.session_id, event.revision) == (
        EventType.CALLER_CHANGED,
        "",
        None,
        8,
    )
    assert event.cause == replace(
        CAUSE, reason="added edge: issuer for bank, validator for shop; credential new0000001; ticket 17"
    )


def test_a_long_reason_is_cut() -> None:
    """However many roles a caller has, the reason of its event has at most 256 characters, and the change is in it."""
    work = work_with(OPS)
    work.run(AddCaller("edge", frozenset((f"shop-{n}", Role.ISSUER) for n in range(100)), key(1), CAUSE, 1))
    reason = work.changes.events[0].cause.reason
    assert len(reason) == 256
    assert reason.startswith("added edge: issuer for shop-0, ")


@pytest.mark.parametrize(
    ("grants", "credential"),
    [
        (frozenset({("*", Role.OPERATOR)}), key(1)),
        (frozenset({("shop", Role.ADMIN)}), key(1)),
        (EVERYTHING, key(1, START + 1_000)),
    ],
)
def test_the_first_caller_can_manage_the_others(grants: frozenset[tuple[str, Role]], credential: Credential) -> None:
    """A first caller that is no admin for everything, or whose key expires, is refused and nothing is changed."""
    work = work_with()
    with pytest.raises(LastAdmin, match="the first caller must be an admin for all applications"):
        work.run(AddCaller("first", grants, credential, CAUSE, 0))
    assert (work.changes.callers, work.changes.events) == ({}, [])
    assert work.run(AddCaller("first", EVERYTHING, key(1), CAUSE, 0)).result.name == "first"


def test_a_name_is_used_once() -> None:
    """A caller whose name is taken is refused, whatever its roles."""
    with pytest.raises(CallerExists, match='there is a caller "ops"'):
        work_with(OPS).run(AddCaller("ops", EVERYTHING, key(1), CAUSE, 1))


def test_a_credential_is_used_once() -> None:
    """A credential that proves another caller, or that has the id of another one, is refused and names its caller."""
    mine = OPS.credentials[0]
    for taken in (replace(mine, id="another"), replace(mine, value=bytes(32))):
        for unit in (
            AddCaller("edge", EVERYTHING, taken, CAUSE, 1),
            RotateCaller("shop", taken, Millis(0), CAUSE, 1),
            RotateCaller("ops", taken, Millis(0), CAUSE, 1),
        ):
            with pytest.raises(InvalidField, match='credential: belongs to the caller "ops" already'):
                work_with(OPS, SHOP).run(unit)


def test_there_is_a_limit() -> None:
    """With 10,000 callers one more is refused; after one was revoked there is room again."""
    callers = [OPS, *(replace(SHOP, name=f"shop-{number}", credentials=()) for number in range(9_999))]
    work = work_with(*callers)
    with pytest.raises(InvalidField, match="there are 10000 callers already"):
        work.run(AddCaller("edge", EVERYTHING, key(1), CAUSE, 1))
    work.run(RemoveCaller("shop-7", CAUSE, 1))
    work.run(AddCaller("edge", EVERYTHING, key(1), CAUSE, 1))


def test_a_rotation_ends_the_other_keys() -> None:
    """The other keys end with the overlap, or earlier if they did before; those that have ended are dropped."""
    gone, soon, later, good = key(1, START), key(2, START + 5), key(3, START + 500), key(4)
    shop = replace(SHOP, credentials=(gone, soon, later, good))
    done = work_with(OPS, shop).run(RotateCaller("shop", key(5), Millis(100), CAUSE, 1)).result
    assert done.before == shop
    rotated = done.after
    end = Instant(START + 100)
    assert rotated.credentials == (soon, replace(later, expires=end), replace(good, expires=end), key(5))
    assert (rotated.grants, rotated.created, rotated.revision) == (shop.grants, shop.created, 8)


def test_a_rotation_without_overlap_leaves_one_key() -> None:
    """Without an overlap only the new key is left, and credentials of another kind."""
    uid = Credential("1000", CredentialKind.UID, b"1000", Instant(START))
    shop = replace(SHOP, credentials=(key(1), uid))
    rotated = work_with(OPS, shop).run(RotateCaller("shop", key(2), Millis(0), CAUSE, 1)).result.after
    assert rotated.credentials == (uid, key(2))


def test_the_last_admin_stays() -> None:
    """The last admin cannot be removed, even if others are admins with a key that expires or for one application."""
    others = (
        samples.caller("soon", credentials=(key(1, START + 1_000),)),
        samples.caller("some", grants=frozenset({("shop", Role.ADMIN)})),
    )
    work = work_with(OPS, SHOP, *others)
    with pytest.raises(LastAdmin):
        work.run(RemoveCaller("ops", CAUSE, 1))
    work.run(AddCaller("deputy", EVERYTHING, key(2), CAUSE, 1))
    work.run(RemoveCaller("ops", CAUSE, 1))
    with pytest.raises(LastAdmin):
        work.run(RemoveCaller("deputy", Cause(CauseKind.REQUEST, "deputy"), 8))
    assert work.callers().keys() == {"shop", "soon", "some", "deputy"}


def test_who_is_not_there_cannot_change() -> None:
    """A caller that does not exist, or was removed by an earlier unit, is not found."""
    work = work_with(OPS, SHOP)
    work.run(RemoveCaller("shop", CAUSE, 1))
    for unit in (
        RemoveCaller("shop", CAUSE, 1),
        RotateCaller("shop", key(1), Millis(0), CAUSE, 1),
        RemoveCaller("x", CAUSE, 1),
    ):
        with pytest.raises(CallerNotFound, match="there is no caller"):
            work.run(unit)
    assert [event.cause.reason for event in work.changes.events] == ["revoked shop; ticket 17"]


@pytest.mark.parametrize("version", [0, 1, 9])
def test_who_asks_is_still_a_caller(version: int) -> None:
    """A caller that was revoked or changed since it was identified changes no caller, and nor does one without a key.
    Another process may have identified it, which did not know the latest changes yet.
    """
    units = (
        AddCaller("mallory", EVERYTHING, key(1), CAUSE, version),
        RotateCaller("shop", key(1), Millis(0), CAUSE, version),
        RemoveCaller("shop", CAUSE, version),
    )
    deputy, changed = samples.caller("deputy"), replace(OPS, revision=Revision(5))
    cases: list[tuple[tuple[CallerRecord, ...], type[Exception]]] = [
        ((deputy, SHOP), Unauthenticated),
        ((deputy, SHOP, changed), Unavailable if version else Unauthenticated),
    ]
    for callers, error in cases:
        for unit in units:
            work = work_with(*callers)
            with pytest.raises(error):
                work.run(unit)
            assert (work.changes.callers, work.changes.events) == ({}, [])


def test_nobody_is_left_of_those_callers() -> None:
    """A caller that is gone with all others cannot begin again: it was somebody, and everyone may do that now."""
    with pytest.raises(Unauthenticated):
        work_with().run(AddCaller("ops", EVERYTHING, key(1), CAUSE, 1))
