"""What follows from a history's log, found once for all rules."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from enum import StrEnum

from tests.consistency.history import History, Kind, LogEvent, Operation, Outcome

__all__ = ["AUTHENTICATED", "CREATED", "ENDS", "Facts", "REVOKED", "ROLLED", "Rule", "Violation"]

CREATED, AUTHENTICATED, ROLLED = "SESSION_CREATED", "SESSION_AUTHENTICATED", "SESSION_ROLLED"
REVOKED = "SESSION_REVOKED"
ENDS = (REVOKED, "SESSION_EXPIRED")


class Rule(StrEnum):
    """What a history must obey.

    AWAITED   after an awaited revocation has returned, no validation that begins anywhere is valid
    BOUND     a change that nobody waited for holds everywhere after the published bound
    AT_LEAST  a validation with the consistency token of a change sees it
    LIMIT     a subject never has more live sessions than the policy allows
    STREAM    a subscriber receives every event that matches its filter, once and in order
    LOST      what was acknowledged is in the log, once, and the answers agree with it
    PHANTOM   what failed for certain, or was never asked for, is not in the log
    ORDER     the log has changes in the order in which they were acknowledged
    ALIVE     a replica ends only if it is killed
    """

    AWAITED = "awaited"
    BOUND = "bound"
    AT_LEAST = "at_least"
    LIMIT = "limit"
    STREAM = "stream"
    LOST = "lost"
    PHANTOM = "phantom"
    ORDER = "order"
    ALIVE = "alive"


@dataclass(frozen=True, slots=True)
class Violation:
    """One breach of a rule."""

    rule: Rule
    text: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.text}"


class Facts:
    """The log by session and by operation.

    created, ended  the event that opened or ended each session
    rolls           the events that replaced each session's secret, oldest first
    of_session      all events of each session, oldest first
    caused          the events of each operation
    """

    def __init__(self, history: History) -> None:
        self.operations = {operation.number: operation for operation in history.operations}
        self.created: dict[str, LogEvent] = {}
        self.ended: dict[str, LogEvent] = {}
        self.rolls: defaultdict[str, list[LogEvent]] = defaultdict(list)
        self.of_session: defaultdict[str, list[LogEvent]] = defaultdict(list)
        self.caused: defaultdict[int, list[LogEvent]] = defaultdict(list)
        for event in history.log:
            if event.session:
                self.of_session[event.session].append(event)
            if event.operation is not None:
                self.caused[event.operation].append(event)
            if event.type == CREATED:
                self.created.setdefault(event.session, event)
            elif event.type == ROLLED:
                self.rolls[event.session].append(event)
            elif event.type in ENDS:
                self.ended.setdefault(event.session, event)

    def event_of(self, operation: Operation) -> LogEvent | None:
        """Return the event that shows an acknowledged change; None if the log has none, or it changed nothing.

        A change may be shown by the event of another operation: a session that was ended twice ended once.
        """
        if operation.outcome is not Outcome.OK or not operation.applied:
            return None
        match operation.kind:
            case Kind.CREATE:
                return self.created.get(operation.session)
            case Kind.REVOKE:
                return self.ended.get(operation.session)
            case Kind.LOGIN | Kind.ROLL:
                rolls = self.rolls.get(operation.session, ())
                return next((event for event in rolls if event.generation == operation.generation), None)

    def generation_at(self, session: str, revision: int) -> int:
        """Return the generation of a session at a revision of the log."""
        events = self.of_session.get(session, ())
        return max((event.generation for event in events if event.revision <= revision), default=0)
