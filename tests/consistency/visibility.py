"""The rules about what validations may answer after a change."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from math import inf

from tests.consistency.facts import CREATED, ENDS, ROLLED, Facts, Rule, Violation
from tests.consistency.history import History, Kind, Outcome, Validated

__all__ = ["at_least", "certain_answers", "revoked_or_replaced"]

_POSSIBLE = ("VALID", "REVOKED", "SUPERSEDED", "REPLAYED", "UNKNOWN")
"""The verdicts that a history can have: nothing expires in it, and no token is forged."""


class _KnownChanges:
    """From when on each change must hold everywhere. Of several times the earliest counts."""

    def __init__(self, history: History) -> None:
        self.awaited: defaultdict[str, float] = defaultdict(lambda: inf)
        self.ended: defaultdict[str, float] = defaultdict(lambda: inf)
        self.replaced: defaultdict[str, dict[int, float]] = defaultdict(dict)
        for operation in history.operations:
            if operation.outcome is not Outcome.OK:
                continue
            for session in operation.evicted:
                self._ends(session, operation.returned)
            if not operation.applied:
                continue
            if operation.kind is Kind.REVOKE:
                self._ends(operation.session, operation.returned)
                if operation.waits:
                    self.awaited[operation.session] = min(self.awaited[operation.session], operation.returned)
            elif operation.kind is not Kind.CREATE:
                self._replaces(operation.session, operation.generation, operation.returned)
        for stream in history.streams:
            # Also changes whose outcome is unknown: an event that somebody has received is committed.
            for delivery in stream.deliveries:
                event = delivery.event
                if event.type in ENDS:
                    self._ends(event.session, delivery.received)
                elif event.type == ROLLED:
                    self._replaces(event.session, event.generation, delivery.received)

    def _ends(self, session: str, when: float) -> None:
        self.ended[session] = min(self.ended[session], when)

    def _replaces(self, session: str, generation: int, when: float) -> None:
        known = self.replaced[session]
        known[generation] = min(known.get(generation, inf), when)


def revoked_or_replaced(history: History, facts: Facts) -> Iterator[Violation]:
    """Find validations that accept a session or a token although its end was known."""
    del facts
    known = _KnownChanges(history)
    for validated in history.validations:
        if validated.verdict != "VALID":
            continue
        session, invoked = validated.session, validated.invoked
        if invoked > known.awaited[session]:
            late = invoked - known.awaited[session]
            yield Violation(Rule.AWAITED, f"{_named(validated)} is valid {late:.3f} s after an awaited revocation")
        if invoked > known.ended[session] + history.bound:
            late = invoked - known.ended[session]
            yield Violation(Rule.BOUND, f"{_named(validated)} is valid {late:.3f} s after its end was known")
        for generation, when in known.replaced[session].items():
            if generation > validated.epoch and invoked > when + history.bound:
                late = invoked - when
                yield Violation(Rule.BOUND, f"{_named(validated)} is valid {late:.3f} s after its token was replaced")


def at_least(history: History, facts: Facts) -> Iterator[Violation]:
    """Find validations with a consistency token whose answer is older than the change that it names."""
    for validated in history.validations:
        if validated.at_least is None or not validated.verdict:
            continue
        change = facts.event_of(facts.operations[validated.at_least])
        if change is None:
            continue  # it changed nothing, or is lost, which another rule reports
        for reason in _older_than(validated, change.revision, facts):
            yield Violation(
                Rule.AT_LEAST, f"{_named(validated)} at revision {change.revision} is {validated.verdict}: {reason}"
            )


def _older_than(validated: Validated, revision: int, facts: Facts) -> Iterator[str]:
    session, is_valid = validated.session, validated.verdict == "VALID"
    created, ended = facts.created.get(session), facts.ended.get(session)
    if validated.verdict == "UNKNOWN" and created is not None and created.revision <= revision:
        yield f"the session was opened at {created.revision}"
    if is_valid and ended is not None and ended.revision <= revision:
        yield f"the session ended at {ended.revision}"
    replaced = [event for event in facts.rolls.get(session, ()) if event.revision <= revision]
    if is_valid and any(event.generation > validated.epoch for event in replaced):
        yield f"the token was replaced at {replaced[-1].revision}"
    elif is_valid and validated.generation < facts.generation_at(session, revision):
        yield f"the session was at generation {facts.generation_at(session, revision)}"


def certain_answers(history: History, facts: Facts) -> Iterator[Violation]:
    """Find verdicts that nothing in the log explains."""
    opened: dict[str, float] = {}
    for operation in history.operations:
        if operation.kind is Kind.CREATE and operation.outcome is Outcome.OK and operation.applied:
            opened[operation.session] = operation.returned
    for validated in history.validations:
        verdict, session = validated.verdict, validated.session
        if not verdict:
            continue
        if verdict not in _POSSIBLE:
            yield Violation(Rule.PHANTOM, f"{_named(validated)} is {verdict}")
        elif verdict == "UNKNOWN" and validated.invoked > opened.get(session, inf):
            yield Violation(Rule.LOST, f"{_named(validated)} is unknown after it was opened")
        elif verdict == "REVOKED" and session not in facts.ended:
            yield Violation(Rule.LOST, f"{_named(validated)} is revoked, but the log has no end of the session")
        elif verdict == "VALID" and session not in facts.created:
            yield Violation(Rule.LOST, f"{_named(validated)} is valid, but the log has no {CREATED} of the session")
        elif verdict == "VALID" and validated.generation > facts.generation_at(session, _NEWEST):
            yield Violation(
                Rule.LOST, f"{_named(validated)} is at generation {validated.generation}, which the log does not have"
            )


_NEWEST = 2**63


def _named(validated: Validated) -> str:
    return f"session {validated.session}, validated by {validated.client} on replica {validated.replica},"
