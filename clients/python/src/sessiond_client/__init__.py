"""The typed client of sessiond, a session authority: `Client` for threads and `AsyncClient` for asyncio, with one API.

    with Client("127.0.0.1:7443", application="shop") as authority:
        created = authority.create(data={"cart": b"[]"})
        answer = authority.validate(created.token)

A bad token is a verdict in an answer, not an exception. A call that fails raises a `SessiondError`; treat it as a
denial. Tokens are `Token`s, which show their value only by `reveal()`. Session data is bytes; `json_data` converts JSON
values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str

    from sessiond_client import json_data
    from sessiond_client.aio import AsyncClient, AsyncEvents
    from sessiond_client.answers import (
        Authority,
        CallerKey,
        CallerRevoked,
        CallerUpdated,
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
        SealingKeyChanged,
        SignalReported,
        Validation,
    )
    from sessiond_client.backup import AsyncBackup, Backup
    from sessiond_client.enums import (
        CauseKind,
        DeviceType,
        EventType,
        NextStep,
        Reaction,
        RequirementKind,
        Role,
        SealingKeyState,
        SessionState,
        SignalType,
        Verdict,
    )
    from sessiond_client.errors import (
        WITHHELD,
        AlreadyExists,
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
    from sessiond_client.near_cache import NearCacheStats
    from sessiond_client.questions import NOT_REQUIRED, DataRequest, NotRequired, Question, Requirements
    from sessiond_client.settings import ClientOptions
    from sessiond_client.subscription import EventQuery
    from sessiond_client.sync import Client, Events
    from sessiond_client.tls import TlsFiles
    from sessiond_client.tokens import Token
    from sessiond_client.values import (
        Application,
        Authentication,
        BackupFacts,
        CallerCredential,
        CallerInfo,
        Cause,
        Checkpoint,
        ClientContext,
        ConcurrencyLimit,
        CookieDirectives,
        CookieRules,
        Device,
        Ending,
        Event,
        Grant,
        GuessLimits,
        KeyRing,
        Lifetimes,
        Policy,
        SealingKey,
        Session,
        SessionData,
        Signal,
        SourceLock,
        UnmetRequirement,
    )

__all__ = [
    "__version__",
    # The two clients
    "AsyncClient",
    "Client",
    "ClientOptions",
    "TlsFiles",
    "AsyncEvents",
    "Events",
    "EventQuery",
    "AsyncBackup",
    "Backup",
    "NearCacheStats",
    # Values
    "Token",
    "Application",
    "Authentication",
    "BackupFacts",
    "CallerCredential",
    "CallerInfo",
    "Cause",
    "Checkpoint",
    "ClientContext",
    "ConcurrencyLimit",
    "CookieDirectives",
    "CookieRules",
    "Device",
    "Ending",
    "Event",
    "Grant",
    "GuessLimits",
    "KeyRing",
    "Lifetimes",
    "Policy",
    "SealingKey",
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
    "CallerKey",
    "CallerRevoked",
    "CallerUpdated",
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
    "SealingKeyChanged",
    "SignalReported",
    "Validation",
    # Enumerations
    "CauseKind",
    "DeviceType",
    "EventType",
    "NextStep",
    "Reaction",
    "RequirementKind",
    "Role",
    "SealingKeyState",
    "SessionState",
    "SignalType",
    "Verdict",
    # Errors
    "SessiondError",
    "AlreadyExists",
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

_MODULES = {
    "aio": (
        "AsyncClient",
        "AsyncEvents",
    ),
    "answers": (
        "Authority",
        "CallerKey",
        "CallerRevoked",
        "CallerUpdated",
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
        "SealingKeyChanged",
        "SignalReported",
        "Validation",
    ),
    "backup": (
        "AsyncBackup",
        "Backup",
    ),
    "enums": (
        "CauseKind",
        "DeviceType",
        "EventType",
        "NextStep",
        "Reaction",
        "RequirementKind",
        "Role",
        "SealingKeyState",
        "SessionState",
        "SignalType",
        "Verdict",
    ),
    "errors": (
        "WITHHELD",
        "AlreadyExists",
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
        "SessiondError",
        "Unauthenticated",
        "Unavailable",
        "Violation",
        "WrongEventLoop",
    ),
    "json_data": ("NotJson",),
    "near_cache": ("NearCacheStats",),
    "questions": (
        "NOT_REQUIRED",
        "DataRequest",
        "NotRequired",
        "Question",
        "Requirements",
    ),
    "settings": ("ClientOptions",),
    "subscription": ("EventQuery",),
    "sync": (
        "Client",
        "Events",
    ),
    "tls": ("TlsFiles",),
    "tokens": ("Token",),
    "values": (
        "Application",
        "Authentication",
        "BackupFacts",
        "CallerCredential",
        "CallerInfo",
        "Cause",
        "Checkpoint",
        "ClientContext",
        "ConcurrencyLimit",
        "CookieDirectives",
        "CookieRules",
        "Device",
        "Ending",
        "Event",
        "Grant",
        "GuessLimits",
        "KeyRing",
        "Lifetimes",
        "Policy",
        "SealingKey",
        "Session",
        "SessionData",
        "Signal",
        "SourceLock",
        "UnmetRequirement",
    ),
}
"""The module of each name. It is imported when one of its names is first used, because importing all takes long."""

_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "__version__":
        return _version()
    if name in _MODULE_OF:
        value = getattr(import_module(f"sessiond_client.{_MODULE_OF[name]}"), name)
    elif name == "json_data":
        value = import_module("sessiond_client.json_data")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value  # later accesses skip this function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("sessiond-client")
    except PackageNotFoundError:  # running from a source tree that is not installed
        return "0+unknown"
