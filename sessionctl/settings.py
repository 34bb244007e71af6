"""The options that every command understands, and the client that they describe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sessionctl.connecting import (
    DEFAULT_TARGET,
    KEY_VARIABLE,
    TARGET_VARIABLE,
    TLS_OPTIONS,
    Connection,
    allows_remote_plaintext,
    connection,
)
from sessionctl.numbers import checked_seconds
from sessionctl.targets import checked_target
from sessionctl.values import applications, contexts, files

if TYPE_CHECKING:
    from sessiond_client import Client, Violation

__all__ = [
    "GLOBAL_OPTIONS",
    "OUTPUTS",
    "Settings",
    "given_options",
    "checked_connection",
    "connection_options",
    "given",
    "global_options",
    "output_options",
    "settings",
    "timeout_option",
]

F = TypeVar("F", bound=Callable[..., Any])

GLOBAL_OPTIONS = ("target", "context", "application", "key_file", "tls", *TLS_OPTIONS, "timeout", "output", "json")
"""The names of the options that are the same in every command."""
OUTPUTS = ("table", "wide", "json")
_DEFAULT_TIMEOUT = 5.0
_META = "sessionctl"
_RESOLVED = "sessionctl.connection"


@dataclass(frozen=True, slots=True)
class Settings:
    """The values of the global options."""

    target: str
    target_from: str
    """The option, environment variable or context that set `target`."""
    application: str
    """Empty if none was named."""
    output: str
    """One of `OUTPUTS`."""
    timeout: float
    """Seconds."""
    tls: bool = False
    """Whether to use TLS."""
    files: Mapping[str, str] = field(default_factory=dict)
    """The path of each TLS file that is set, by the name of its option, such as `tls_ca`."""
    files_from: Mapping[str, str] = field(default_factory=dict)
    """The option, environment variable or context that set it."""
    key_file: str = ""
    """The file with the key of this caller; empty if none was named."""
    key_file_from: str = ""
    """The option, environment variable or context that set it."""

    @property
    def json(self) -> bool:
        """Whether the result is for a program."""
        return self.output == "json"

    @property
    def wide(self) -> bool:
        """Whether the result is for people and shows everything, however long the lines become."""
        return self.output == "wide"

    def client(self, *, at: str = "") -> Client:
        """A client of the chosen server; the caller closes it. `at`: the one address of its host to connect to.

        Raises click.UsageError if the target is malformed, or a file for TLS or with a key cannot be used.
        """
        target = checked_target(self.target, self.target_from)
        # Here, so that help and wrong usage do not wait for gRPC.
        from sessionctl.key_input import read_key
        from sessiond_client import Client, InvalidArgument, TlsFiles

        source = self.key_file_from
        named = f"{source}: key_file" if source.startswith("context ") else source
        key = read_key(self.key_file, named) if self.key_file else None
        names = {name.removeprefix("tls_"): path for name, path in self.files.items()}
        tls = TlsFiles(**names) if self.tls and not target.startswith("unix:") else False
        try:
            return Client(
                at or target,
                application=self.application,
                timeout=self.timeout,
                tls=tls,
                key=key,
                allow_remote_plaintext=allows_remote_plaintext(),
                channel_options=[("grpc.ssl_target_name_override", target.rpartition(":")[0])] if at else (),
            )
        except InvalidArgument as error:
            raise click.UsageError("; ".join(map(self._wrong_file, error.violations))) from None

    def _wrong_file(self, violation: Violation) -> str:
        """The problem of a file for TLS or of the key, with what set it."""
        if violation.field == "key":
            return f"{self.key_file_from}: the key {violation.description}"
        key = violation.field.replace(".", "_")
        source = self.files_from.get(key, "")
        option = f"--{key.replace('_', '-')}"
        where = f"{source}: {key}" if source.startswith("context ") else source or option
        return f"{where}: {violation.description}"


def settings() -> Settings:
    """The global options from the command line, the environment and the context.

    An option after the command's name wins. Raises click.UsageError or `BadContexts`.
    """
    options, found = given(), _connection()
    return _of(found, options.get("output", OUTPUTS[0]), options.get("timeout", _DEFAULT_TIMEOUT))


def _of(found: Connection, output: str, timeout: float) -> Settings:
    return Settings(
        target=found.target,
        target_from=found.target_from,
        application=found.application,
        output=output,
        timeout=timeout,
        tls=found.tls,
        files=found.files,
        files_from=found.files_from,
        key_file=found.key_file,
        key_file_from=found.key_file_from,
    )


def _connection() -> Connection:
    """The server of the running command. It is found out once: the context is in a file."""
    context = click.get_current_context(silent=True)
    if context is None:
        return connection({})
    if all(parameter.name != "context" for parameter in context.command.params):
        return Connection(DEFAULT_TARGET, "--target")  # a command without a server
    found = context.meta.get(_RESOLVED)
    if found is None:
        found = context.meta[_RESOLVED] = connection(given())
    resolved: Connection = found
    return resolved


def checked_connection(options: Mapping[str, Any]) -> None:
    """Check the files that options name, for TLS and with a key. Raises click.UsageError."""
    _of(connection(options), OUTPUTS[0], 1.0).client().close()


def given_options() -> list[str]:
    """The global options of the command line, as arguments that repeat them."""
    arguments: list[str] = []
    for name, value in given().items():
        arguments += [f"--{name.replace('_', '-')}"] if value is True else [f"--{name.replace('_', '-')}", str(value)]
    return arguments


def given() -> dict[str, Any]:
    """The global options of the command line, by name."""
    context = click.get_current_context(silent=True)
    found: dict[str, Any] = {} if context is None else context.meta.get(_META, {})
    return found


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value is not None and parameter.name is not None:
        context.meta.setdefault(_META, {})[parameter.name] = value  # a command and its group share `meta`


def _remember_seconds(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    _remember(context, parameter, checked_seconds(context, parameter, value))


def _remember_flag(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        _remember(context, parameter, value)


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
    help=f"Address of the server: HOST:PORT or unix:/path. [env: {TARGET_VARIABLE}; default: {DEFAULT_TARGET}]",
)

_context_option = click.option(
    "--context",
    metavar="NAME",
    shell_complete=contexts,
    expose_value=False,
    callback=_remember,
    help="A server that you named with `sessionctl context add`. [env: SESSIOND_CONTEXT; default: the one in use]",
)

_tls_options = (
    click.option(
        "--tls",
        is_flag=True,
        expose_value=False,
        callback=_remember_flag,
        help="Use TLS, and trust public authorities unless --tls-ca is given. [env: SESSIOND_TLS]",
    ),
    click.option(
        "--tls-ca",
        metavar="FILE",
        shell_complete=files,
        expose_value=False,
        callback=_remember,
        help="Use TLS, and trust certificates signed by one in this PEM file. [env: SESSIOND_TLS_CA]",
    ),
    click.option(
        "--tls-certificate",
        metavar="FILE",
        shell_complete=files,
        expose_value=False,
        callback=_remember,
        help="Present the client certificate in this PEM file. [env: SESSIOND_TLS_CLIENT_CERTIFICATE]",
    ),
    click.option(
        "--tls-key",
        metavar="FILE",
        shell_complete=files,
        expose_value=False,
        callback=_remember,
        help="The private key of that certificate. [env: SESSIOND_TLS_CLIENT_KEY]",
    ),
)

_key_option = click.option(
    "--key-file",
    metavar="FILE",
    shell_complete=files,
    expose_value=False,
    callback=_remember,
    help=f"File with the key of this caller, if the server has callers. [env: {KEY_VARIABLE}]",
)

_application_option = click.option(
    "--application",
    metavar="NAME",
    shell_complete=applications,
    expose_value=False,
    callback=_remember,
    help="The application. [env: SESSIOND_APPLICATION; default: `default`; locks, policies, status, top, watch: all]",
)


def global_options(command: F) -> F:
    """Add the global options to a command, so that they may come before or after its name."""
    command = _timeout_option(output_options(command))
    for option in reversed(_tls_options):
        command = option(command)
    return _target_option(_context_option(_key_option(_application_option(command))))


def connection_options(command: F) -> F:
    """Add the options that describe a server: --target, --key-file, --application and those for TLS."""
    for option in reversed(_tls_options):
        command = option(command)
    return _target_option(_key_option(_application_option(command)))
