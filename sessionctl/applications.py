"""Which of the server's applications a command is about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sessionctl.exits import Exit
from sessionctl.failures import Failure, suggestion
from sessionctl.settings import settings

if TYPE_CHECKING:
    from sessiond_client import Application

__all__ = ["chosen", "unknown_application"]


def chosen(applications: Sequence[Application]) -> list[Application]:
    """Those that --application names; all of them without the option. Raises `Failure` if there is no such one."""
    name = settings().application
    found = [application for application in applications if name in ("", application.name)]
    if name and not found:
        raise unknown_application(name, [application.name for application in applications])
    return found


def unknown_application(wrong: str, names: Sequence[str]) -> Failure:
    """The failure for an application that the server does not have, with the names of those that it has."""
    near, listed = suggestion(wrong, names), ", ".join(names)
    return Failure(f"--application: unknown application '{wrong}' (configured: {listed}){near}", Exit.USAGE)
