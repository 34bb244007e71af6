"""The command that makes a running server reload its policies and limits."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import click

from sessionctl.clock import since_boot
from sessionctl.exits import Exit
from sessionctl.failures import Command, Failure
from sessionctl.lock_holder import holder_of
from sessionctl.output import as_json, printable, show
from sessionctl.settings import output_options, settings, timeout_option
from sessionctl.tables import Column, show_table

__all__ = ["chosen_file", "reload"]

_DEFAULT_FILE = Path("sessiond.toml")
_CONFIG_VARIABLE = "SESSIOND_CONFIG"
_POLL = 0.05  # seconds
_CHANGES = (Column("APPLICATION", cut=True), Column("CHANGE", cut=True))


@click.command(cls=Command)
@click.option(
    "--data",
    "folder",
    type=click.Path(path_type=Path, readable=False),
    metavar="FOLDER",
    help="The data folder of the server. [env: SESSIOND_DATA]",
)
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The configuration that names the data folder. [env: SESSIOND_CONFIG; default: ./sessiond.toml]",
)
@timeout_option("Time limit for the server's report.")
@output_options
def reload(folder: Path | None, file: Path | None) -> None:
    """Make a running server reload its policies and limits.

    The server is the one on this machine that uses the data folder. The folder is chosen as by `sessiond serve`: --data
    overrides SESSIOND_DATA, which overrides the configuration; the default is ./data. Use either --data or --config,
    not both. Run the command as the server's user or as root. It shows which policies changed, whether the limits on
    calls changed, and which changed settings need a restart. If the configuration has an error, the server keeps its
    policies and limits, and the exit code is 78.
    """
    if folder is None:
        folder = _configured_folder(file)
    elif file is not None:
        raise click.UsageError("use either --data or --config")
    _show(_asked_to_reload(folder, settings().timeout))


def _configured_folder(file: Path | None) -> Path:
    """The data folder of a server that was started in this folder, with this environment and `--config file`."""
    from sessiond.config import BadConfig, load_config, overrides_in  # here, so that help is fast

    # The other variables do not matter here, and those of the server may be different.
    overrides = [override for override in overrides_in(os.environ) if override.key == "server.data"]
    try:
        return load_config(chosen_file(file), overrides).data
    except BadConfig as error:
        raise Failure(str(error), Exit.MISCONFIGURED, note="nothing was reloaded") from None


def chosen_file(file: Path | None) -> Path | None:
    """The configuration file that `sessiond serve` reads with `--config file`, or without it; None: it reads none."""
    if file is None and (named := os.environ.get(_CONFIG_VARIABLE)):
        file = Path(named)
    return _DEFAULT_FILE if file is None and _DEFAULT_FILE.exists() else file


def _asked_to_reload(folder: Path, patience: float) -> dict[str, Any]:
    from sessiond.config.data_folder import database_in, lock_of, reload_report_in

    lock, report = lock_of(database_in(folder)), reload_report_in(folder)
    before, asked_at = _identity(report), since_boot()
    process = _ask(lock)
    until = time.monotonic() + patience
    while (found := _answer(report, before, asked_at)) is None:
        if holder_of(lock) != process:
            raise Failure(f"the server of {folder} stopped; see its log")
        if time.monotonic() >= until:
            raise Failure(
                f"process {process} was asked to reload and did not report within {patience:g} s; see its log",
                Exit.UNREACHABLE,
            )
        time.sleep(_POLL)
    return found


def _answer(report: Path, before: tuple[int, int] | None, asked_at: int) -> dict[str, Any] | None:
    """The report if it is the answer to a signal sent at `asked_at`, a time of `since_boot`; otherwise None.

    A reload that was already running read the file before the signal and may report later. `before` is the identity of
    the report at that time: the clock starts again with the machine, so an older report may have a later time.
    """
    if _identity(report) == before:
        return None
    found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return found if found.pop("load_began") >= asked_at else None


def _identity(report: Path) -> tuple[int, int] | None:
    """What distinguishes one report from the next: each is a new file."""
    try:
        found = report.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def _ask(lock: Path) -> int:
    """Send SIGHUP to the process that holds the lock; returns its id."""
    process = holder_of(lock)
    if process is None:
        raise Failure(
            f"no server uses the folder '{lock.parent}'; name the server's data folder with --data", Exit.UNREACHABLE
        )
    if process == 0:
        raise Failure(f"the server of {lock.parent} runs in another container; run this there")
    try:
        _signal(lock, process)
    except ProcessLookupError:
        raise Failure(f"the server of {lock.parent} has just stopped") from None
    except PermissionError:
        raise Failure(
            f"this user may not signal process {process}, the server of {lock.parent}; run this as its user or as root"
        ) from None
    return process


def _signal(lock: Path, process: int) -> None:
    if sys.platform != "linux":
        os.kill(process, signal.SIGHUP)
        return
    # The descriptor refers to this process even if it ends and another one gets its id.
    target = os.pidfd_open(process)
    try:
        if holder_of(lock) != process:
            raise ProcessLookupError
        signal.pidfd_send_signal(target, signal.SIGHUP)
    finally:
        os.close(target)


def _show(report: dict[str, Any]) -> None:
    if settings().json:
        as_json(report)
    if report["outcome"] != "reloaded":
        refused = report["outcome"] == "refused"
        raise Failure(
            "\n".join(report["problems"]),
            Exit.MISCONFIGURED if refused else Exit.FAILED,
            note="nothing has changed" if refused else "",
        )
    if settings().json:
        return
    rows = [
        ((application, "bold"), (text, ""))
        for application, change in report["changed"].items()
        for text in _changes(change)
    ]
    if not show_table(_CHANGES, rows):
        show("policies unchanged")
    if report.get("limits_changed"):
        show("limits changed")
    for setting in report["restart_required"]:
        show(("restart required", "yellow"), f" for {printable(setting)}")


def _changes(change: str) -> list[str]:
    """A change as the server reports it, such as `changed: idle_timeout, on_limit`, with one text for each key."""
    kind, colon, keys = change.partition(": ")
    return [f"{kind} {key}" for key in keys.split(", ")] if colon else [change]
