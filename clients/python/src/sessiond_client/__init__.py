"""A typed client of sessiond, a session authority: `AsyncClient` for asyncio, `Client` for threads, one surface.

    with Client("127.0.0.1:7443", application="shop") as authority:
        created = authority.create(data={"cart": b"[]"})
        answer = authority.validate(created.token)

A bad token is a verdict in an answer. Exceptions (`SessiondError`) are for calls that failed; treat each as a denial.
Tokens are `Token`s, which show their value only when asked. Session data is bytes; `json_data` turns values into them.
"""

from sessiond_client import json_data
from sessiond_client.aio import AsyncClient, AsyncEvents
from sessiond_client.answers import (
    Authority,
    CompanionIssued,
    Created,
    Data,
    DataUpdated,
    Found,
    LockCleared,
    Page,
    Refreshed,
    Revoked,
    RevokedAll,
    Rolled,
    SignalReported,
    Validation,
)
from sessiond_client.enums import (
    CauseKind,
    DeviceType,
    EventType,
    NextStep,
    Reaction,
    RequirementKind,
    SessionState,
    SignalType,
    Verdict,
)
from sessiond_client.errors import (
    WITHHELD,
    Cancelled,
    ClientClosed,
    ClientForked,
    ClientUnusable,
    ConcurrencyLimitReached,
    Conflict,
    DeadlineExceeded,
    FailedPrecondition,
    InternalError,
    InvalidArgument,
    NotFound,
    NotServed,
    OutOfRange,
    PermissionDenied,
    ResourceExhausted,
    SessiondError,
    Unauthenticated,
    Unavailable,
    Violation,
    WrongEventLoop,
)
from sessiond_client.json_data import NotJson
from sessiond_client.questions import NOT_REQUIRED, DataRequest, NotRequired, Question, Requirements
from sessiond_client.settings import ClientOptions
from sessiond_client.subscription import EventQuery
from sessiond_client.sync import Client, Events
from sessiond_client.tokens import Token
from sessiond_client.values import (
    Application,
    Authentication,
    Cause,
    Checkpoint,
    ClientContext,
    ConcurrencyLimit,
    CookieDirectives,
    CookieRules,
    Device,
    Ending,
    Event,
    GuessLimits,
    Lifetimes,
    Policy,
    Session,
    SessionData,
    Signal,
    SourceLock,
    UnmetRequirement,
)

__all__ = [
    # The two clients
    "AsyncClient",
    "Client",
    "ClientOptions",
    "AsyncEvents",
    "Events",
    "EventQuery",
    # Things
    "Token",
    "Application",
    "Authentication",
    "Cause",
    "Checkpoint",
    "ClientContext",
    "ConcurrencyLimit",
    "CookieDirectives",
    "CookieRules",
    "Device",
    "Ending",
    "Event",
    "GuessLimits",
    "Lifetimes",
    "Policy",
    "Session",
    "SessionData",
    "Signal",
    "SourceLock",
    "UnmetRequirement",
    # Session data as JSON
    "json_data",
    "NotJson",
    # Questions
    "DataRequest",
    "NOT_REQUIRED",
    "NotRequired",
    "Question",
    "Requirements",
    # Answers
    "Authority",
    "CompanionIssued",
    "Created",
    "Data",
    "DataUpdated",
    "Found",
    "LockCleared",
    "Page",
    "Refreshed",
    "Revoked",
    "RevokedAll",
    "Rolled",
    "SignalReported",
    "Validation",
    # Words
    "CauseKind",
    "DeviceType",
    "EventType",
    "NextStep",
    "Reaction",
    "RequirementKind",
    "SessionState",
    "SignalType",
    "Verdict",
    # Errors
    "SessiondError",
    "Cancelled",
    "ClientClosed",
    "ClientForked",
    "ClientUnusable",
    "ConcurrencyLimitReached",
    "Conflict",
    "DeadlineExceeded",
    "FailedPrecondition",
    "InternalError",
    "InvalidArgument",
    "NotFound",
    "NotServed",
    "OutOfRange",
    "PermissionDenied",
    "ResourceExhausted",
    "Unauthenticated",
    "Unavailable",
    "Violation",
    "WITHHELD",
    "WrongEventLoop",
]
