"""The command that makes a running server read its configuration again."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import click

from sessionctl.failures import Command
from sessionctl.output import as_json, printable, show
from sessionctl.settings import json_option, settings

__all__ = ["reload"]

_DEFAULT_FILE = Path("sessiond.toml")
_POLL = 0.05  # seconds


@click.command(cls=Command)
@click.option(
    "--data", "folder", type=click.Path(path_type=Path, readable=False), help="The data folder of the server."
)
@click.option("--config", "file", type=click.Path(path_type=Path), help="The server's configuration, if it names it.")
@click.option(
    "--timeout",
    "patience",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    default=10.0,
    help="How long to wait for the outcome. [default 10]",
)
@json_option
def reload(folder: Path | None, file: Path | None, patience: float) -> None:
    """Make the server of a data folder on this machine read its configuration again.

    Without --data, the folder is the one that --config or ./sessiond.toml names, or ./data. Run it as the server's user
    or as root. Shows which policies changed and which settings need a restart. Exit code 1: no server is running there,
    or it refused the configuration and goes on with the old one.
    """
    if folder is None:
        folder = _configured_folder(file)
    elif file is not None:
        raise click.UsageError("Specify at most one of --data and --config.")
    _show(_asked_to_reload(folder, patience))


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
    process = _holder(lock)
    before = _identity(report)
    _signal(lock, process)
    until = time.monotonic() + patience
    while _identity(report) == before:
        if not _is_held(lock):
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


def _is_held(lock: Path) -> bool:
    """Whether a process holds the lock: the kernel says so, whatever is written in the file."""
    try:
        handle = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise click.ClickException(
            f"cannot read {lock}: {error.strerror}; run this as the server's user or as root"
        ) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _holder(lock: Path) -> int:
    """The process that holds the lock of a data folder."""
    if not _is_held(lock):
        raise click.ClickException(f"no server is running on {lock.parent}; name its folder with --data")
    text = lock.read_text(encoding="ascii", errors="replace").strip()
    if not text.isdecimal():
        raise click.ClickException(f"the server of {lock.parent} is starting or stopping; try again")
    return int(text)


def _signal(lock: Path, process: int) -> None:
    """Send SIGHUP to the process, once it is certain that it is the holder of the lock."""
    if sys.platform != "linux":
        os.kill(process, signal.SIGHUP)
        return
    try:
        # The descriptor stands for this very process, even if it ends and its id is given to another one.
        target = os.pidfd_open(process)
    except ProcessLookupError:
        raise _elsewhere(lock, process) from None
    try:
        if not _is_held(lock) or not _has_open(process, lock):
            raise _elsewhere(lock, process)
        signal.pidfd_send_signal(target, signal.SIGHUP)
    except PermissionError:
        raise click.ClickException(
            f"this user may not signal process {process}, the server of {lock.parent}; run this as its user or as root"
        ) from None
    finally:
        os.close(target)


def _has_open(process: int, lock: Path) -> bool:
    """Whether the process has the lock file open. In another container the same id means another process."""
    ours = lock.stat()
    for entry in Path(f"/proc/{process}/fd").iterdir():
        try:
            found = entry.stat()
        except FileNotFoundError:
            continue  # closed since it was listed
        if (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino):
            return True
    return False


def _elsewhere(lock: Path, process: int) -> click.ClickException:
    return click.ClickException(
        f"{lock} is held, but not by process {process} of this system: run this in the server's container, or try again"
    )


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
