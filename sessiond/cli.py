"""`sessiond`: the server's command line."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import structlog
import uvloop

from sessiond import __version__
from sessiond.app import App, RemotePlaintext
from sessiond.config import BadConfig, Config, load_config, parse_listen
from sessiond.config.data_folder import reload_report_in
from sessiond.crypto.key_file import BadKeyFile
from sessiond.detection.client_facts import BadNetworkFile
from sessiond.domain.errors import Unavailable
from sessiond.domain.text import printable
from sessiond.rpc.sockets import CannotListen
from sessiond.store.contract import StoreHeld, StoreRefused
from sessiond.system.logs import set_up_logs
from sessiond.system.reports import write_report

__all__ = ["MISCONFIGURED", "main"]

MISCONFIGURED = 78
"""The exit code if the server did not start and will not until somebody changes something: EX_CONFIG of sysexits.h."""
_DEFAULT_FILE = Path("sessiond.toml")
_log = structlog.get_logger(__name__)


class _NotStarted(click.ClickException):
    """The server did not start: another process has what it needs, and a supervisor may try again."""

    def __init__(self, error: Exception) -> None:
        # A key or a path of the configuration may hold anything, and the text goes to a terminal.
        super().__init__("\n".join(printable(line) for line in str(error).split("\n")))


class _Misconfigured(_NotStarted):
    """The server did not start, and will not until somebody changes something."""

    exit_code = MISCONFIGURED


def _folder(_: click.Context, __: click.Parameter, value: str | None) -> Path | None:
    if value == "":
        raise click.BadParameter("must be the path of a folder")
    return None if value is None else Path(value)


def _listen(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    try:
        return value if value is None else parse_listen(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.group(context_settings={"auto_envvar_prefix": "SESSIOND", "help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sessiond")
def main() -> None:
    """A session authority: opens, validates, renews, rolls, expires and revokes web sessions over gRPC."""


@main.command()
@click.option("--config", "file", type=click.Path(path_type=Path), help="The configuration; default: ./sessiond.toml.")
@click.option("--data", callback=_folder, metavar="PATH", help="Folder of the database and the key file.")
@click.option("--listen", callback=_listen, help="host:port (port 0: any), or unix:PATH.")
@click.option("--allow-remote-plaintext", is_flag=True, help="Listen beyond this machine, with tokens in the clear.")
@click.option("--log-format", type=click.Choice(["auto", "json", "console"]), help="How logs are written.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="What is logged.")
def serve(
    file: Path | None,
    data: Path | None,
    listen: str | None,
    allow_remote_plaintext: bool,
    log_format: str | None,
    log_level: str | None,
) -> None:
    """Serve. Options win over the configuration file; without one there is one application, `default`.

    Exit codes: 0 stopped as asked; 1 the store failed, or another process has the address or the data folder; 2 wrong
    usage; 78 the configuration, a file that it names or the data folder cannot be used as it is.
    """
    chosen = file

    def load() -> Config:
        nonlocal chosen
        # Looked for each time, so that a file written after the start counts. One that was there must stay.
        if chosen is None and _DEFAULT_FILE.exists():
            chosen = _DEFAULT_FILE
        config = load_config(chosen)
        return replace(
            config,
            data=data or config.data,
            listen=listen or config.listen,
            allow_remote_plaintext=allow_remote_plaintext or config.allow_remote_plaintext,
            log_format=log_format or config.log_format,
            log_level=log_level or config.log_level,
        )

    try:
        config = load()
        set_up_logs(config.log_format, config.log_level)
        sys.exit(uvloop.run(_serve(config, load)))
    except (CannotListen, StoreHeld) as error:
        raise _NotStarted(error) from error
    except (BadConfig, BadKeyFile, BadNetworkFile, RemotePlaintext, StoreRefused) as error:
        raise _Misconfigured(error) from error


@main.command("check-config")
@click.argument("file", type=click.Path(path_type=Path), default=_DEFAULT_FILE)
@click.option("--strict", is_flag=True, help="Exit code 1 where the file departs from the guidance.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON, one finding a line.")
def check_config(file: Path, strict: bool, as_json: bool) -> None:
    """Check a configuration, ./sessiond.toml by default: what is wrong in it, and where it departs from the guidance.

    Exit codes: 0 it can be used; 1 it departs (--strict); 2 it cannot be used.
    """
    from sessionctl.checking import check  # here, because a server has no use for an operator's tools

    sys.exit(check(file, strict=strict, json=as_json))


def _tune_collector() -> None:
    """Let the cycle collector look less often at what is not garbage.

    Sessions and events in memory form no cycles and live long; with Python's thresholds a quarter of the work of
    opening sessions is looking through them (docs/performance.md).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


async def _reload(app: App, load: Callable[[], Config], asked: asyncio.Event, report: Path) -> None:
    """Read the configuration again each time it is asked for. A bad one changes nothing, and the log says why.

    The outcome is also written to `report`, where `sessionctl reload` waits for it.
    """
    while True:
        await asked.wait()
        asked.clear()
        outcome: dict[str, Any] = {"pid": os.getpid(), "changed": {}, "restart_required": [], "problems": []}
        try:
            done = await app.reload(load())
            outcome |= {"outcome": "reloaded", "changed": done.changed, "restart_required": done.restart_required}
        except BadConfig as error:
            problems = str(error).splitlines()
            outcome |= {"outcome": "refused", "problems": problems}
            _log.error("configuration refused", problems=problems, effect="nothing has changed")
        except Unavailable:
            return  # the authority is stopping
        except Exception:  # noqa: BLE001 - one bad file must not be the last that is read
            outcome |= {"outcome": "failed", "problems": ["the reload failed; see the server's log"]}
            _log.exception("reload failed", effect="see what is in force with sessionctl policies")
        try:
            write_report(report, outcome)
        except OSError as error:
            _log.warning("reload not reported", file=str(report), error=error.strerror)


async def _serve(config: Config, load: Callable[[], Config]) -> int:
    """Serve until told to stop (exit code 0) or until the store fails (1). SIGHUP reads the policies again."""
    stopping, reloading = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, reloading.set)
    app = await App.start(config)
    _tune_collector()
    stop = asyncio.create_task(stopping.wait())
    reloads = asyncio.create_task(_reload(app, load, reloading, reload_report_in(config.data)))
    await asyncio.wait((stop, app.failure), return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    reloads.cancel()
    await app.stop()
    if not app.failure.done():
        return 0
    click.echo(f"Error: {app.failure.result()}. Nothing acknowledged is lost; mend the disk and start again.", err=True)
    return 1
