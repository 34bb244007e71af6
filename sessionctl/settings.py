"""The options that every command understands, and the client that they describe."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sessionctl.numbers import checked_seconds
from sessionctl.targets import checked_target

if TYPE_CHECKING:
    from sessiond_client import Client

__all__ = [
    "GLOBAL_OPTIONS",
    "OUTPUTS",
    "Settings",
    "given_options",
    "global_options",
    "output_options",
    "settings",
    "timeout_option",
]

F = TypeVar("F", bound=Callable[..., Any])

GLOBAL_OPTIONS = ("target", "key_file", "application", "timeout", "output", "json")
"""The names of the options that are the same in every command."""
OUTPUTS = ("table", "wide", "json")
_VARIABLE = "SESSIOND_TARGET"
_KEY_VARIABLE = "SESSIOND_KEY_FILE"
_DEFAULT_TARGET = "127.0.0.1:7443"
_DEFAULT_TIMEOUT = 5.0
_META = "sessionctl"


@dataclass(frozen=True, slots=True)
class Settings:
    """The values of the global options."""

    target: str
    target_from: str
    """The option or environment variable that set `target`."""
    application: str
    """Empty if none was named."""
    output: str
    """One of `OUTPUTS`."""
    timeout: float
    """Seconds."""
    key_file: str = ""
    """The file with the key of this caller; empty if none was named."""
    key_file_from: str = ""
    """The option or environment variable that set `key_file`."""

    @property
    def json(self) -> bool:
        """Whether the result is for a program."""
        return self.output == "json"

    @property
    def wide(self) -> bool:
        """Whether the result is for people and shows everything, however long the lines become."""
        return self.output == "wide"

    def client(self) -> Client:
        """A client of the chosen server; the caller closes it. Raises click.UsageError if the target is malformed."""
        target = checked_target(self.target, self.target_from)
        # Here, so that help and wrong usage do not wait for gRPC.
        from sessionctl.key_input import read_key
        from sessiond_client import Client

        key = read_key(self.key_file, self.key_file_from) if self.key_file else None
        return Client(target, application=self.application, timeout=self.timeout, key=key)


def settings() -> Settings:
    """The global options from the command line and the environment; an option after the command's name wins."""
    given = _given()
    variable = os.environ.get(_VARIABLE)
    return Settings(
        target=given.get("target") or variable or _DEFAULT_TARGET,
        target_from=_VARIABLE if variable and not given.get("target") else "--target",
        application=given.get("application", ""),
        output=given.get("output", OUTPUTS[0]),
        timeout=given.get("timeout", _DEFAULT_TIMEOUT),
        key_file=given.get("key_file") or os.environ.get(_KEY_VARIABLE, ""),
        key_file_from="--key-file" if given.get("key_file") else _KEY_VARIABLE,
    )


def given_options() -> list[str]:
    """The global options of the command line, as arguments that repeat them."""
    return [argument for name, value in _given().items() for argument in (f"--{name.replace('_', '-')}", str(value))]


def _given() -> dict[str, Any]:
    context = click.get_current_context(silent=True)
    found: dict[str, Any] = {} if context is None else context.meta.get(_META, {})
    return found


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value is not None and parameter.name is not None:
        context.meta.setdefault(_META, {})[parameter.name] = value  # a command and its group share `meta`


def _remember_seconds(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    _remember(context, parameter, checked_seconds(context, parameter, value))


def _remember_json(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        context.meta.setdefault(_META, {})["output"] = "json"


def output_options(command: F) -> F:
    """Add `--output` and `--json`, the options of every command that writes a result."""
    command = click.option(
        "--json", is_flag=True, expose_value=False, callback=_remember_json, help="Same as -o json."
    )(command)
    return click.option(
        "-o",
        "--output",
        type=click.Choice(OUTPUTS),
        metavar="FORMAT",
        expose_value=False,
        callback=_remember,
        help="table fits the terminal, wide shows everything, json is for programs. [default: table]",
    )(command)


def timeout_option(text: str) -> Callable[[F], F]:
    """Return a decorator that adds `--timeout`. `text`: the sentence of its help that says what it limits."""
    return click.option(
        "--timeout",
        metavar="SECONDS",
        expose_value=False,
        callback=_remember_seconds,
        help=f"{text} [default: {_DEFAULT_TIMEOUT:g}]",
    )


_timeout_option = timeout_option("Time limit for each call to the server.")

_target_option = click.option(
    "--target",
    metavar="TARGET",
    expose_value=False,
    callback=_remember,
    help=f"Address of the server: HOST:PORT or unix:/path. [env: {_VARIABLE}; default: {_DEFAULT_TARGET}]",
)

_key_option = click.option(
    "--key-file",
    metavar="FILE",
    expose_value=False,
    callback=_remember,
    help=f"File with the key of this caller, if the server has callers. [env: {_KEY_VARIABLE}]",
)

_application_option = click.option(
    "--application",
    metavar="NAME",
    expose_value=False,
    callback=_remember,
    help="The application. [default: `default`; all for status, watch, policies and locks, not for locks clear]",
)


def global_options(command: F) -> F:
    """Add the global options to a command, so that they may come before or after its name."""
    return _target_option(_key_option(_application_option(_timeout_option(output_options(command)))))
