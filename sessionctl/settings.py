"""The options that every command understands, and the client they make."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from sessiond_client import Client

__all__ = ["Settings", "global_options", "json_option", "settings", "timeout_option"]

F = TypeVar("F", bound=Callable[..., Any])

_DEFAULT_TARGET = "127.0.0.1:7443"
_DEFAULT_TIMEOUT = 5.0
_META = "sessionctl"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the global options came to."""

    target: str
    application: str
    """Empty where none was named."""
    json: bool
    timeout: float
    """Seconds."""

    def client(self) -> Client:
        """A client of the chosen authority; the caller closes it."""
        return Client(self.target, application=self.application, timeout=self.timeout)


def settings() -> Settings:
    """What the command line and the environment say; an option after the command wins over one before it."""
    given = click.get_current_context().meta.get(_META, {})
    return Settings(
        target=given.get("target") or os.environ.get("SESSIOND_TARGET") or _DEFAULT_TARGET,
        application=given.get("application", ""),
        json=given.get("json", False),
        timeout=given.get("timeout", _DEFAULT_TIMEOUT),
    )


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value not in (None, False) and parameter.name is not None:
        context.meta.setdefault(_META, {})[parameter.name] = value  # `meta` is shared by a command and its group


json_option = click.option(
    "--json",
    "json",
    is_flag=True,
    expose_value=False,
    callback=_remember,
    help="Write JSON, one object a line: times as RFC 3339, spans in seconds, bytes as base64.",
)
"""The one global option that every command understands, even without an authority."""

timeout_option = click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    expose_value=False,
    callback=_remember,
    help=f"How long to wait for each answer. [default {_DEFAULT_TIMEOUT:g}]",
)

_OPTIONS = (
    click.option(
        "--target",
        metavar="HOST:PORT",
        expose_value=False,
        callback=_remember,
        help=f"The authority, also as unix:/path. [env SESSIOND_TARGET; default {_DEFAULT_TARGET}]",
    ),
    click.option(
        "--application",
        metavar="NAME",
        expose_value=False,
        callback=_remember,
        help="The application that is asked about. [default: `default`; watch, locks, policies: all]",
    ),
    timeout_option,
    json_option,
)


def global_options(command: F) -> F:
    """Let a command, too, understand the global options, so that they may stand before or after its name."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
