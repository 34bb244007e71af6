"""The checker: a history in, its violations out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from tests.consistency import logs, visibility
from tests.consistency.facts import Facts, Rule, Violation
from tests.consistency.history import History

__all__ = ["Rule", "Violation", "check"]


def check(history: History) -> list[Violation]:
    """Return every violation in a history. An unknown outcome counts as both: whatever the log says is right."""
    facts = Facts(history)
    return [violation for rule in _RULES for violation in rule(history, facts)]


def _deaths(history: History, facts: Facts) -> Iterator[Violation]:
    """Find replicas that ended by themselves."""
    del facts
    for death in history.deaths:
        yield Violation(Rule.ALIVE, death)


_RULES: tuple[Callable[[History, Facts], Iterable[Violation]], ...] = (
    visibility.revoked_or_replaced,
    visibility.at_least,
    visibility.certain_answers,
    logs.acknowledged,
    logs.caused,
    logs.in_order,
    logs.limits_by_log,
    logs.limits_by_answers,
    logs.streams,
    _deaths,
)
