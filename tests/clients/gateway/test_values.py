"""Session data as a mapping: it behaves like a dictionary, and knows exactly what must be written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sessiond_client.gateway import JSON, SessionValues
from sessiond_client.json_data import NotJson

_KEYS = st.sampled_from(["cart", "name", "seen", "other", ""])
_PLAIN = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5)
_JSON = st.recursive(
    _PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)


def _stored(**values: Any) -> dict[str, bytes]:
    return {key: json.dumps(value).encode() for key, value in values.items()}


class SessionMachine(RuleBasedStateMachine):
    """Values beside a dictionary, saved and loaded at any moment. The stored bytes change by `changes` only."""

    def __init__(self) -> None:
        super().__init__()
        self.oracle: dict[str, Any] = {}
        self.store: dict[str, bytes] = {"unreadable": b"\xff"}
        self.values = SessionValues(self.store)

    @rule(key=_KEYS, value=_JSON)
    def assign(self, key: str, value: Any) -> None:
        """Assign a value; later changes inside of it must count too."""
        self.values[key] = value
        self.oracle[key] = json.loads(json.dumps(value))

    @rule(key=_KEYS, item=_PLAIN)
    def change_inside(self, key: str, item: Any) -> None:
        """Change a list without announcing it."""
        if isinstance(self.oracle.get(key), list):
            self.values[key].append(item)
            self.oracle[key].append(item)

    @rule(key=_KEYS)
    def delete(self, key: str) -> None:
        """Delete a key, if it is there."""
        if key in self.oracle:
            del self.values[key]
            del self.oracle[key]
        else:
            with pytest.raises(KeyError):
                del self.values[key]

    @rule(key=_KEYS, value=_JSON)
    def set_default(self, key: str, value: Any) -> None:
        """Read a key, or assign it."""
        assert self.values.setdefault(key, value) == self.oracle.setdefault(key, json.loads(json.dumps(value)))

    @rule(key=_KEYS)
    def take(self, key: str) -> None:
        """Read and delete a key."""
        assert self.values.pop(key, None) == self.oracle.pop(key, None)

    @rule()
    def clear(self) -> None:
        """Delete everything."""
        self.values.clear()
        self.oracle.clear()

    @rule(again=st.booleans())
    def save(self, again: bool) -> None:
        """Write what was changed, and go on with the same values or with those of the next request."""
        changes = self.values.changes()
        assert not changes.set.keys() & set(changes.delete)
        assert set(changes.delete) <= self.store.keys()
        assert all(self.store.get(key) != data for key, data in changes.set.items())
        self.store.update(changes.set)
        for key in changes.delete:
            del self.store[key]
        if again:
            self.values.written(changes)
        else:
            self.values = SessionValues(self.store)
        assert not self.values.changes()

    @invariant()
    def reads_like_a_dictionary(self) -> None:
        """Keys, length and values are those of the dictionary; what cannot be read is missing."""
        assert dict(self.values) == self.oracle
        assert len(self.values) == len(self.oracle)
        assert all((key in self.values) == (key in self.oracle) for key in ("cart", "unreadable", 5))


TestSession = SessionMachine.TestCase
TestSession.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_nothing_read_nothing_written() -> None:
    """Values that were only read, or not even that, are not written again."""
    values = SessionValues(_stored(cart=["tea"], name="Ada", n=1))
    assert (bool(values.changes()), values.accessed) == (False, False)
    assert values["cart"] == ["tea"]
    assert values.get("name") == "Ada"
    assert (bool(values.changes()), values.accessed) == (False, True)


def test_equal_assignments() -> None:
    """Assigning what is stored already is no change, however another program has written the same JSON."""
    values = SessionValues({"cart": b'[ "tea", 1 ]', "name": b'"\\u0041da"'})
    values["cart"], values["name"] = ["tea", 1], "Ada"
    assert not values.changes()
    values["cart"].append(2)
    assert values.changes().set == {"cart": b'["tea",1,2]'}


def test_only_the_changed_key() -> None:
    """Only the changed keys are written, so two requests that change different keys do not undo each other."""
    values = SessionValues(_stored(cart=["tea"], name="Ada", old=1))
    values["cart"].append("cup")
    del values["old"]
    changes = values.changes()
    assert (dict(changes.set), changes.delete) == ({"cart": b'["tea","cup"]'}, ("old",))


def test_deleted_and_assigned_again() -> None:
    """A key that is deleted and assigned again is written, not deleted."""
    values = SessionValues(_stored(cart=["tea"]))
    del values["cart"]
    assert "cart" not in values
    values["cart"] = []
    changes = values.changes()
    assert (dict(changes.set), changes.delete) == ({"cart": b"[]"}, ())


def test_unreadable_values() -> None:
    """A value of another program stays as it is until it is overwritten, or everything is cleared."""
    values = SessionValues({"other": b"\x80pickle", "name": b'"Ada"'})
    assert list(values) == ["name"]
    assert values.pop("other", None) is None
    assert "other" not in values
    with pytest.raises(KeyError):
        del values["other"]
    assert not values.changes()
    values["other"] = 1
    assert values.changes().set == {"other": b"1"}
    values.clear()
    assert values.changes().delete == ("name", "other")


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, object(), "\ud800", {"deep": b"bytes"}])
def test_values_that_cannot_be_written(value: Any) -> None:
    """A value that JSON cannot express is refused with its key, and its text does not show."""
    values = SessionValues()
    values["cart"] = value
    with pytest.raises(NotJson, match="'cart'"):
        values.changes()


@pytest.mark.parametrize("key", [1, None, b"cart", ("cart",)])
def test_keys_are_text(key: Any) -> None:
    """A key that is not text is refused at once; looking for one finds nothing."""
    values = SessionValues()
    with pytest.raises(TypeError, match="session data: a key is text"):
        values[key] = 1
    assert key not in values


def test_a_login_to_a_fresh_session() -> None:
    """In a fresh session everything that is kept counts as new."""
    values = SessionValues(_stored(cart=["tea"], name="Ada", old=1))
    values["cart"].append("cup")
    del values["old"]
    values.as_unstored()
    changes = values.changes()
    assert (dict(changes.set), changes.delete) == ({"cart": b'["tea","cup"]', "name": b'"Ada"'}, ())


def test_forgetting() -> None:
    """After `forget_all` nothing of the session is left to read or to write."""
    values = SessionValues(_stored(cart=["tea"]))
    values["name"] = "Ada"
    values.forget_all()
    assert dict(values) == {}
    assert not values.changes()


def test_what_is_found_later() -> None:
    """Stored values that become known later are read, but what the request has changed wins."""
    values = SessionValues()
    values["name"] = "Ada"
    values.found(_stored(name="old", cart=["tea"]))
    assert dict(values) == {"name": "Ada", "cart": ["tea"]}
    assert values.changes().set == {"name": b'"Ada"'}


def test_no_value_in_its_repr() -> None:
    """Values are the user's business, so neither a repr nor that of changes shows them."""
    values = SessionValues(_stored(name="Ada-secret"))
    values["cart"] = ["tea-secret"]
    assert "secret" not in f"{values!r} {values} {values.changes()!r}"


def test_another_codec() -> None:
    """A codec of the application decides how values are written, and JSON is only the default."""

    class Upper:
        def encode(self, key: str, value: Any) -> bytes:
            return str(value).upper().encode()

        def decode(self, key: str, data: bytes) -> Any:
            return data.decode().lower()

    values = SessionValues({"name": b"ADA"}, Upper())
    assert values["name"] == "ada"
    values["name"] = "Ada"
    assert not values.changes()
    values["name"] = "Bob"
    assert values.changes().set == {"name": b"BOB"}


@given(st.dictionaries(_KEYS, _JSON))
def test_what_is_written_is_read(given_values: dict[str, Any]) -> None:
    """What one request writes is what the next one reads."""
    values = SessionValues()
    values.update(given_values)
    assert dict(SessionValues(values.changes().set)) == json.loads(json.dumps(given_values))


def test_iterating_while_changing() -> None:
    """Keys may be deleted while the values are iterated over, as web frameworks' session tests do."""
    values = SessionValues(_stored(a=1, b=2))

    def keys() -> Iterator[str]:
        yield from values

    for key in keys():
        del values[key]
    assert values.changes().delete == ("a", "b")
    assert JSON.decode("a", b"1") == 1
