"""Session data is updated in place as a dict is."""

from __future__ import annotations

from sessiond_client.gateway import SessionValues


def test_an_update_in_place() -> None:
    """`|=` sets several keys, of a mapping and of pairs, and keeps the object."""
    values = same = SessionValues({"a": b"1"})
    values |= {"b": 2}
    values |= [("c", 3)]
    assert values is same
    assert dict(values) == {"a": 1, "b": 2, "c": 3}
    assert set(values.changes().set) == {"b", "c"}
