"""The latest changes of this process: for five seconds, in bounded memory."""

from __future__ import annotations

from sessiond_client import Token
from sessiond_client.gateway import recent
from sessiond_client.gateway.recent import RecentChanges


class _Seconds:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_for_as_long_as_a_lease() -> None:
    """A change is known for five seconds, and only for its token."""
    clock = _Seconds()
    changes = RecentChanges(clock)
    assert changes.at_least(Token("one")) == ""
    changes.note(Token("one"), "state-1")
    assert changes.at_least(Token("one")) == "state-1"
    assert changes.at_least(Token("two")) == ""
    clock.now += 4.9
    assert changes.at_least(Token("one")) == "state-1"
    clock.now += 0.1
    assert changes.at_least(Token("one")) == ""


def test_the_newest_counts() -> None:
    """A later change of the same session replaces the earlier one, and its time."""
    clock = _Seconds()
    changes = RecentChanges(clock)
    changes.note(Token("one"), "state-1")
    clock.now += 4
    changes.note(Token("one"), "state-2")
    clock.now += 4
    assert changes.at_least(Token("one")) == "state-2"


def test_bounded() -> None:
    """Ten thousand changes are known at most; the oldest are dropped first."""
    changes = RecentChanges(_Seconds())
    most = recent._MOST
    for number in range(most + 3):
        changes.note(Token(str(number)), "state")
    assert changes.at_least(Token("2")) == ""
    assert changes.at_least(Token("3")) == "state"
    assert changes.at_least(Token(str(most + 2))) == "state"
