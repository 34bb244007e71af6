"""The address of a server, as the option `--target` takes it."""

from __future__ import annotations

import click

from sessiond_client.targets import problem_of_address

__all__ = ["checked_target", "socket_path"]

_FORMS = "write HOST:PORT or unix:/path"


def checked_target(target: str, source: str) -> str:
    """The target if its form is right. Raises click.UsageError that names `source`, the option or variable."""
    if target.startswith("unix:"):
        if socket_path(target):
            return target
        raise click.UsageError(f"{source}: '{target}' has no path; {_FORMS}")
    if problem := problem_of_address(target):
        raise click.UsageError(f"{source}: {problem}")
    return target


def socket_path(target: str) -> str:
    """The path of a target that is a Unix socket; empty for other targets."""
    return target.removeprefix("unix:").removeprefix("//") if target.startswith("unix:") else ""
