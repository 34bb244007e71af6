"""The bounded map: which entry it removes when it is full."""

from __future__ import annotations

import pytest

from sessiond.system.lru import Lru


def filled(capacity: int, *keys: str) -> Lru[str, str]:
    """Return a map into which these keys were put, in this order."""
    lru: Lru[str, str] = Lru(capacity)
    for key in keys:
        lru.put(key, key.upper())
    return lru


@pytest.mark.parametrize("capacity", [0, -1])
def test_there_must_be_room(capacity: int) -> None:
    """A capacity below one is rejected."""
    with pytest.raises(ValueError, match="at least 1"):
        Lru[str, str](capacity)


def test_up_to_its_capacity_everything_stays() -> None:
    """Up to the capacity nothing is removed, and iteration starts with the least recently used key."""
    lru = filled(3, "a", "b", "c")
    assert (len(lru), list(lru)) == (3, ["a", "b", "c"])


def test_over_its_capacity_the_oldest_goes() -> None:
    """One more entry removes the least recently used one and no other."""
    lru = filled(3, "a", "b", "c", "d")
    assert (len(lru), list(lru)) == (3, ["b", "c", "d"])
    assert ("a" in lru, lru.get("a"), lru.peek("a")) == (False, None, None)


def test_room_for_one() -> None:
    """A map of capacity one has the newest entry."""
    assert list(filled(1, "a", "b")) == ["b"]


def test_reading_is_use() -> None:
    """An entry that was read is removed after those that were not."""
    lru = filled(2, "a", "b")
    assert lru.get("a") == "A"
    lru.put("c", "C")
    assert list(lru) == ["a", "c"]


def test_writing_again_is_use() -> None:
    """An entry that is put again has the new value, counts once, and is removed after the others."""
    lru = filled(2, "a", "b")
    lru.put("a", "again")
    assert (len(lru), list(lru)) == (2, ["b", "a"])
    lru.put("c", "C")
    assert (list(lru), lru.get("a")) == (["a", "c"], "again")


def test_a_look_is_no_use() -> None:
    """`peek`, `in` and iteration do not change the order."""
    lru = filled(2, "a", "b")
    assert (lru.peek("a"), "a" in lru, list(lru)) == ("A", True, ["a", "b"])
    lru.put("c", "C")
    assert list(lru) == ["b", "c"]


def test_what_was_never_there() -> None:
    """Reading a missing key returns None and adds nothing."""
    lru = filled(2, "a")
    assert (lru.get("x"), lru.peek("x"), lru.pop("x"), "x" in lru) == (None, None, None, False)
    assert list(lru) == ["a"]


def test_forgetting_makes_room() -> None:
    """A popped entry is returned once and frees its place."""
    lru = filled(2, "a", "b")
    assert (lru.pop("a"), lru.pop("a")) == ("A", None)
    lru.put("c", "C")
    assert list(lru) == ["b", "c"]
