"""What the audit log records: which calls, and the fixed fields of its lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, fields

from sessiond.domain.event import EventType
from sessiond.domain.immutable import immutable

__all__ = ["ACTIONS", "FIELDS", "NOT_AUDITED", "RELOAD", "Action", "AuditRecord", "Trail"]


@immutable
class Action:
    """How a call is audited.

    event   the event that records the change too, in the same transaction; None: the call changes nothing, or only
            what no event tells. Then its result is given out only if its line could be written
    counts  the field of the response whose entries are counted; empty: the service counts, if there is something
    begins  whether the call is a stream, whose line is written when it begins
    """

    event: EventType | None = None
    counts: str = ""
    begins: bool = False


ACTIONS: Mapping[str, Action] = {
    "CreateSession": Action(EventType.SESSION_CREATED),
    "AuthenticateSession": Action(EventType.SESSION_AUTHENTICATED),
    "RollSession": Action(EventType.SESSION_ROLLED),
    "RefreshSession": Action(EventType.SESSION_REFRESHED),
    "RevokeSession": Action(EventType.SESSION_REVOKED),
    "RevokeSessions": Action(EventType.SESSION_REVOKED),
    "GetSession": Action(),
    "ListSessions": Action(counts="sessions"),
    "GetSessionData": Action(),
    "UpdateSessionData": Action(EventType.SESSION_DATA_CHANGED),
    "IssueCompanionToken": Action(),
    "ListActivity": Action(counts="events"),
    "ReportSignal": Action(EventType.HIJACK_SUSPECTED),
    "ListSourceLocks": Action(counts="source_locks"),
    "ClearSourceLock": Action(EventType.SOURCE_UNLOCKED),
    "Subscribe": Action(begins=True),
    "Follow": Action(begins=True),
    "CreateCaller": Action(EventType.CALLER_CHANGED),
    "ListCallers": Action(counts="callers"),
    "RotateCaller": Action(EventType.CALLER_CHANGED),
    "RevokeCaller": Action(EventType.CALLER_CHANGED),
    "UpdateCallerCertificates": Action(EventType.CALLER_CHANGED),
    "GetKeyRing": Action(counts="keys"),
    "AddSealingKey": Action(EventType.KEY_RING_CHANGED),
    "PromoteSealingKey": Action(EventType.KEY_RING_CHANGED),
    "RetireSealingKey": Action(EventType.KEY_RING_CHANGED),
    "StreamBackup": Action(begins=True),
}
"""Each call that has a line if its caller may make it only as operator or admin."""

NOT_AUDITED: Mapping[str, str] = {
    "ValidateSession": "checks a token that its caller holds; too frequent",
    "ValidateSessions": "checks tokens that its caller holds; too frequent",
    "StreamValidations": "checks tokens that its caller holds; too frequent",
    "GetAuthority": "shows settings, and nobody's data",
    "Check": "decides about a request of a client with its token; too frequent",
}
"""The other calls of the contract, with the reasons."""

RELOAD = "Reload"
"""The action of a reload of the configuration, and of each policy that it changes."""


@immutable
class AuditRecord:
    """One line of the audit log. Every line has every field, in this order; a text is empty if nothing is known.

    actor       the name of the caller, as in events; `authority` for what the process did by itself
    credential  the public id of the key that was sent, as `key ID`, or `certificate SHA-256` of the fingerprint
    role        the role that allowed the call: `operator` or `admin`; `none` without any caller
    action      the call, or `Reload`
    application the application that the call is about; `*` for all of them
    target      what was changed or read
    peer        the address of the caller's connection, as the transport gives it
    client_ip, client_agent  the address and user agent of the client context, if the call has one
    reason      the caller's reason, in its own words
    before, after  what was, and what is now
    count       how many sessions, events, locks, callers or keys were changed or read; calls, if lines were left out
    outcome     `OK`, `REPEATED` (a retry got the first response, and nothing was changed), `STARTED` (a stream),
                `CANCELLED` (the server stopped before it was known), or the code of the error
    request     the beginning of SHA-256 of the request id, which is itself a secret
    call        the id of the call, which its errors and other log lines have too; empty if there was no call

    Text that a caller chose is hidden from `repr`: somebody may have put a token there. `Audit` hides that in the line.
    """

    actor: str = ""
    credential: str = ""
    role: str = ""
    action: str = ""
    application: str = field(default="", repr=False)
    target: str = field(default="", repr=False)
    peer: str = ""
    client_ip: str = field(default="", repr=False)
    client_agent: str = field(default="", repr=False)
    reason: str = field(default="", repr=False)
    before: str = field(default="", repr=False)
    after: str = field(default="", repr=False)
    count: int = 0
    outcome: str = "OK"
    request: str = ""
    call: str = ""


_NAMES = {"peer": "from", "request": "request_id", "call": "call_id"}
FIELDS: Mapping[str, str] = {one.name: _NAMES.get(one.name, one.name) for one in fields(AuditRecord)}
"""The name in a line of each field of a record. Before them a line has `log`, which is `audit`, and `time`."""


class Trail:
    """What a call says about its change while it is carried out, for its line. Not for decisions.

    `is_repeat`: the call was a retry, which got the first response and changed nothing.
    """

    def __init__(self) -> None:
        self.before = ""
        self.after = ""
        self.count = 0
        self.is_repeat = False

    def note(self, before: str = "", after: str = "", count: int = 0) -> None:
        """Say what was before, what is now, and how many."""
        self.before, self.after, self.count = before, after, count
