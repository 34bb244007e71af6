"""A history: what clients did and saw, what subscribers received, and the log at the end. There is one clock."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path

__all__ = [
    "BOUND",
    "Delivery",
    "History",
    "Kind",
    "LogEvent",
    "Operation",
    "Outcome",
    "Stream",
    "Validated",
    "write",
]

BOUND = 5.0
"""Seconds after which a change holds everywhere, also if nobody waited for it (`RevocationWait` in the contract)."""


class Kind(StrEnum):
    """What an operation changes."""

    CREATE = "create"
    LOGIN = "login"
    ROLL = "roll"
    REVOKE = "revoke"


class Outcome(StrEnum):
    """What the client knows about an operation after it.

    OK       it was answered
    FAILED   it failed, and changed nothing for certain
    UNKNOWN  it failed, and may have been carried out, or may still be
    """

    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One change that a client asked for, with all attempts under one request id.

    number       identifies the operation; its events carry it
    replica      the replica that was asked last
    invoked      before the first attempt was sent
    returned     after the last attempt ended
    session      the session that it is about; empty for a `CREATE` that was not answered
    waits        for `REVOKE`: whether the client waited for all caches
    applied      whether the answer says that the change was made. For `REVOKE`: that the session has ended
    generation   of the session in the answer
    evicted      the sessions that ended to make room, as the answer says
    error        how it failed
    """

    number: int
    client: str
    replica: int
    kind: Kind
    invoked: float
    returned: float
    outcome: Outcome
    application: str = "default"
    subject: str = ""
    session: str = ""
    waits: bool = False
    applied: bool = False
    generation: int = 0
    evicted: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validated:
    """One validation.

    epoch       the generation of the session at which the presented token got its secret. A login or a roll begins a
                new epoch, and only a token of the newest one is valid
    at_least    the number of the operation whose consistency token was passed; None: any state
    verdict     empty if it was not answered
    generation  of the session in the answer
    """

    client: str
    replica: int
    invoked: float
    returned: float
    session: str
    epoch: int = 0
    at_least: int | None = None
    verdict: str = ""
    generation: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEvent:
    """One event. `operation` is the number of the operation that caused it; None if it was no operation of a client."""

    revision: int
    type: str
    application: str = "default"
    subject: str = ""
    session: str = ""
    generation: int = 0
    operation: int | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event, and when a subscriber received it, from which replica."""

    received: float
    event: LogEvent
    replica: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """What one subscriber received.

    start      the revision after which it began; None if it never began
    reached    the revision up to which it had received everything, as its last message says
    error      why it ended before its time
    """

    name: str
    start: int | None = None
    applications: frozenset[str] = frozenset()
    subjects: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()
    deliveries: tuple[Delivery, ...] = ()
    reached: int = 0
    error: str = ""

    def matches(self, event: LogEvent) -> bool:
        """Return whether its filter selects the event."""
        return (
            (not self.applications or event.application in self.applications)
            and (not self.subjects or event.subject in self.subjects)
            and (not self.types or event.type in self.types)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Everything that is checked.

    limits  the most live sessions of a subject, by application
    log     the table of events, read at the end
    deaths  replicas that ended without having been killed
    notes   what happened to the replicas, and when; for the reader only
    """

    operations: tuple[Operation, ...] = ()
    validations: tuple[Validated, ...] = ()
    streams: tuple[Stream, ...] = ()
    log: tuple[LogEvent, ...] = ()
    limits: Mapping[str, int] = field(default_factory=dict)
    deaths: tuple[str, ...] = ()
    bound: float = BOUND
    notes: tuple[tuple[float, str], ...] = ()


def write(history: History, file: Path) -> None:
    """Write a history as JSON, for the reader."""
    file.write_text(json.dumps(asdict(history), default=sorted), encoding="utf-8")
