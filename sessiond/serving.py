"""The life of a server's process, and of a sidecar's: it reads the configuration, serves, reloads, and stops.

Importing this module imports the whole server, which takes about a second. `sessiond.cli` does so only to serve.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import click
import structlog
import uvloop

from sessiond.access.tls import BadTls
from sessiond.app import App, OpenToOthers, RemotePlaintext, WorkersNeedPort
from sessiond.config import (
    BadConfig,
    Config,
    Override,
    SidecarConfig,
    load_config,
    load_sidecar,
    overrides_in,
    sidecar_overrides_in,
    unknown_variables,
)
from sessiond.config.data_folder import reload_report_in
from sessiond.crypto.key_file import BadKeyFile
from sessiond.detection.client_facts import BadNetworkFile
from sessiond.monitoring import BadTracing
from sessiond.rpc.sockets import CannotListen
from sessiond.sidecar.upstream import BadKey
from sessiond.sidecar.workers import WorkersFailed, owner_is_gone
from sessiond.sidecar_app import Sidecar
from sessiond.store.contract import StoreHeld, StoreRefused
from sessiond.system.audit_file import BadAuditFile
from sessiond.system.clock import since_boot
from sessiond.system.failures import log_failure
from sessiond.system.logs import set_up_logs
from sessiond.system.memory import MemoryReturn
from sessiond.system.reports import write_report
from sessiond.system.service_manager import ServiceManager

__all__ = ["IN_USE", "REFUSED", "OPTIONS", "serve", "serve_as_worker", "serve_sidecar"]

IN_USE: tuple[type[Exception], ...] = (CannotListen, StoreHeld, WorkersFailed)
"""Why a process does not start although nothing need be changed: another start may succeed."""
REFUSED: tuple[type[Exception], ...] = (
    BadAuditFile,
    BadConfig,
    BadKey,
    BadKeyFile,
    BadNetworkFile,
    BadTls,
    BadTracing,
    OpenToOthers,
    RemotePlaintext,
    StoreRefused,
    WorkersNeedPort,
)
"""Why a process cannot start until somebody changes something."""
_LAST_STEPS = 10.0
"""Seconds that a stop may take beside what it gives to calls."""
_DEFAULT_FILE = Path("sessiond.toml")
OPTIONS = {
    "listen": "server.listen",
    "transport": "server.transport",
    "data": "server.data",
    "allow_remote_plaintext": "server.allow_remote_plaintext",
    "allow_without_callers": "server.allow_without_callers",
    "tls_certificate": "server.tls.certificate",
    "tls_key": "server.tls.key",
    "tls_client_ca": "server.tls.client_ca",
    "workers": "server.workers",
    "log_format": "log.format",
    "log_level": "log.level",
}
"""The key that each option of `serve` sets, by the name of its parameter."""
_log = structlog.get_logger(__name__)


def serve(file: Path | None, options: Mapping[str, Any]) -> int:
    """Serve until SIGTERM or SIGINT (returns 0) or until the store fails (returns 1).

    file      the configuration file; None: ./sessiond.toml, if it exists
    options   the values of the command line, by the names in `OPTIONS`; they override the environment and the file

    Raises one of `IN_USE` or `REFUSED` if the server does not start.
    """
    chosen = file
    overrides = overrides_in(os.environ)
    overrides += [Override(OPTIONS[name], value, _option(name)) for name, value in options.items()]

    def load() -> Config:
        nonlocal chosen
        # A default file that was written after the start counts too. Once it was read it must stay.
        if chosen is None and _DEFAULT_FILE.exists():
            chosen = _DEFAULT_FILE
        return load_config(chosen, overrides)

    config = load()
    _set_up(config)
    return uvloop.run(_serve(config, load))


def serve_sidecar(options: Mapping[str, Any]) -> int:
    """Serve a sidecar until SIGTERM or SIGINT; return 0. Raises one of `IN_USE` or `REFUSED`."""
    config = load_sidecar(sidecar_overrides_in(os.environ) + _sidecar_overrides(options))
    _set_up(config)
    return uvloop.run(_serve_sidecar(config))


def serve_as_worker(options: Mapping[str, Any]) -> int:
    """Serve as a worker until the server that started it ends; return 0. Raises one of `IN_USE`."""
    config = load_sidecar(_sidecar_overrides(options))
    set_up_logs(config.log_format, config.log_level)
    return uvloop.run(_serve_sidecar(config, is_worker=True))


def _sidecar_overrides(options: Mapping[str, Any]) -> list[Override]:
    return [Override(name, value, _option(name)) for name, value in options.items()]


def _option(parameter: str) -> str:
    return f"--{parameter.replace('_', '-')}"


def _set_up(config: Config | SidecarConfig) -> None:
    """Set up the log, and warn of variables that set nothing."""
    set_up_logs(config.log_format, config.log_level)
    for variable, meant in unknown_variables(os.environ).items():
        suggestion = {"did_you_mean": meant} if meant else {}
        _log.warning("environment variable ignored", variable=variable, **suggestion)


def _tune_collector() -> None:
    """Make the cycle collector run less often.

    Sessions and events in memory form no cycles and live long. With Python's default thresholds, scanning them takes a
    quarter of the time of opening sessions (docs/performance.md).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


async def _reload(app: App, load: Callable[[], Config], asked: asyncio.Event, report: Path) -> None:
    """Reload the configuration each time `asked` is set. One with errors changes nothing, and the errors are logged.

    The outcome is also written to `report`, where `sessionctl reload` waits for it. `load_began`, a time of
    `since_boot`, shows whether the file was read after the signal.
    """
    while True:
        await asked.wait()
        asked.clear()
        outcome: dict[str, Any] = {"pid": os.getpid(), "load_began": since_boot()}
        outcome |= {"changed": {}, "limits_changed": False, "restart_required": [], "problems": []}
        try:
            done = await app.reload(load())
            outcome |= {
                "outcome": "reloaded",
                "changed": done.changed,
                "limits_changed": done.limits_changed,
                "restart_required": done.restart_required,
            }
        except BadConfig as error:
            problems = str(error).splitlines()
            outcome |= {"outcome": "refused", "problems": problems}
            _log.error("configuration refused", problems=problems, effect="nothing has changed")
            app.refuse_reload()
        except Exception:  # noqa: BLE001 - after a failed reload the next one must still work
            outcome |= {"outcome": "failed", "problems": ["the reload failed; see the server's log"]}
            log_failure(_log, "reload failed", effect="`sessionctl policies` shows the policies in force")
        try:
            write_report(report, outcome)
        except OSError as error:
            _log.warning("reload not reported", file=str(report), error=error.strerror)


async def _serve(config: Config, load: Callable[[], Config]) -> int:
    """Serve until SIGTERM or SIGINT (returns 0) or until the store fails (returns 1). SIGHUP reloads."""
    stopping, reloading = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, reloading.set)
    app = await App.start(config)
    _tune_collector()
    manager = ServiceManager(os.environ)
    manager.ready()
    alive = asyncio.create_task(manager.keep_alive())
    stop = asyncio.create_task(stopping.wait())
    reloads = asyncio.create_task(_reload(app, load, reloading, reload_report_in(config.data)))
    memory = asyncio.create_task(MemoryReturn().run())
    await asyncio.wait((stop, app.failure), return_when=asyncio.FIRST_COMPLETED)
    manager.stopping()
    for task in (stop, reloads, memory):
        task.cancel()
    _end_at_next_signal()
    await _stopped(app.stop(), config)
    alive.cancel()
    if not app.failure.done():
        return 0
    click.echo(
        f"Error: {app.failure.result()}. No acknowledged change is lost; repair the disk and start again.", err=True
    )
    return 1


def _end_at_next_signal() -> None:
    """Let another SIGTERM or Ctrl-C end the process at once. What was acknowledged is on the disk."""
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(number, signal.SIG_DFL)


async def _stopped(stop: Coroutine[Any, Any, None], config: Config | SidecarConfig) -> None:
    """Stop, and end the process if that takes much longer than the time for calls, such as with a store that hangs."""
    # Workers first have the time for calls, and then their owner has it.
    seconds = (config.drain_delay + 2 * config.drain_timeout) / 1000 + _LAST_STEPS
    stopping = asyncio.ensure_future(stop)
    done, _ = await asyncio.wait([stopping], timeout=seconds)
    if not done:
        _log.error("not stopped in time", seconds=seconds, effect="ending; everything acknowledged is safe")
        os._exit(1)  # not `sys.exit`: something hangs, perhaps a thread
    stopping.result()


async def _serve_sidecar(config: SidecarConfig, *, is_worker: bool = False) -> int:
    """Serve until SIGTERM or SIGINT; as a worker, also until the owner has ended."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    if is_worker:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it is for the owner
    running = await Sidecar.start(config, is_worker=is_worker)
    _tune_collector()
    ends: list[asyncio.Task[Any]] = [asyncio.create_task(stopping.wait())]
    if is_worker:
        ends.append(asyncio.create_task(owner_is_gone(running.address)))
    manager = ServiceManager({} if is_worker else os.environ)
    manager.ready()
    upkeep = [asyncio.create_task(manager.keep_alive()), asyncio.create_task(MemoryReturn().run())]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    manager.stopping()
    if not is_worker:  # it gets the owner's signal too, if both went to a whole group
        _end_at_next_signal()
    await _stopped(running.stop(), config)
    for one in (*ends, *upkeep):
        one.cancel()
    return 0
