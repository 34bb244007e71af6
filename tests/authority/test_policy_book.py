"""The policy book: one fingerprint for the same policies, and what changed in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from types import MappingProxyType
from typing import Any

import pytest

from sessiond.authority.policy_book import PolicyBook
from sessiond.domain.policy import PRESETS, Policy
from sessiond.domain.signals import Reaction, SignalType
from sessiond.domain.values import Millis

LOW, HIGH = PRESETS["owasp-low"], PRESETS["owasp-high"]


def fingerprint(**policies: Policy) -> str:
    """The fingerprint of a book with these policies."""
    return PolicyBook(policies).fingerprint


def other(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, Enum):
        return next(member for member in type(value) if member is not value)
    if isinstance(value, int):
        return value + 1
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, tuple):
        return (*value, "cookies")
    assert value is None
    return 1


def changes(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every way to change one value somewhere within a policy: where, and what the policy is then."""
    if is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            for where, changed in changes(getattr(value, field.name), f"{path}{field.name}"):
                yield where, replace(value, **{field.name: changed})
    elif isinstance(value, MappingProxyType):
        for key in value:
            yield f"{path}.{key}", MappingProxyType({**value, key: other(value[key])})
    else:
        yield path, other(value)


CHANGES = dict(changes(LOW))


def test_every_field_is_tried() -> None:
    """The changes that are tried reach each field of a policy, of its rules and limits, and each reaction."""
    names = {field.name for field in fields(Policy)}
    assert {name for name in names if any(where.startswith(name) for where in CHANGES)} == names
    assert len(CHANGES) == len(names) - 3 + len(SignalType) + len(fields(LOW.guessing)) + len(fields(LOW.cookie))


@pytest.mark.parametrize("where", CHANGES)
def test_any_change_shows(where: str) -> None:
    """A policy that differs anywhere has another fingerprint, under the same name in the same book."""
    assert fingerprint(default=CHANGES[where]) != fingerprint(default=LOW)
    assert fingerprint(default=CHANGES[where], shop=HIGH) != fingerprint(default=LOW, shop=HIGH)


def test_all_changes_differ() -> None:
    """No two different policies share a fingerprint."""
    assert len({fingerprint(default=policy) for policy in CHANGES.values()}) == len(CHANGES)


def test_equal_policies_share_a_fingerprint() -> None:
    """Policies that are equal, made apart and named in another order, have one fingerprint of 32 hex digits."""
    backwards = MappingProxyType(dict(reversed(list(LOW.reactions.items()))))
    one, again = fingerprint(a=LOW, b=HIGH), fingerprint(b=replace(HIGH), a=replace(LOW, reactions=backwards))
    assert one == again
    assert len(one) == len(bytes.fromhex(one)) * 2 == 32


def test_the_name_counts() -> None:
    """The same policies under other names, or exchanged, have another fingerprint."""
    assert len({fingerprint(a=LOW, b=HIGH), fingerprint(a=HIGH, b=LOW), fingerprint(a=LOW, c=HIGH)}) == 3
    assert len({fingerprint(a=LOW), fingerprint(a=LOW, b=LOW), fingerprint()}) == 3


def test_a_replaced_book_has_the_new_fingerprint() -> None:
    """After a replacement the fingerprint is that of a book made with the new policies, and back again."""
    book = PolicyBook({"default": LOW})
    book.replace({"default": HIGH}, {})
    assert book.fingerprint == fingerprint(default=HIGH)
    book.replace({"default": LOW}, {})
    assert book.fingerprint == fingerprint(default=LOW)


def test_where_values_come_from_does_not_count() -> None:
    """Two files that say the same have one fingerprint, wherever in them it is said."""
    origins = {"default": {"idle_timeout": "sessiond.toml:3"}}
    assert PolicyBook({"default": LOW}, origins).fingerprint == fingerprint(default=LOW)


def test_what_a_replacement_changes() -> None:
    """A replacement says for each application that differs what changed, and the book is then what it was given."""
    book = PolicyBook({"default": LOW, "old": LOW, "same": HIGH}, {"default": {}})
    changed = replace(
        LOW,
        idle_timeout=Millis(1),
        reactions={**LOW.reactions, SignalType.REPORTED: Reaction.STEP_UP},
    )
    policies = {"same": replace(HIGH), "new": LOW, "default": changed}
    origins = {"new": {"idle_timeout": "preset owasp-low"}}
    assert book.replace(policies, origins) == {
        "default": "changed: idle_timeout, reactions",
        "new": "application added",
        "old": "application removed",
    }
    assert (dict(book), book.origins, len(book), sorted(book)) == (policies, origins, 3, ["default", "new", "same"])


def test_the_book_is_its_own() -> None:
    """What the book was made from may change afterwards: the book does not."""
    given = {"default": LOW}
    book = PolicyBook(given)
    given["default"] = HIGH
    assert book["default"] is LOW
    with pytest.raises(KeyError):
        book["shop"]
