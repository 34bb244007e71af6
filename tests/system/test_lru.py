"""Bounded memory: what goes first when there is no more room."""

from __future__ import annotations

import pytest

from sessiond.system.lru import Lru


def filled(capacity: int, *keys: str) -> Lru[str, str]:
    """A memory that these keys were put into, in this order."""
    lru: Lru[str, str] = Lru(capacity)
    for key in keys:
        lru.put(key, key.upper())
    return lru


@pytest.mark.parametrize("capacity", [0, -1])
def test_there_must_be_room(capacity: int) -> None:
    """A memory without room for one entry is refused."""
    with pytest.raises(ValueError, match="at least 1"):
        Lru[str, str](capacity)


def test_up_to_its_capacity_everything_stays() -> None:
    """Up to the capacity nothing goes; iteration gives the keys, the one used longest ago first."""
    lru = filled(3, "a", "b", "c")
    assert (len(lru), list(lru)) == (3, ["a", "b", "c"])


def test_over_its_capacity_the_oldest_goes() -> None:
    """One entry more pushes out the one that was used longest ago, and only that."""
    lru = filled(3, "a", "b", "c", "d")
    assert (len(lru), list(lru)) == (3, ["b", "c", "d"])
    assert ("a" in lru, lru.get("a"), lru.peek("a")) == (False, None, None)


def test_room_for_one() -> None:
    """With room for one entry the newest is the one that is there."""
    assert list(filled(1, "a", "b")) == ["b"]


def test_reading_is_use() -> None:
    """An entry that was read goes after those that were not."""
    lru = filled(2, "a", "b")
    assert lru.get("a") == "A"
    lru.put("c", "C")
    assert list(lru) == ["a", "c"]


def test_writing_again_is_use() -> None:
    """An entry that is put again has the new value, takes no second place, and goes after the others."""
    lru = filled(2, "a", "b")
    lru.put("a", "again")
    assert (len(lru), list(lru)) == (2, ["b", "a"])
    lru.put("c", "C")
    assert (list(lru), lru.get("a")) == (["a", "c"], "again")


def test_a_look_is_no_use() -> None:
    """Neither a look at an entry, nor asking for it, nor iterating changes the order."""
    lru = filled(2, "a", "b")
    assert (lru.peek("a"), "a" in lru, list(lru)) == ("A", True, ["a", "b"])
    lru.put("c", "C")
    assert list(lru) == ["b", "c"]


def test_what_was_never_there() -> None:
    """A key that is not there gives None, and asking for it adds nothing."""
    lru = filled(2, "a")
    assert (lru.get("x"), lru.peek("x"), lru.pop("x"), "x" in lru) == (None, None, None, False)
    assert list(lru) == ["a"]


def test_forgetting_makes_room() -> None:
    """A forgotten entry is handed out once and leaves its place to another."""
    lru = filled(2, "a", "b")
    assert (lru.pop("a"), lru.pop("a")) == ("A", None)
    lru.put("c", "C")
    assert list(lru) == ["b", "c"]
