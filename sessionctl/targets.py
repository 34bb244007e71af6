"""The address of a server, as the option `--target` takes it."""

from __future__ import annotations

import re

import click

__all__ = ["checked_target", "socket_path"]

_FORMS = "write HOST:PORT or unix:/path"
_HOST_AND_PORT = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]]+):(\d{1,5})")
_LONGEST_PORT = 65_535


def checked_target(target: str, source: str) -> str:
    """The target if its form is right. Raises click.UsageError that names `source`, the option or variable."""
    if target.startswith("unix:"):
        if socket_path(target):
            return target
        raise click.UsageError(f"{source}: '{target}' has no path; {_FORMS}")
    if "://" in target:
        bare = target.partition("://")[2].rstrip("/")
        raise click.UsageError(f"{source}: '{target}' is a URL; write it as HOST:PORT, such as '{bare}'")
    found = _HOST_AND_PORT.fullmatch(target)
    if found and target.isprintable() and 0 < int(found[1]) <= _LONGEST_PORT:
        return target
    if found and target.isprintable():
        raise click.UsageError(f"{source}: '{target}' has no valid port; a port is a number from 1 to {_LONGEST_PORT}")
    if ":" not in target:
        raise click.UsageError(f"{source}: '{target}' has no port; {_FORMS}, such as '{target}:7443'")
    raise click.UsageError(f"{source}: '{target}' is not an address; {_FORMS}, and an IPv6 address as [::1]:7443")


def socket_path(target: str) -> str:
    """The path of a target that is a Unix socket; empty for other targets."""
    return target.removeprefix("unix:").removeprefix("//") if target.startswith("unix:") else ""
