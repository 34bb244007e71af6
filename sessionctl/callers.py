"""Commands about callers: the services, tools and people that may call the server."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from sessionctl.durations import checked_span
from sessionctl.failures import Group
from sessionctl.output import as_json, printable, show, show_note
from sessionctl.settings import global_options, settings
from sessionctl.tables import show_table, without_empty
from sessionctl.values import words
from sessionctl.views import CALLERS, caller_row

if TYPE_CHECKING:
    from sessiond_client import CallerInfo, CallerKey, Client, Grant

__all__ = ["callers"]

_ROLES = ("validator", "issuer", "subscriber", "operator", "admin")


@click.group(cls=Group, invoke_without_command=True)
@global_options
@click.pass_context
def callers(context: click.Context) -> None:
    """List the callers that may call the server.

    A caller is a service, a tool or a person. Without any caller, everyone who can connect may make every call. The
    first caller must be an admin for all applications: `sessionctl callers add ops --role admin`. From then on each
    call must authenticate as a caller, by a key, a certificate or a socket.
    """
    if context.invoked_subcommand is not None:
        return
    with settings().client() as client:
        found = client.list_callers()
    if settings().json:
        for caller in found:
            as_json(caller)
        return
    columns, rows = without_empty(CALLERS, list(map(caller_row, found)), "CERTIFICATES")
    if not show_table(columns, rows):
        show_note("no callers: everyone who can connect may make every call")


@callers.command("add")
@click.argument("name")
@click.option(
    "--role",
    "roles",
    metavar="ROLE[:APPLICATION]",
    shell_complete=words(_ROLES),
    multiple=True,
    required=True,
    help=f"One of {', '.join(_ROLES)}; for all applications unless one is named. Repeat for several.",
)
@click.option(
    "--certificate",
    "certificates",
    metavar="NAME",
    multiple=True,
    help="A URI, such as spiffe://example.org/shop, or DNS name that its client certificate must have. Repeat for "
    "several.",
)
@click.option(
    "--key/--no-key",
    "with_key",
    default=None,
    help="Whether to make a key. [default: only without --certificate]",
)
@click.option("--reason", default="", help="Why, for the event.")
@click.option("--key-only", is_flag=True, help="Make a key, and write only the key.")
@global_options
def add(
    name: str,
    roles: tuple[str, ...],
    certificates: tuple[str, ...],
    with_key: bool | None,
    reason: str,
    key_only: bool,
) -> None:
    """Add the caller NAME, and show its key. The key is not shown again.

    An application that opens and checks sessions needs `--role issuer:APP`. One that only checks them needs `--role
    validator:APP`. For a near cache, also give it `validator:APP`, and for live connections `subscriber:APP`.

    With --certificate the caller needs no key: over mutual TLS, a name in its certificate identifies it.
    """
    grants = [_grant(role) for role in roles]
    if key_only and with_key is False:
        raise click.UsageError("--key-only and --no-key exclude each other; leave one of them out.")
    makes_key = key_only or (not certificates if with_key is None else with_key)
    with settings().client() as client:
        unknown = _unknown_applications(client, grants)
        issued = client.create_caller(
            name, grants, certificate_names=certificates, without_key=not makes_key, reason=reason
        )
    if unknown:
        click.echo(f"note: {unknown}", err=True)
    _show_key(issued, "added", key_only)


@callers.command("rotate")
@click.argument("name")
@click.option(
    "--overlap",
    metavar="DURATION",
    callback=checked_span,
    help="How long the other keys remain valid, such as 24h. [default: not at all]",
)
@click.option("--reason", default="", help="Why, for the event.")
@click.option("--key-only", is_flag=True, help="Write only the key.")
@global_options
def rotate(name: str, overlap: timedelta | None, reason: str, key_only: bool) -> None:
    """Give the caller NAME a new key, and show it. The key is not shown again."""
    with settings().client() as client:
        issued = client.rotate_caller(name, overlap=overlap, reason=reason)
    _show_key(issued, "rotated", key_only)


@callers.command("certificates")
@click.argument("name")
@click.option("--add", "added", metavar="NAME", multiple=True, help="A URI or DNS name to add. Repeat for several.")
@click.option("--remove", "removed", metavar="NAME", multiple=True, help="A name to remove. Repeat for several.")
@click.option("--reason", default="", help="Why, for the event.")
@global_options
def certificates(name: str, added: tuple[str, ...], removed: tuple[str, ...], reason: str) -> None:
    """Change the names in client certificates that identify the caller NAME.

    Removed names are not accepted from then on. The caller's open streams end, and clients resume them.
    """
    if not added and not removed:
        raise click.UsageError("specify --add or --remove")
    with settings().client() as client:
        answer = client.update_caller_certificates(name, add=added, remove=removed, reason=reason)
    if settings().json:
        as_json(answer)
        return
    show(("changed", "green"), f": {printable(answer.caller.name)}")
    _show_certificates(answer.caller)


@callers.command("revoke")
@click.argument("name")
@click.option("--reason", default="", help="Why, for the event.")
@global_options
def revoke(name: str, reason: str) -> None:
    """Remove the caller NAME. Its calls are refused from then on, and its open streams end."""
    with settings().client() as client:
        answer = client.revoke_caller(name, reason=reason)
    if settings().json:
        as_json(answer)
    else:
        show(("revoked", "yellow"), f": {printable(name)}")


def _grant(text: str) -> Grant:
    """The role in `ROLE[:APPLICATION]`. Raises click.BadParameter."""
    from sessiond_client import Grant, Role

    role, colon, application = text.partition(":")
    if role not in _ROLES or (colon and not application):
        raise click.BadParameter(
            f"'{printable(text)}' is not a role; write one of {', '.join(_ROLES)}, as in `issuer:shop`",
            param_hint="'--role'",
        )
    return Grant(role=Role(role.upper()), application=application or "*")


def _unknown_applications(client: Client, grants: Sequence[Grant]) -> str:
    """The applications of roles that the server does not have, for a note; empty if it has all of them.

    It may get them, so that the roles are no error. Asked before the first caller is there: afterwards it takes a key.
    """
    from sessiond_client import SessiondError

    named = sorted({grant.application for grant in grants} - {"*"})
    if not named:
        return ""
    try:
        known = sorted(application.name for application in client.authority().applications)
    except SessiondError:
        return ""  # the note is not worth a failure
    missing = [name for name in named if name not in known]
    if not missing:
        return ""
    names = ", ".join(f"'{printable(name)}'" for name in missing)
    return f"no application {names} (configured: {', '.join(known)}); the role applies once there is one"


def _show_key(issued: CallerKey, done: str, key_only: bool) -> None:
    if key_only:
        click.echo(issued.key.reveal())
    elif settings().json:
        as_json(issued, key=issued.key.reveal())
    else:
        show((done, "green"), f": {printable(issued.caller.name)}")
        _show_certificates(issued.caller)
        if issued.key.reveal():
            show(("key", "bold"), f": {issued.key.reveal()}")
            show_note("The key is secret and not shown again: keep it in a file with mode 0600.")


def _show_certificates(caller: CallerInfo) -> None:
    for name in (credential.certificate_name for credential in caller.credentials):
        if name:
            show(("certificate", "bold"), f": {printable(name)}")
