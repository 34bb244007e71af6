"""What the server or the connection refused, as one line for people. Imported only if a call failed: it needs gRPC."""

from __future__ import annotations

from collections.abc import Sequence

import click

from sessionctl.applications import unknown_application
from sessionctl.connecting import KEY_VARIABLE
from sessionctl.exits import Exit
from sessionctl.failures import Failure
from sessionctl.settings import Settings, settings
from sessionctl.unreachable import unreachable
from sessiond_client import (
    AlreadyExists,
    Conflict,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    NotServed,
    OutOfRange,
    SessiondError,
    Unauthenticated,
    Unavailable,
    Violation,
)

__all__ = ["explained"]

_OPTIONS = {
    "application": "--application",
    "filter.applications": "--application",
    "subject": "--subject",
    "filter.subject": "--subject",
    "filter.subjects": "--subject",
    "labels": "--label",
    "filter.labels": "--label",
    "filter.types": "--type",
    "filter.ip_network": "--network",
    "ip_network": "--network",
    "cursor": "--after",
    "reason": "--reason",
    "client.ip_address": "--ip",
    "client.user_agent": "--user-agent",
    "client.device_id": "--device-id",
    "authentication.level": "--level",
    "authentication.methods": "--method",
    "expected_version": "--expected-version",
    "session_id": "SESSION_ID",
    "except_session_id": "--except",
    "source": "SOURCE",
    "fingerprint": "FINGERPRINT",
    "name": "NAME",
    "grants": "--role",
    "certificate_names": "--certificate",
    "add": "--add",
    "remove": "--remove",
}
"""What an operator wrote for each field of a request."""

_TEXTS = {
    "--after": "invalid cursor; use the `cursor` of a line of `sessionctl watch -o json`",
    "SOURCE": "not a network; write it as `sessionctl locks` shows it",
}
"""Our own texts where the server's text means little to an operator."""


def explained(error: Exception, asked: Settings | None = None) -> Failure | None:
    """The failure for an exception of the client; None for any other exception. Holds no token: no exception does.

    `asked` describes the server that was called; None: the one that the command line names.
    """
    if not isinstance(error, SessiondError):
        return None
    asked = asked or settings()
    code = Exit.FAILED
    match error:
        case InvalidArgument(violations=[_, *_]):
            code = Exit.USAGE
            text = _refused(error.violations, asked)
        case InvalidArgument():
            code, text = Exit.USAGE, error.message
        case Unavailable():
            code, text = Exit.UNREACHABLE, unreachable(error.message, asked)
        case DeadlineExceeded():
            code = Exit.UNREACHABLE
            text = (
                f"no answer from {asked.target} within {asked.timeout:g} s; raise --timeout, and check that --target"
                " is a sessiond server"
            )
        case NotServed():
            code = Exit.UNREACHABLE
            text = f"{asked.target} does not serve this call; it is another version of sessiond, or no sessiond server"
        case NotFound():
            text = _missing(error.message, asked)
        case Unauthenticated():
            text = _unproven(error.message, asked)
        case OutOfRange():
            code = Exit.USAGE
            text = f"--after: {_said(error.message)}; start with --earliest, or without --after"
        case AlreadyExists() | Conflict() | FailedPrecondition():
            text = _as_typed(error.message)  # the server's own text has the remedy
        case _:
            text = f"{error.message} ({error.status})"
    return Failure(" ".join(text.split()), code)


def _missing(said: str, asked: Settings) -> str:
    """What the server did not find, with the name that the operator wrote, and the remedy."""
    context = click.get_current_context(silent=True)
    given = context.params if context is not None else {}
    match said.partition(":")[0]:
        case "session_id" if name := given.get("session_id") or given.get("named"):
            found = f"no session {name}"
        case "source" if name := given.get("source"):
            found = f"'{name}' is not locked"
        case "name" if name := given.get("name"):
            return f"no caller '{name}'; see `sessionctl callers`"
        case "fingerprint":
            return _said(said)
        case _:
            found = f"not found ({said})"
    return f"{found} in application '{_application(asked)}'; choose another with --application"


def _unproven(said: str, asked: Settings) -> str:
    """Why the server does not know who is calling. Its own text is for those who write clients."""
    if said.startswith("no credentials"):
        more = said.partition("; ")[2]
        return f"{asked.target} requires a key; use --key-file or {KEY_VARIABLE}{more and f' ({more})'}"
    if "unknown or revoked" in said and asked.key_file:
        return f"unknown or revoked key in {asked.key_file}; ask an admin for a new one (sessionctl callers rotate)"
    return said


def _as_typed(message: str) -> str:
    """A message of the server with the options and arguments of the command line in place of the contract's fields."""
    field, colon, rest = message.partition(": ")
    typed = f"{_OPTIONS[field]}: {rest}" if colon and field in _OPTIONS else message
    return typed.replace("log_out_sessions", "--log-out-sessions").removeprefix("NAME: ")


def _refused(violations: Sequence[Violation], asked: Settings) -> str:
    if any(_option(item.field) == "--application" for item in violations):
        try:
            with asked.client() as client:
                names = [application.name for application in client.authority().applications]
        except SessiondError:
            pass  # the server's own text has to do
        else:
            return unknown_application(_application(asked), names).message
    return "; ".join(_violation_text(item) for item in violations)


def _violation_text(item: Violation) -> str:
    option = _option(item.field)
    return f"{option}: {_TEXTS.get(option) or item.description}"


def _option(field: str) -> str:
    """What the operator wrote for a field, whose path may end in a key or an index."""
    return _OPTIONS.get(field) or _OPTIONS.get(field.partition("[")[0], field)


def _application(asked: Settings) -> str:
    return asked.application or "default"


def _said(message: str) -> str:
    """A message without the field in front of it."""
    field, colon, rest = message.partition(": ")
    return rest if colon and field in _OPTIONS else message
