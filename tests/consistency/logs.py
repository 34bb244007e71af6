"""The rules about the log: it has what was acknowledged, nothing else, in order, within limits; subscribers agree."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise
from math import inf

from tests.consistency.facts import AUTHENTICATED, CREATED, ENDS, REVOKED, ROLLED, Facts, Rule, Violation
from tests.consistency.history import History, Kind, LogEvent, Operation, Outcome, Stream

__all__ = ["acknowledged", "caused", "in_order", "limits_by_answers", "limits_by_log", "streams"]

_CHANGES = {
    CREATED: (Kind.CREATE,),
    AUTHENTICATED: (Kind.LOGIN,),
    ROLLED: (Kind.LOGIN, Kind.ROLL),
    REVOKED: (Kind.REVOKE,),
}
"""The operations that may cause an event of each type."""


def acknowledged(history: History, facts: Facts) -> Iterator[Violation]:
    """Find acknowledged changes without an event, and gaps of the log."""
    for number, event in enumerate(history.log, 1):
        if event.revision != number:
            yield Violation(Rule.LOST, f"the log has revision {event.revision} where {number} was expected")
            break
    for operation in history.operations:
        if operation.outcome is not Outcome.OK:
            continue
        if operation.applied and facts.event_of(operation) is None:
            yield Violation(Rule.LOST, f"{_named(operation)} was acknowledged, but the log has no event of it")
        for session in operation.evicted:
            if session not in facts.ended:
                yield Violation(Rule.LOST, f"{_named(operation)} ended session {session}, but the log does not know")


def caused(history: History, facts: Facts) -> Iterator[Violation]:
    """Find events that no operation explains, and operations that were carried out twice."""
    counts: Counter[tuple[str, str, int]] = Counter()
    for event in history.log:
        if event.type in (*ENDS, CREATED):
            counts[event.type, event.session, 0] += 1
        elif event.type == ROLLED:
            counts[event.type, event.session, event.generation] += 1
        if event.type not in _CHANGES:
            continue
        if event.operation is None:
            if event.type != REVOKED:  # a limit may have ended it
                yield Violation(Rule.PHANTOM, f"{_event(event)} is the work of no operation")
            continue
        operation = facts.operations.get(event.operation)
        if operation is None or operation.kind not in _CHANGES[event.type]:
            yield Violation(Rule.PHANTOM, f"{_event(event)} is said to be the work of operation {event.operation}")
        elif _changed_nothing(operation, event, facts):
            yield Violation(Rule.PHANTOM, f"{_event(event)}, but {_named(operation)} is said to have changed nothing")
        elif operation.session and operation.session != event.session:
            yield Violation(Rule.PHANTOM, f"{_event(event)} is the work of {_named(operation)}")
    for (kind, session, generation), count in counts.items():
        if count > 1:
            yield Violation(Rule.LOST, f"the log has {count} events {kind} of session {session} at {generation}")
    for number, events in facts.caused.items():
        for kind, count in Counter(event.type for event in events if event.type in _CHANGES).items():
            if count > 1:
                yield Violation(Rule.PHANTOM, f"operation {number} was carried out {count} times: {kind}")


def _changed_nothing(operation: Operation, event: LogEvent, facts: Facts) -> bool:
    """Return whether the client was told that its operation changed nothing, although the log has its event.

    A call that is repeated gets its first answer only while the session lives. If the session has ended since, the
    answer to the repetition says that, and says nothing about the first attempt.
    """
    if operation.outcome is Outcome.FAILED:
        return True
    end = facts.ended.get(event.session)
    ended_since = operation.kind is not Kind.CREATE and end is not None and end.revision > event.revision
    return operation.outcome is Outcome.OK and not operation.applied and not ended_since


def in_order(history: History, facts: Facts) -> Iterator[Violation]:
    """Find changes that the log has before a change that was acknowledged before they were asked for."""
    points: list[tuple[float, int, int, Operation]] = []
    for operation in history.operations:
        event = facts.event_of(operation)
        if event is not None and event.operation == operation.number:
            points += [(operation.invoked, 0, event.revision, operation)]
            points += [(operation.returned, 1, event.revision, operation)]
    newest, before = 0, None
    for _, is_return, revision, operation in sorted(points, key=lambda point: point[:2]):
        if is_return:
            newest, before = max((newest, before), (revision, operation), key=lambda pair: pair[0])
        elif revision < newest and before is not None:
            yield Violation(
                Rule.ORDER, f"{_named(operation)} is at {revision}, before {_named(before)}, which had returned"
            )


def limits_by_log(history: History, facts: Facts) -> Iterator[Violation]:
    """Find revisions at which the log gives a subject too many live sessions."""
    del facts
    live: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    bound_to: dict[str, tuple[str, str]] = {}
    for event in history.log:
        if event.type in (CREATED, AUTHENTICATED) and event.subject:
            bound_to[event.session] = subject = (event.application, event.subject)
            live[subject].add(event.session)
            most = history.limits.get(event.application, 0)
            if most and len(live[subject]) > most:
                text = f"at revision {event.revision} {event.subject} has {len(live[subject])} live sessions"
                yield Violation(Rule.LIMIT, f"{text} of at most {most} in {event.application}")
        elif event.type in ENDS and event.session in bound_to:
            live[bound_to[event.session]].discard(event.session)


def limits_by_answers(history: History, facts: Facts) -> Iterator[Violation]:
    """Find times at which a subject has too many acknowledged sessions that nothing can have ended yet."""
    evicted_by: dict[str, float] = {}
    unknown: defaultdict[tuple[str, str], float] = defaultdict(lambda: inf)
    for operation in history.operations:
        for session in operation.evicted:
            evicted_by[session] = min(evicted_by.get(session, inf), operation.invoked)
        if operation.outcome is Outcome.UNKNOWN and operation.kind in (Kind.CREATE, Kind.LOGIN):
            subject = operation.application, operation.subject
            unknown[subject] = min(unknown[subject], operation.invoked)
    bound: dict[str, Operation] = {}  # a session may log in again, and then counts once
    for operation in history.operations:
        if operation.kind in (Kind.CREATE, Kind.LOGIN) and operation.applied and operation.subject:
            known = bound.setdefault(operation.session, operation)
            bound[operation.session] = min(known, operation, key=lambda one: one.returned)
    changes: defaultdict[tuple[str, str], list[tuple[float, int]]] = defaultdict(list)
    for session, operation in bound.items():
        subject, until = (operation.application, operation.subject), inf
        end = facts.ended.get(session)
        if end is not None and end.operation in facts.operations:
            until = facts.operations[end.operation].invoked
        elif end is not None:
            until = evicted_by.get(session, unknown[subject])
        if until > operation.returned:
            changes[subject] += [(operation.returned, 1), (until, -1)]
    for (application, name), points in changes.items():
        most, count = history.limits.get(application, 0), 0
        for when, change in sorted(points):
            count += change
            if most and count > most:
                text = f"at {when:.3f} {name} has {count} acknowledged live sessions of at most {most}"
                yield Violation(Rule.LIMIT, f"{text} in {application}")


def streams(history: History, facts: Facts) -> Iterator[Violation]:
    """Find subscribers that did not receive exactly the events of the log that match their filter."""
    for stream in history.streams:
        for text in _faults_of(stream, history, facts):
            yield Violation(Rule.STREAM, f"subscriber {stream.name}: {text}")


def _faults_of(stream: Stream, history: History, facts: Facts) -> Iterator[str]:
    if stream.error:
        yield f"ended after revision {stream.reached}: {stream.error}"
    if stream.start is None:
        return
    received = [delivery.event for delivery in stream.deliveries]
    revisions = [event.revision for event in received]
    for before, after in pairwise(stream.deliveries):
        if after.event.revision <= before.event.revision:
            yield f"received {after.event.revision} from replica {after.replica} after {before.event.revision}"
    wanted = [event for event in history.log if stream.start < event.revision <= stream.reached]
    expected = {event.revision: event for event in wanted if stream.matches(event)}
    for event in received:
        if expected.get(event.revision) != event:
            yield f"received {_event(event)}, but the log has {_known(history, event.revision)}"
    for revision in sorted(expected.keys() - set(revisions)):
        yield f"did not receive {_event(expected[revision])}"
    for delivery in stream.deliveries:
        cause = facts.operations.get(delivery.event.operation or 0)
        if cause is not None and delivery.received < cause.invoked:
            yield f"received {_event(delivery.event)} before its operation began"


def _known(history: History, revision: int) -> str:
    known = history.log[revision - 1 : revision]
    return _event(known[0]) if known else "nothing there"


def _event(event: LogEvent) -> str:
    return f"{event.type} of session {event.session or '-'} at revision {event.revision}"


def _named(operation: Operation) -> str:
    session = f" of session {operation.session}" if operation.session else ""
    return f"operation {operation.number}, {operation.kind}{session} by {operation.client} on {operation.replica},"
