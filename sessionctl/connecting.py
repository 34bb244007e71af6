"""Which server a command talks to, and how: options, environment, context, default, in this order."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from sessionctl.contexts import Context

__all__ = [
    "DEFAULT_TARGET",
    "KEY_VARIABLE",
    "TARGET_VARIABLE",
    "TLS_OPTIONS",
    "Connection",
    "allows_remote_plaintext",
    "connection",
]

DEFAULT_TARGET = "127.0.0.1:7443"
TARGET_VARIABLE = "SESSIOND_TARGET"
KEY_VARIABLE = "SESSIOND_KEY_FILE"
TLS_OPTIONS = ("tls_ca", "tls_certificate", "tls_key")
_PLAINTEXT_VARIABLE = "SESSIOND_ALLOW_REMOTE_PLAINTEXT"
_CONTEXT_VARIABLE = "SESSIOND_CONTEXT"
_VALUES = ("target", "application", "key_file", "tls", *TLS_OPTIONS)
_VARIABLES = {
    "application": "SESSIOND_APPLICATION",
    "key_file": KEY_VARIABLE,
    "tls_ca": "SESSIOND_TLS_CA",
    "tls_certificate": "SESSIOND_TLS_CLIENT_CERTIFICATE",
    "tls_key": "SESSIOND_TLS_CLIENT_KEY",
    "tls": "SESSIOND_TLS",
}
_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True, slots=True)
class Connection:
    """The server, and the files for TLS and with the key of the caller."""

    target: str
    target_from: str
    """The option, the environment variable or the context that set `target`."""
    application: str = ""
    tls: bool = False
    """Whether to use TLS."""
    files: Mapping[str, str] = field(default_factory=dict)
    """The path of each TLS file that is set, by the name of its option, such as `tls_ca`."""
    files_from: Mapping[str, str] = field(default_factory=dict)
    """What set it."""
    key_file: str = ""
    """The file with the key of this caller; empty: none."""
    key_file_from: str = ""
    """What set it."""


def connection(given: Mapping[str, Any]) -> Connection:
    """The connection of a command with these options. Raises click.UsageError or `BadContexts`."""
    if given.get("target") and given.get("context"):
        raise click.UsageError("--context and --target both name a server; use one of them")
    variable = os.environ.get(TARGET_VARIABLE, "")
    context, name, by_option = None, "", bool(given.get("context"))
    if not given.get("target") and (by_option or not variable):
        context, name = _context(given)
    sources = [_options(given), _variables()]
    if context is not None:
        # An explicit --context counts like the options; the one in use comes after the environment.
        sources.insert(1 if by_option else 2, _values(context, name))
    merged: dict[str, tuple[Any, str]] = {}
    for source in reversed(sources):
        merged |= source
    target, target_from = merged.pop("target", (DEFAULT_TARGET, "--target"))
    application = merged.pop("application", ("", ""))[0]
    key_file, key_file_from = merged.pop("key_file", ("", ""))
    wants, wants_from = merged.pop("tls", (None, ""))
    if target.startswith("unix:"):
        for key, source in merged.items():
            if source[1].startswith("--"):
                raise click.UsageError(f"{source[1]}: {target} is a Unix socket, which needs no TLS; leave out {key}")
        if wants and wants_from.startswith("--"):
            raise click.UsageError(f"--tls: {target} is a Unix socket, which needs no TLS; leave it out")
        return Connection(target, target_from, application, key_file=key_file, key_file_from=key_file_from)
    if wants is False:
        if any(source.startswith("--") for _, source in merged.values()):
            raise click.UsageError(f"{wants_from} turns TLS off, but an option names a file for it; unset one of them")
        merged = {}
    return Connection(
        target,
        target_from,
        application,
        bool(wants) or bool(merged),
        {key: value for key, (value, _) in merged.items()},
        {key: source for key, (_, source) in merged.items()},
        key_file,
        key_file_from,
    )


def _context(given: Mapping[str, Any]) -> tuple[Context | None, str]:
    """The context that is named, or in use; None: there is none."""
    from sessionctl.contexts import contexts_file, load_contexts  # here, so that help is fast

    named = given.get("context") or os.environ.get(_CONTEXT_VARIABLE, "")
    found = load_contexts()
    name = named or found.current
    if not name:
        return None, ""
    if name not in found.contexts:
        source = "--context" if given.get("context") else _CONTEXT_VARIABLE
        known = ", ".join(found.contexts) or "none"
        raise click.UsageError(f"{source}: no context '{name}' in {contexts_file()} (there: {known})")
    return found.contexts[name], name


def _options(given: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    return {name: (given[name], f"--{name.replace('_', '-')}") for name in _VALUES if given.get(name)}


def _variables() -> dict[str, tuple[Any, str]]:
    """The values in the environment. An empty variable counts as not set."""
    found: dict[str, tuple[Any, str]] = {}
    for name, variable in {"target": TARGET_VARIABLE, **_VARIABLES}.items():
        text = os.environ.get(variable)
        if text:
            found[name] = (_boolean(text, variable) if name == "tls" else text, variable)
    return found


def allows_remote_plaintext() -> bool:
    """Whether a key may be sent to another machine unencrypted. Raises click.UsageError."""
    text = os.environ.get(_PLAINTEXT_VARIABLE, "")
    return text != "" and _boolean(text, _PLAINTEXT_VARIABLE)


def _boolean(text: str, variable: str) -> bool:
    if (value := _BOOLEANS.get(text.lower())) is None:
        raise click.UsageError(f"{variable}: must be true or false")
    return value


def _values(context: Context, name: str) -> dict[str, tuple[Any, str]]:
    return {key: (getattr(context, key), f"context '{name}'") for key in _VALUES if getattr(context, key)}
