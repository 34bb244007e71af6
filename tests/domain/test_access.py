"""Who may call what: roles, applications, and requests about one subject."""

from __future__ import annotations

import itertools

import pytest

from sessiond.domain.access import (
    EVERYTHING,
    RULES,
    CallerRecord,
    Credential,
    CredentialKind,
    Grants,
    Role,
    Rule,
    Scope,
    may,
)
from sessiond.domain.values import Instant, Revision
from tests.support.clock import START

NOW = Instant(START)
ISSUERS = Rule(frozenset({Role.ISSUER, Role.ADMIN}))
OPERATORS = Rule(frozenset({Role.OPERATOR, Role.ADMIN}), for_one_subject=frozenset({Role.ISSUER}))


def granted(*grants: tuple[str, Role]) -> Grants:
    """Some roles."""
    return frozenset(grants)


def test_a_role_counts_for_its_application() -> None:
    """A role for an application permits calls for it, not for another one, and not for all of them."""
    mine = granted(("shop", Role.ISSUER))
    assert may(mine, ISSUERS, ["shop"])
    assert not may(mine, ISSUERS, ["bank"])
    assert not may(mine, ISSUERS, [])
    assert not may(mine, ISSUERS, ["*"])


def test_a_role_for_all_counts_for_each() -> None:
    """A role for `*` permits calls for any application, and for all of them."""
    everywhere = granted(("*", Role.ISSUER))
    assert may(everywhere, ISSUERS, ["shop"])
    assert may(everywhere, ISSUERS, ["shop", "bank"])
    assert may(everywhere, ISSUERS, [])


def test_each_application_needs_the_role() -> None:
    """A call for two applications needs the role for both; they may come from different grants."""
    both = granted(("shop", Role.ISSUER), ("bank", Role.ADMIN))
    assert may(both, ISSUERS, ["shop", "bank"])
    assert not may(granted(("shop", Role.ISSUER), ("bank", Role.VALIDATOR)), ISSUERS, ["shop", "bank"])


@pytest.mark.parametrize("role", [role for role in Role if role not in ISSUERS.roles])
def test_another_role_does_not_count(role: Role) -> None:
    """A role that the rule does not name permits nothing."""
    assert not may(granted(("*", role)), ISSUERS, ["shop"])


def test_no_grants_permit_nothing() -> None:
    """A caller without any role may make no call of the contract."""
    assert not any(
        may(frozenset(), rule, ["shop"], about_one_subject=one) for rule in RULES.values() for one in (True, False)
    )


def test_one_subject_widens_the_roles() -> None:
    """A role for one subject counts only if the request is about one, and only for its application."""
    mine = granted(("shop", Role.ISSUER))
    assert may(mine, OPERATORS, ["shop"], about_one_subject=True)
    assert not may(mine, OPERATORS, ["shop"])
    assert not may(mine, OPERATORS, ["bank"], about_one_subject=True)
    assert not may(granted(("shop", Role.VALIDATOR)), OPERATORS, ["shop"], about_one_subject=True)


def test_a_call_about_the_authority_needs_all_applications() -> None:
    """Such a call is permitted with the role for `*` only, whatever applications the request names."""
    rule = Rule(frozenset({Role.ADMIN}), Scope.AUTHORITY)
    for named in ([], ["shop"]):
        assert may(EVERYTHING, rule, named)
        assert not may(granted(("shop", Role.ADMIN)), rule, named)


def test_any_application_suffices() -> None:
    """A call whose response shows only what the caller may see needs one of the roles for any application."""
    rule = Rule(frozenset({Role.ISSUER}), Scope.ANY)
    assert may(granted(("shop", Role.ISSUER)), rule, [])
    assert not may(granted(("shop", Role.OPERATOR)), rule, [])
    assert not may(frozenset(), rule, [])


def test_an_open_call_needs_nothing() -> None:
    """A call that is open to everyone is permitted without any role."""
    assert may(frozenset(), Rule(frozenset(), Scope.OPEN), ["shop"])


def test_a_call_without_a_rule_is_denied() -> None:
    """A call that nobody has written a rule for is denied, even to an admin for everything."""
    assert not may(EVERYTHING, None, ["shop"], about_one_subject=True)


def test_an_admin_may_make_every_call() -> None:
    """Each rule of the contract includes the admin, and none is open."""
    for rule in RULES.values():
        assert may(EVERYTHING, rule, ["shop"])
        assert rule.scope is not Scope.OPEN


def test_a_role_for_one_subject_is_no_more_than_the_roles() -> None:
    """What a role may do for one subject it may do for nobody else: no rule lists a role twice."""
    for rule, role in itertools.product(RULES.values(), Role):
        assert not (role in rule.roles and role in rule.for_one_subject)


@pytest.mark.parametrize(
    ("grants", "expires", "is_good"),
    [
        (EVERYTHING, [None], True),
        (EVERYTHING, [NOW + 10, None], True),
        (EVERYTHING, [NOW + 10], False),
        (EVERYTHING, [], False),
        (EVERYTHING | {("shop", Role.ISSUER)}, [None], True),
        (frozenset({("shop", Role.ADMIN)}), [None], False),
        (frozenset({("*", Role.OPERATOR)}), [None], False),
    ],
)
def test_who_can_manage_callers_for_good(grants: Grants, expires: list[int | None], is_good: bool) -> None:
    """Only an admin for all applications with a credential that does not expire can manage callers for good."""
    credentials = tuple(
        Credential(str(number), CredentialKind.KEY, bytes(32), NOW, None if end is None else Instant(end))
        for number, end in enumerate(expires)
    )
    assert CallerRecord("ops", grants, credentials, NOW, Revision(1)).is_good_admin(NOW) is is_good


def test_a_credential_ends_on_the_millisecond() -> None:
    """A credential proves something until its end, and nothing at the end."""
    credential = Credential("a", CredentialKind.KEY, bytes(32), NOW, Instant(NOW + 10))
    assert credential.is_good(Instant(NOW + 9))
    assert not credential.is_good(Instant(NOW + 10))
