"""The command that looks for what is wrong with a server and its machine, and says what to do. It changes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sessionctl.exits import Exit
from sessionctl.failures import Command
from sessionctl.findings import Finding, State, ok, problem, warning
from sessionctl.output import as_json, fitted, printable, show
from sessionctl.screen import screen, wrapped
from sessionctl.settings import Settings, global_options, settings
from sessionctl.targets import checked_target

if TYPE_CHECKING:
    from sessiond.config import Config

__all__ = ["doctor"]

_STYLES = {State.OK: "green", State.WARNING: "yellow", State.PROBLEM: "red"}
_STATE_WIDTH = 9
_NARROWEST = 8
_ARROW = "-> "
_CONFIG_VARIABLE, _DATA_VARIABLE = "SESSIOND_CONFIG", "SESSIOND_DATA"


@dataclass(frozen=True, slots=True)
class _Place:
    """What there is to look at on this machine."""

    config: Config | None
    """None: it cannot be used."""
    environment: Mapping[str, str]
    process: int | None
    """The server that holds the data folder; None: there is none; 0: it is in another container."""
    may_look: bool = True
    """Whether this user may look into the data folder. Otherwise it is not known whether a server uses it."""
    problems: Sequence[Finding] = ()
    """Why the configuration cannot be used."""


@click.command(cls=Command)
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The configuration of the server. [env: SESSIOND_CONFIG; default: ./sessiond.toml, if it exists]",
)
@click.option(
    "--data",
    "folder",
    type=click.Path(path_type=Path, readable=False),
    metavar="FOLDER",
    help="The data folder, in place of the one in the configuration. [env: SESSIOND_DATA]",
)
@click.option(
    "--sidecar", "sidecars", metavar="ADDRESS", multiple=True, help="A sidecar that should answer. Repeatable."
)
@click.option("--strict", is_flag=True, help="Exit with code 1 also if there are only warnings.")
@global_options
@click.pass_context
def doctor(
    context: click.Context, file: Path | None, folder: Path | None, sidecars: Sequence[str], strict: bool
) -> None:
    """Find problems of a server and its machine, with remedies.

    It checks the clock, the disk, the data folder, keys, certificate, store and configuration on this machine, and asks
    the server for its version, callers, keys and replicas. Each finding is `ok`, a `warning` or a `problem`, with a
    remedy below it. If the server is stopped, only this machine is checked. Nothing is changed, started or locked.

    Run it on the server's machine, as its user or as root, with the key of an admin. It takes the configuration, the
    environment and the data folder as `sessiond serve` does. If no server is named, it asks the address in the
    configuration. On another machine it asks the server only.

    The exit code is 1 if there is a problem, and 78 if the configuration cannot be used.
    """
    asked = settings()
    addresses = [checked_target(address, "--sidecar") for address in dict.fromkeys(sidecars)]
    findings = list(_findings(asked, file, folder, addresses))
    for finding in findings:
        if asked.json:
            as_json(finding)
        else:
            _show(finding)
    counts = [sum(finding.state is state for finding in findings) for state in (State.PROBLEM, State.WARNING)]
    if not asked.json:
        show((fitted(f"{_count(counts[0], 'problem')}, {_count(counts[1], 'warning')}"), "bold"))
    if any(finding.check == _UNUSABLE for finding in findings if finding.state is State.PROBLEM):
        context.exit(Exit.MISCONFIGURED)
    context.exit(Exit.FAILED if counts[0] or (strict and counts[1]) else Exit.DONE)


_UNUSABLE = "configuration"
"""Problems of this check are those with which a server does not start."""


def _findings(asked: Settings, file: Path | None, folder: Path | None, sidecars: Sequence[str]) -> Iterator[Finding]:
    from sessionctl.doctor_machine import check_clock  # these imports are here so that help is fast
    from sessionctl.doctor_server import check_server, check_sidecars

    yield from check_clock()
    place = _place(file, folder) if _is_here(file, folder) else _Place(None, {}, None)
    yield from place.problems
    config = place.config
    running = place.process is not None
    if config is not None:
        yield from _local(config, place)
    target = _target(asked, config)
    if target is not None and (running or config is None or target is asked or not place.may_look):
        listen = "" if config is None else config.listen
        runs_here = running and target is not asked
        stopped = config is not None and not running
        yield from check_server(target, listen, screen().now(), runs_here=runs_here, may_be_stopped=stopped)
    elif running and config is not None:
        why = (
            "its port is not known"
            if config.tls_certificate is None
            else "the authority of its certificate is not known"
        )
        remedy = "name its address with --target" + (
            "" if config.tls_certificate is None else ", and add --tls-ca or --tls"
        )
        yield warning("server", f"it runs, and was not asked, because {why}", remedy)
    elif config is not None:
        yield ok("server", "it is not running, so only this machine was looked at")
    yield from check_sidecars(asked, sidecars)


def _is_here(file: Path | None, folder: Path | None) -> bool:
    """Whether there is anything of a server on this machine, according to options, variables and the current folder."""
    from sessionctl.reloading import chosen_file

    return bool(folder or chosen_file(file) or os.environ.get(_DATA_VARIABLE) or os.path.exists("data"))


def _place(file: Path | None, folder: Path | None) -> _Place:
    """The configuration of the server on this machine, and its process."""
    from sessionctl.doctor_machine import may_look_into, start_of
    from sessionctl.lock_holder import holder_of
    from sessionctl.reloading import chosen_file
    from sessiond.config import BadConfig
    from sessiond.config.data_folder import database_in, lock_of

    environment: Mapping[str, str] = os.environ
    process: int | None = None
    try:
        config = _load(chosen_file(file), folder, environment)
        may_look = may_look_into(config.data)
        if may_look and config.data.is_dir():
            process = holder_of(lock_of(database_in(config.data)))
        if process and (start := start_of(process)) is not None:
            # What counts is what the server was started with.
            environment = start.environment
            named = _options(start.arguments)
            theirs = named.get(_CONFIG_VARIABLE) or environment.get(_CONFIG_VARIABLE)
            chosen = file or (start.folder / theirs if theirs else chosen_file(None))
            config = _load(chosen, config.data, {**environment, **named})
    except BadConfig as error:
        remedy = "correct it; the server does not start with it"
        problems = [problem(_UNUSABLE, line, remedy) for line in str(error).splitlines()]
        return _Place(None, environment, process, problems=problems)
    return _Place(config, environment, process, may_look)


def _load(file: Path | None, folder: Path | None, environment: Mapping[str, str]) -> Config:
    from sessiond.config import Override, load_config, overrides_in

    overrides = overrides_in(environment)
    if folder is not None:
        overrides.append(Override("server.data", str(folder), "--data"))
    return load_config(file, overrides)


def _options(arguments: Sequence[str]) -> dict[str, str]:
    """The options of `sessiond serve`, each as the environment variable that sets the same."""
    found: dict[str, str] = {}
    for argument, following in zip_longest(arguments, arguments[1:], fillvalue="--"):
        name, equals, value = argument.partition("=")
        if name.startswith("--"):
            given = value if equals else "true" if following.startswith("--") else following
            found[f"SESSIOND_{name[2:].replace('-', '_').upper()}"] = given
    return found


def _local(config: Config, place: _Place) -> Iterator[Finding]:
    """What can be checked without asking the server."""
    from sessionctl.doctor_folder import (
        check_certificate,
        check_configuration,
        check_data_folder,
        check_store,
        check_variables,
    )
    from sessionctl.doctor_machine import check_disk, check_limits, check_unit
    from sessionctl.doctor_server import check_sockets

    running = place.process is not None
    yield from check_configuration(config)
    yield from check_variables(place.environment)
    yield from check_data_folder(config)
    yield from check_disk(config.data, has_database=config.store is None)
    needed = config.max_calls + config.max_subscribers
    if place.process:
        yield from check_limits(place.process, needed)
    elif not running:
        yield from check_unit(needed)
    if place.may_look:
        yield from check_store(config, screen().now(), running=running)
        yield from check_certificate(config, screen().now())
    else:
        text = f"keys, store and certificate were not checked, because {config.data} belongs to another user"
        yield warning("folder", text, "run this as the server's user or as root")
    yield from check_sockets(config, running=running)


def _target(asked: Settings, config: Config | None) -> Settings | None:
    """The server to ask: the one that was named, or else the one in the configuration; None: it cannot be asked."""
    from sessionctl.connecting import DEFAULT_TARGET

    if config is None or asked.target != DEFAULT_TARGET or asked.target_from != "--target":
        return asked
    host, _, port = config.listen.rpartition(":")
    if config.listen.startswith("unix:"):
        return replace(asked, target=config.listen, target_from="--config", tls=False)
    if port == "0" or (config.tls_certificate is not None and not asked.tls):
        return None
    reached = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104 - compared, not listened on
    return replace(asked, target=f"{reached}:{port}", target_from="--config")


def _show(finding: Finding) -> None:
    state, style = finding.state, _STYLES[finding.state]
    text = f"{printable(finding.check)}: {printable(finding.text)}"
    width = screen().width - _STATE_WIDTH if screen().terminal and not settings().wide else None
    first, *rest = _lines(text, width)
    show((f"{state:<{_STATE_WIDTH}}", style), first)
    for line in rest:
        show(" " * _STATE_WIDTH + line)
    if finding.remedy:
        indent = " " * _STATE_WIDTH
        for line in _lines(_ARROW + printable(finding.remedy), width):
            show((indent + line, "dim"))


def _lines(text: str, width: int | None) -> list[str]:
    return [text] if width is None else wrapped(text, max(width, _NARROWEST))


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
