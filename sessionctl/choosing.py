"""The commands about contexts: named servers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import click

from sessionctl.connecting import TARGET_VARIABLE, TLS_OPTIONS
from sessionctl.contexts import Context, Contexts, contexts_file, is_name, load_contexts, save_contexts
from sessionctl.failures import Failure, Group, suggestion
from sessionctl.output import as_json, printable, show, show_note
from sessionctl.settings import checked_connection, connection_options, given, output_options, settings
from sessionctl.tables import Cell, Column, show_table
from sessionctl.targets import checked_target
from sessionctl.values import contexts

__all__ = ["context"]

_COLUMNS = (
    Column("USED"),
    Column("NAME"),
    Column("TARGET", cut=True),
    Column("APPLICATION", cut=True, rank=2),
    Column("TLS", cut=True, rank=1),
    Column("KEY FILE", cut=True, cut_start=True, least=32, rank=3),
)


@click.group(cls=Group)
def context() -> None:
    """Name servers, and choose one of them.

    A context has the address of a server, an application, and the paths of the files for TLS and of the key file. The
    file of contexts is $XDG_CONFIG_HOME/sessiond/contexts.json, by default ~/.config/sessiond/contexts.json.

    A command takes each value from the first of these that has it: an option (--context included), the environment,
    the context in use, the default. If an option or SESSIOND_TARGET names a server, the context in use is ignored.
    """


@context.command("add")
@click.argument("name")
@click.option("--replace", "replaces", is_flag=True, help="Replace the context if it exists.")
@connection_options
@output_options
def add(name: str, replaces: bool) -> None:
    """Add the context NAME, the server that the options describe.

    --target is required. The files are checked, and their absolute paths are kept. `sessionctl context use NAME`
    chooses it.
    """
    if not is_name(name):
        raise click.UsageError(
            "NAME: must have 1 to 64 of a-z, 0-9, '.', '_' and '-', and begin with a letter or digit"
        )
    options = given()
    if "target" not in options:
        raise click.UsageError("--target: is missing; name the server of the context")
    checked_target(options["target"], "--target")
    values: dict[str, Any] = {key: options[key] for key in ("target", "application", "tls") if key in options}
    values |= {key: os.path.abspath(options[key]) for key in ("key_file", *TLS_OPTIONS) if key in options}
    checked_connection(options)
    found = load_contexts()
    if name in found.contexts and not replaces:
        raise Failure(f"there is a context '{name}'; choose another name, or add --replace")
    new = Context(**values)
    save_contexts(replace(found, contexts={**found.contexts, name: new}))
    _said("added", name, new, found)
    show_note(f"choose it with: sessionctl context use {name}")


@context.command("list")
@output_options
def list_contexts() -> None:
    """List all contexts. A star marks the one in use."""
    found = load_contexts()
    if settings().json:
        for name, one in sorted(found.contexts.items()):
            as_json(one, name=name, current=name == found.current)
    elif not show_table(_COLUMNS, [_row(name, one, found) for name, one in sorted(found.contexts.items())]):
        show_note("no contexts found")


@context.command("use")
@click.argument("name", required=False, shell_complete=contexts)
@click.option("--none", "nothing", is_flag=True, help="Use no context.")
@output_options
def use(name: str | None, nothing: bool) -> None:
    """Use the context NAME from now on; with --none use no context."""
    if bool(name) is nothing:
        raise click.UsageError("name a context, or add --none")
    found = load_contexts()
    if name:
        _checked(name, found)
    changed = replace(found, current=name or "")
    save_contexts(changed)
    if name:
        _said("using", name, found.contexts[name], changed)
    elif settings().json:
        as_json({"current": ""})
    else:
        show("using no context")
    if os.environ.get(TARGET_VARIABLE):
        show_note(f"{TARGET_VARIABLE} is set and takes precedence over the context; unset it")


@context.command("remove")
@click.argument("name", shell_complete=contexts)
@output_options
def remove(name: str) -> None:
    """Remove the context NAME. The files that it names stay."""
    found = load_contexts()
    removed = _checked(name, found)
    rest = {other: one for other, one in found.contexts.items() if other != name}
    left = Contexts("" if found.current == name else found.current, rest)
    save_contexts(left)
    _said("removed", name, removed, left)
    if found.current == name:
        show_note("no context is in use now")


def _checked(name: str, found: Contexts) -> Context:
    if name not in found.contexts:
        near = suggestion(name, found.contexts)
        raise Failure(f"no context '{printable(name)}' in {contexts_file()}{near}")
    return found.contexts[name]


def _said(done: str, name: str, one: Context, found: Contexts) -> None:
    if settings().json:
        as_json(one, name=name, current=name == found.current)
    else:
        show((done, "green"), f": {name} ({printable(one.target)})")


def _row(name: str, one: Context, found: Contexts) -> tuple[Cell, ...]:
    return (
        ("*" if name == found.current else "", "green"),
        (name, "bold"),
        (one.target, ""),
        (one.application, ""),
        (_tls(one), ""),
        (one.key_file, ""),
    )


def _tls(one: Context) -> str:
    """What a context says about TLS: nothing, whom it trusts, and with which certificate."""
    paths: Mapping[str, str] = {key: getattr(one, key) for key in TLS_OPTIONS if getattr(one, key)}
    if not paths:
        return "public authorities" if one.tls else ""
    return ", ".join(f"{key.removeprefix('tls_')} {value}" for key, value in paths.items() if key != "tls_key")
