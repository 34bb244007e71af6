"""Which server a command talks to, and how: options, environment, context, default, in this order."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from sessionctl.contexts import Context

__all__ = ["DEFAULT_TARGET", "TARGET_VARIABLE", "TLS_OPTIONS", "Connection", "connection"]

DEFAULT_TARGET = "127.0.0.1:7443"
TARGET_VARIABLE = "SESSIOND_TARGET"
TLS_OPTIONS = ("tls_ca", "tls_certificate", "tls_key")
_CONTEXT_VARIABLE = "SESSIOND_CONTEXT"
_VARIABLES = {
    "application": "SESSIOND_APPLICATION",
    "tls_ca": "SESSIOND_TLS_CA",
    "tls_certificate": "SESSIOND_TLS_CLIENT_CERTIFICATE",
    "tls_key": "SESSIOND_TLS_CLIENT_KEY",
    "tls": "SESSIOND_TLS",
}
_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True, slots=True)
class Connection:
    """The server and the files for TLS."""

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
    wants, wants_from = merged.pop("tls", (None, ""))
    if target.startswith("unix:"):
        for key, source in merged.items():
            if source[1].startswith("--"):
                raise click.UsageError(f"{source[1]}: {target} is a Unix socket, which needs no TLS; leave out {key}")
        if wants and wants_from.startswith("--"):
            raise click.UsageError(f"--tls: {target} is a Unix socket, which needs no TLS; leave it out")
        return Connection(target, target_from, application)
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
    names = ("target", "application", "tls", *TLS_OPTIONS)
    return {name: (given[name], f"--{name.replace('_', '-')}") for name in names if given.get(name)}


def _variables() -> dict[str, tuple[Any, str]]:
    """The values in the environment. An empty variable counts as not set."""
    found: dict[str, tuple[Any, str]] = {}
    for name, variable in {"target": TARGET_VARIABLE, **_VARIABLES}.items():
        text = os.environ.get(variable)
        if text:
            value = _BOOLEANS.get(text.lower()) if name == "tls" else text
            if value is None:
                raise click.UsageError(f"{variable}: must be true or false")
            found[name] = (value, variable)
    return found


def _values(context: Context, name: str) -> dict[str, tuple[Any, str]]:
    values = ("target", "application", "tls", *TLS_OPTIONS)
    return {key: (getattr(context, key), f"context '{name}'") for key in values if getattr(context, key)}
