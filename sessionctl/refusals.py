"""What the server or the connection refused, as one line for people. Imported only if a call failed: it needs gRPC."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from sessionctl.applications import unknown_application
from sessionctl.exits import Exit
from sessionctl.failures import Failure
from sessionctl.settings import Settings, settings
from sessionctl.targets import socket_path
from sessiond_client import (
    Conflict,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    NotServed,
    OutOfRange,
    SessiondError,
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
}
"""What an operator wrote for each field of a request."""

_TEXTS = {
    "--after": "invalid cursor; use the `cursor` of a line of `sessionctl watch -o json`",
    "SOURCE": "not a network; write it as `sessionctl locks` shows it",
}
"""Our own texts where the server's text means little to an operator."""


_NO_SERVER = ("HTTP/2", "http1", "Socket closed", "SETTINGS", "Connection reset")
"""What gRPC says of a connection that ended before it was one."""


def explained(error: Exception) -> Failure | None:
    """The failure for an exception of the client; None for any other exception. Holds no token: no exception does."""
    if not isinstance(error, SessiondError):
        return None
    asked = settings()
    code = Exit.FAILED
    match error:
        case InvalidArgument(violations=[_, *_]):
            code = Exit.USAGE
            text = _refused(error.violations, asked)
        case InvalidArgument():
            code, text = Exit.USAGE, error.message
        case Unavailable():
            code, text = Exit.UNREACHABLE, _unreachable(error.message, asked)
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
            text = (
                f"{_missing(error.message)} in application '{_application(asked)}'; choose another with --application"
            )
        case OutOfRange():
            code = Exit.USAGE
            text = f"--after: {_said(error.message)}; start with --earliest, or without --after"
        case Conflict() | FailedPrecondition():
            text = error.message  # the server's own text names the field and the remedy
        case _:
            text = f"{error.message} ({error.status})"
    return Failure(" ".join(text.split()), code)


def _missing(said: str) -> str:
    """What the server did not find, with the name that the operator wrote."""
    context = click.get_current_context(silent=True)
    given = context.params if context is not None else {}
    match said.partition(":")[0]:
        case "session_id" if name := given.get("session_id") or given.get("named"):
            return f"no session {name}"
        case "source" if name := given.get("source"):
            return f"'{name}' is not locked"
        case _:
            return f"not found ({said})"


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


def _unreachable(said: str, asked: Settings) -> str:
    """Why there is no connection. gRPC has one status for all of this, and says the reason in its message only."""
    target, socket = asked.target, socket_path(asked.target)
    other = f"or name another server with {asked.target_from}"
    if socket and not Path(socket).exists():
        return f"there is no socket {socket}; start the server with `sessiond serve --listen {target}`, {other}"
    if "Permission denied" in said:
        return f"no permission to use {socket or target}; run this as the server's user or as a member of its group"
    if "Connection refused" in said:
        return f"nothing listens at {target}; start the server with `sessiond serve --listen {target}`, {other}"
    if "resolving" in said or "DNS" in said:
        return f"the host of {target} is not known; check the name, {other}"
    if (problem := _tls_problem(said, asked)) is not None:
        return problem
    if any(sign in said for sign in _NO_SERVER):
        return f"{target} is not a sessiond server, or it expects TLS; check the port, add --tls or --tls-ca, {other}"
    return f"no server can be reached at {target}: {said}; start it, {other}"


def _tls_problem(said: str, asked: Settings) -> str | None:
    """Why TLS did not work; None if that was not the reason."""
    target, ca = asked.target, asked.files.get("tls_ca")
    if "WRONG_VERSION_NUMBER" in said:
        source = next(iter(asked.files_from.values()), "--tls")
        return f"{target} does not serve TLS; check the port, or leave out the files for TLS ({source})"
    if "Hostname Verification Check failed" in said:
        host = target.rpartition(":")[0]
        named = f"name the server in {asked.target_from} as it is named there"
        return f"the certificate of {target} is not for '{host}'; {named}"
    if "certificate has expired" in said:
        return f"the certificate of {target} has expired; replace it on the server"
    if "certificate is not yet valid" in said:
        return f"the certificate of {target} is not valid yet; compare the clocks of both machines"
    if "CERTIFICATE_VERIFY_FAILED" in said:
        trusted = f"an authority in {ca}" if ca else "a public authority"
        return f"the certificate of {target} is not signed by {trusted}; name the file of its authority with --tls-ca"
    if asked.tls and any(sign in said for sign in _NO_SERVER):
        shown = asked.files.get("tls_certificate")
        which = f"another certificate than {shown}" if shown else "a certificate of the client"
        return f"{target} closed the connection; it may require {which}; name one with --tls-certificate and --tls-key"
    return None
