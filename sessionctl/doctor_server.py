"""Checks that ask a running server, and the sockets that it should be listening on."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from sessionctl.doctor_folder import key_age
from sessionctl.exits import Exit
from sessionctl.findings import Finding, State, ok, problem, warning
from sessionctl.refusals import explained
from sessionctl.settings import Settings
from sessionctl.targets import socket_path
from sessiond import __version__
from sessiond.config import Config
from sessiond_client import Authority, CallerInfo, Client, PermissionDenied, SessiondError, Unauthenticated
from sessiond_client.targets import is_local

__all__ = ["check_server", "check_sidecars", "check_sockets"]

_PATIENCE = 15.0
_SKEW = timedelta(seconds=2)
_MOST_APPLICATIONS = 20
_ADMIN = "use --key-file with the key of an admin for all applications"


def check_server(
    asked: Settings, listen: str, now: datetime, *, runs_here: bool, may_be_stopped: bool
) -> Iterator[Finding]:
    """What a server says of itself, its callers, its keys and its replicas.

    `listen`: the address in its configuration; empty: not known. `may_be_stopped`: it is no problem if a server on this
    machine does not answer.
    """
    with asked.client() as client:
        try:
            authority = client.authority()
        except SessiondError as error:
            found = _unanswered(error, asked)
            is_stopped = may_be_stopped and found.state is State.PROBLEM and is_local(asked.target)
            text = f"nothing answers at {asked.target}, so only this machine was looked at"
            yield ok("server", text) if is_stopped else found
            return
        text = f"version {authority.version} answers at {asked.target}, at revision {authority.revision:,}"
        if authority.version == __version__:
            yield ok("server", text)
        else:
            yield warning("server", f"{text}, and this is version {__version__}", "restart what has the older version")
        for name in authority.replicas_with_other_policies:
            yield problem(
                "replicas",
                f"the policies of {name} differ from those of {asked.target}",
                "give both the same configuration, and run `sessionctl reload` on both machines",
            )
        if not runs_here:
            yield from _skew(asked, authority, now)
        try:
            yield from _callers(client.list_callers(), listen or asked.target)
            yield from _key_ring(client, now)
        except (PermissionDenied, Unauthenticated):
            yield warning("callers", "callers and keys were not checked: this caller is no admin", _ADMIN)
        except SessiondError as error:
            yield _unanswered(error, asked)


def _unanswered(error: SessiondError, asked: Settings) -> Finding:
    failure = explained(error, asked)
    text = error.message if failure is None else failure.message
    fact, _, remedy = text.partition("; ")
    if failure is None or failure.exit_code == Exit.UNREACHABLE:
        return problem("server", fact, remedy or "look at the server's log")
    return warning("server", fact, remedy or _ADMIN)


def _skew(asked: Settings, authority: Authority, now: datetime) -> Iterator[Finding]:
    """How far the server's clock is at least ahead of ours. Only sessions show its time."""
    newest = now
    for application in authority.applications[:_MOST_APPLICATIONS]:
        try:
            with replace(asked, application=application.name).client() as client:
                found = next(iter(client.list(page_size=1)), None)
        except SessiondError:
            return  # such as without the role operator
        if found is not None:
            newest = max(newest, found.create_time)
    if newest - now > _SKEW:
        ahead = (newest - now) / timedelta(seconds=1)
        yield warning(
            "clock",
            f"the server's clock is at least {ahead:.0f} s ahead of the clock of this machine",
            "synchronize both with NTP",
        )


def _callers(callers: Sequence[CallerInfo], listen: str) -> Iterator[Finding]:
    if not callers:
        text = f"there are none, so that everyone who can connect to {listen} may make every call"
        remedy = "run: sessionctl callers add ops --role admin (docs/how-to/add-callers.md)"
        yield warning("callers", text, remedy) if is_local(listen) else problem("callers", text, remedy)
        return
    admins = sum(any(grant.role == "ADMIN" for grant in caller.grants) for caller in callers)
    yield ok("callers", f"{len(callers)}, {admins} of them with the role admin")


def _key_ring(client: Client, now: datetime) -> Iterator[Finding]:
    ring = client.key_ring(timeout=_PATIENCE)
    for key in ring.keys:
        if key.lacking_replicas:
            names = ", ".join(key.lacking_replicas)
            yield problem(
                "keys",
                f"the key {key.fingerprint[:8]} is not held by {names}",
                "see `sessionctl keyring status`, and the log of that replica",
            )
        if key.state == "SEALING":
            yield from key_age(key.state_time, now)
    if ring.encrypts_data and ring.plain_values:
        yield warning(
            "keys",
            f"{ring.plain_values:,} values of session data are not encrypted, from before server.encrypt_data was set",
            "they are encrypted when they are next written; nothing else is needed",
        )


def check_sidecars(asked: Settings, addresses: Sequence[str]) -> Iterator[Finding]:
    """Whether sidecars answer, and whether other users may connect to their sockets."""
    for address in addresses:
        target = replace(asked, target=address, target_from="--sidecar")
        path = socket_path(address)
        if path and os.path.exists(path) and stat.S_IMODE(os.stat(path).st_mode) & 0o007:
            yield problem("sidecar", f"other users may connect to {address}", f"run: chmod 660 {path}")
        try:
            with target.client() as client:
                version = client.authority().version
        except SessiondError as error:
            found = _unanswered(error, target)
            yield replace(found, check="sidecar", text=f"{address}: {found.text}")
        else:
            yield ok("sidecar", f"{address} answers, for an authority of version {version}")


def check_sockets(config: Config, *, running: bool) -> Iterator[Finding]:
    """The Unix sockets in the configuration: who may connect, and whether anybody listens."""
    named = [("server.listen", config.listen, config.socket_mode)]
    named += [("server.http_listen", config.http_listen, config.socket_mode)]
    named += [("server.metrics_listen", config.metrics_listen, config.socket_mode)]
    named += [(f"sockets.{one.caller}", f"unix:{one.path}", one.mode) for one in config.sockets]
    for key, address, mode in named:
        if path := socket_path(address):
            yield from _socket(key, Path(path), mode, running=running)


def _socket(key: str, path: Path, mode: int, *, running: bool) -> Iterator[Finding]:
    try:
        folder = path.parent.stat()
    except OSError as error:
        yield problem("sockets", f"{key}: the folder {path.parent}: {error.strerror}", "create it, or correct the path")
        return
    if folder.st_mode & 0o002 and not folder.st_mode & stat.S_ISVTX:
        yield problem(
            "sockets",
            f"{key}: other users can write to {path.parent}, and put a socket of their own in place of {path.name}",
            f"run: chmod o-w {path.parent}",
        )
    if not running:
        return
    try:
        found = path.stat()
    except OSError as error:
        yield problem("sockets", f"{key}: {path}: {error.strerror}", "restart the server, which creates it")
        return
    if stat.S_IMODE(found.st_mode) & 0o777 & ~mode:
        yield problem(
            "sockets",
            f"{key}: {path} has mode {stat.S_IMODE(found.st_mode):04o} instead of {mode:04o}",
            f"run: chmod {mode:o} {path}",
        )
    yield _connected(key, path)


def _connected(key: str, path: Path) -> Finding:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except PermissionError:
            return warning("sockets", f"{key}: this user may not connect to {path}", "run this as the server's user")
        except OSError as error:
            return problem("sockets", f"{key}: nobody answers at {path} ({error.strerror})", "restart the server")
    return ok("sockets", f"{key}: {path} accepts connections")
