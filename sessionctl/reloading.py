"""The command that makes a running server read its configuration again."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import struct
import sys
import time
from pathlib import Path
from typing import Any

import click

from sessionctl.failures import Command
from sessionctl.output import as_json, printable, show
from sessionctl.settings import json_option, settings, timeout_option

__all__ = ["reload"]

_DEFAULT_FILE = Path("sessiond.toml")
_POLL = 0.05  # seconds
_FLOCK = (
    (("start", "length", "pid", "kind", "whence"), "qqihh")
    if sys.platform == "darwin"
    else (("kind", "whence", "start", "length", "pid"), "hhqqi")
)
"""The fields of C's `struct flock`, and their types."""


@click.command(cls=Command)
@click.option(
    "--data", "folder", type=click.Path(path_type=Path, readable=False), help="The data folder of the server."
)
@click.option("--config", "file", type=click.Path(path_type=Path), help="The server's configuration, if it names it.")
@timeout_option
@json_option
def reload(folder: Path | None, file: Path | None) -> None:
    """Make a running server reload its policies.

    The server is the one on this machine that holds the data folder. Without --data, the folder is the one that
    --config or ./sessiond.toml names, or ./data. Run it as the server's user or as root. Shows which policies changed
    and which settings need a restart. Exit code 1: no server is running there, or it refused the configuration and goes
    on with the old one.
    """
    if folder is None:
        folder = _configured_folder(file)
    elif file is not None:
        raise click.UsageError("Specify at most one of --data and --config.")
    _show(_asked_to_reload(folder, settings().timeout))


def _configured_folder(file: Path | None) -> Path:
    from sessiond.config import BadConfig, load_config  # here, because the other commands should not wait for it

    chosen = _DEFAULT_FILE if file is None and _DEFAULT_FILE.exists() else file
    try:
        return load_config(chosen).data
    except BadConfig as error:
        raise click.ClickException(f"{error}\nnothing was reloaded") from None


def _asked_to_reload(folder: Path, patience: float) -> dict[str, Any]:
    from sessiond.config.data_folder import database_in, lock_of, reload_report_in

    lock, report = lock_of(database_in(folder)), reload_report_in(folder)
    before = _identity(report)
    process = _ask(lock)
    until = time.monotonic() + patience
    while _identity(report) == before:
        if _holder(lock) != process:
            raise click.ClickException(f"the server of {folder} stopped; see its log")
        if time.monotonic() >= until:
            raise click.ClickException(
                f"process {process} was asked to reload and did not report within {patience:g} s; see its log"
            )
        time.sleep(_POLL)
    found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return found


def _identity(report: Path) -> tuple[int, int] | None:
    """Tells one report from another: each is a file of its own."""
    try:
        found = report.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def _holder(lock: Path) -> int | None:
    """The process that holds the lock, as the kernel says and whatever the file says; 0: one in another container."""
    try:
        handle = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise click.ClickException(
            f"cannot read {lock}: {error.strerror}; run this as the server's user or as root"
        ) from None
    try:
        return _locked_by(handle)
    finally:
        os.close(handle)


def _locked_by(handle: int) -> int | None:
    """Ask whether the file could be locked, and who stands in the way; see `F_GETLK` in fcntl(2). Locks nothing."""
    fields, form = _FLOCK
    question = {"kind": fcntl.F_WRLCK, "whence": os.SEEK_SET, "start": 0, "length": 0, "pid": 0}
    answer = fcntl.fcntl(handle, fcntl.F_GETLK, struct.pack(form, *(question[name] for name in fields)))
    found = dict(zip(fields, struct.unpack(form, answer[: struct.calcsize(form)]), strict=True))
    return None if found["kind"] == fcntl.F_UNLCK else max(0, int(found["pid"]))


def _ask(lock: Path) -> int:
    """Send SIGHUP to the process that holds the lock; its id."""
    process = _holder(lock)
    if process is None:
        raise click.ClickException(f"no server is running on {lock.parent}; name its folder with --data")
    if process == 0:
        raise click.ClickException(f"the server of {lock.parent} runs in another container; run this there")
    try:
        _signal(lock, process)
    except ProcessLookupError:
        raise click.ClickException(f"the server of {lock.parent} has just stopped") from None
    except PermissionError:
        raise click.ClickException(
            f"this user may not signal process {process}, the server of {lock.parent}; run this as its user or as root"
        ) from None
    return process


def _signal(lock: Path, process: int) -> None:
    if sys.platform != "linux":
        os.kill(process, signal.SIGHUP)
        return
    # The descriptor stands for this very process, even if it ends and its id is given to another one.
    target = os.pidfd_open(process)
    try:
        if _holder(lock) != process:
            raise ProcessLookupError
        signal.pidfd_send_signal(target, signal.SIGHUP)
    finally:
        os.close(target)


def _show(report: dict[str, Any]) -> None:
    if settings().json:
        as_json(report)
    if report["outcome"] != "reloaded":
        effect = ["nothing has changed"] if report["outcome"] == "refused" else []
        raise click.ClickException("\n".join([*report["problems"], *effect]))
    if settings().json:
        return
    for application, change in report["changed"].items():
        show((printable(application), "bold"), f": {printable(change)}")
    if not report["changed"]:
        show("policies unchanged")
    if report["restart_required"]:
        show(("restart required", "yellow"), f" for {printable(', '.join(report['restart_required']))}")
