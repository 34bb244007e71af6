"""`sessiond`: the server's command line."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click
import structlog
import uvloop

from sessiond import __version__
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
    parse_listen,
    parse_upstream,
    sidecar_overrides_in,
    unknown_variables,
    variable_of,
)
from sessiond.config.data_folder import reload_report_in
from sessiond.crypto.key_file import BadKeyFile
from sessiond.detection.client_facts import BadNetworkFile
from sessiond.domain.text import looks_like_token, printable, without_tokens
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

__all__ = ["MISCONFIGURED", "main"]

MISCONFIGURED = 78
"""The exit code if the server did not start and cannot until somebody changes something: EX_CONFIG of sysexits.h."""
_WRONG_USAGE = 2
_LAST_STEPS = 10.0
"""Seconds that a stop may take beside what it gives to calls."""
_DEFAULT_FILE = Path("sessiond.toml")
_OPTIONS = {
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


class _Failure(click.ClickException):
    """The server did not start: another process has what it needs, and a supervisor may try again."""

    def __init__(self, error: Exception | str) -> None:
        # A key or a path may hold any character, and the text goes to a terminal or a log.
        super().__init__("\n".join(printable(line) for line in without_tokens(str(error)).split("\n")))

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the message to `file`; None: standard error. Each line is an error of its own."""
        for line in self.message.split("\n"):
            click.echo(f"Error: {line}", file=file, err=file is None)


class _Misconfigured(_Failure):
    """The server did not start, and cannot until somebody changes something."""

    exit_code = MISCONFIGURED


class _WrongUsage(_Failure):
    """The command line is wrong. One line, unlike click's own three."""

    exit_code = _WRONG_USAGE


@contextmanager
def _one_line_for_wrong_usage(ctx: click.Context) -> Iterator[None]:
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise  # this prints the help
    except click.UsageError as error:
        from sessionctl.failures import usage_text  # imported here: the server does not need the operator's tools

        raise _WrongUsage(usage_text(error, ctx)) from None


class _Commands(click.Group):
    """The commands of `sessiond`. Wrong usage of any of them is reported in one line, as `sessionctl` does."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if any(map(looks_like_token, args)):
            raise _WrongUsage("an argument looks like a token; sessiond takes no tokens, and others can read arguments")
        with _one_line_for_wrong_usage(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with _one_line_for_wrong_usage(ctx):
            return super().invoke(ctx)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            from sessionctl.failures import unknown_command  # imported here, as above

            raise unknown_command(self, ctx, args[0])
        return super().resolve_command(ctx, args)


def _folder(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value == "":
        raise click.BadParameter("must be the path of a folder")
    return value


def _listen(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    try:
        return value if value is None else parse_listen(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _upstream(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    try:
        return value if value is None else parse_upstream(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _help(parameter: str, text: str) -> str:
    """Return the help text of an option, with its environment variable."""
    return f"{text} [env: {variable_of(_OPTIONS[parameter])}]"


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sessiond")
def main() -> None:
    """A session authority: opens, validates, renews, rolls, expires and revokes web sessions over gRPC."""


@main.command()
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    envvar="SESSIOND_CONFIG",
    help="The configuration file. Default: ./sessiond.toml, if it exists. [env: SESSIOND_CONFIG]",
)
@click.option(
    "--data",
    callback=_folder,
    metavar="PATH",
    help=_help("data", "The folder with the key file and the SQLite database. Default: ./data."),
)
@click.option(
    "--listen",
    callback=_listen,
    metavar="ADDRESS",
    help=_help("listen", "HOST:PORT (port 0: any free port) or unix:PATH. Default: 127.0.0.1:7443."),
)
@click.option(
    "--transport",
    type=click.Choice(["grpcio", "native"]),
    help=_help("transport", "What carries the calls. native: faster; needs the extra `native`."),
)
@click.option(
    "--tls-certificate",
    metavar="FILE",
    help=_help("tls_certificate", "Serve TLS with the certificate in this PEM file. Read again when it changes."),
)
@click.option("--tls-key", metavar="FILE", help=_help("tls_key", "The private key of the certificate, in PEM form."))
@click.option(
    "--tls-client-ca",
    metavar="FILE",
    help=_help("tls_client_ca", "Require certificates of clients, signed by one in this PEM file."),
)
@click.option(
    "--allow-remote-plaintext",
    is_flag=True,
    default=None,
    help=_help("allow_remote_plaintext", "Listen on an address that other machines can reach, without encryption."),
)
@click.option(
    "--allow-without-callers",
    is_flag=True,
    default=None,
    help=_help("allow_without_callers", "Give full access to everyone who can connect from other machines."),
)
@click.option(
    "--workers",
    type=click.IntRange(0, 256),
    help=_help("workers", "How many processes answer on the port, besides the one that owns the store."),
)
@click.option(
    "--log-format",
    type=click.Choice(["auto", "json", "console"]),
    help=_help("log_format", "The format of the log. auto: console on a terminal, else json."),
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    help=_help("log_level", "The least severe level that is logged."),
)
def serve(file: Path | None, **options: Any) -> None:
    """Start the server.

    Options override environment variables, which override the configuration file. Every key of [server],
    [server.tls], [log], [networks] and [limits] has a variable: SESSIOND_MAX_CALLS for server.max_calls,
    SESSIOND_TLS_KEY for server.tls.key, SESSIOND_LOG_LEVEL for log.level, SESSIOND_NETWORKS_OPERATORS for
    networks.operators, SESSIOND_LIMITS_BURST for limits.burst. Without a file there is one application, `default`.

    Exit codes: 0 stopped by SIGTERM or SIGINT; 1 the store failed, the server cannot listen on the address, another
    process uses the data folder, or a worker does not start; 2 wrong usage; 78 the configuration, a file that it names,
    the data folder or the database cannot be used.
    """
    chosen = file
    overrides = overrides_in(os.environ)
    overrides += [
        Override(_OPTIONS[name], value, f"--{name.replace('_', '-')}")
        for name, value in options.items()
        if value is not None
    ]

    def load() -> Config:
        nonlocal chosen
        # A default file that was written after the start counts too. Once it was read it must stay.
        if chosen is None and _DEFAULT_FILE.exists():
            chosen = _DEFAULT_FILE
        return load_config(chosen, overrides)

    try:
        config = load()
        _set_up(config)
        sys.exit(uvloop.run(_serve(config, load)))
    except (CannotListen, StoreHeld, WorkersFailed) as error:
        raise _Failure(error) from error
    except (
        BadAuditFile,
        BadConfig,
        BadKeyFile,
        BadNetworkFile,
        BadTls,
        BadTracing,
        OpenToOthers,
        RemotePlaintext,
        StoreRefused,
        WorkersNeedPort,
    ) as error:
        raise _Misconfigured(error) from error


@main.command()
@click.option(
    "--upstream",
    callback=_upstream,
    metavar="ADDRESS",
    help="The authority: HOST:PORT or unix:PATH. Default: 127.0.0.1:7443. [env: SESSIOND_UPSTREAM]",
)
@click.option(
    "--upstream-ca",
    metavar="FILE",
    help="Use TLS, and accept certificates signed by one in this PEM file. [env: SESSIOND_UPSTREAM_CA]",
)
@click.option(
    "--upstream-certificate",
    metavar="FILE",
    help="Present the client certificate in this PEM file. Read again when it changes. "
    "[env: SESSIOND_UPSTREAM_CERTIFICATE]",
)
@click.option(
    "--upstream-key",
    metavar="FILE",
    help="The private key of that certificate, in PEM form. [env: SESSIOND_UPSTREAM_KEY]",
)
@click.option(
    "--key-file",
    metavar="FILE",
    help="The key of the sidecar itself, if the authority has callers. [env: SESSIOND_KEY_FILE]",
)
@click.option(
    "--listen",
    callback=_listen,
    metavar="ADDRESS",
    help="unix:PATH or HOST:PORT. Default: unix:sessiond-sidecar.sock. [env: SESSIOND_LISTEN]",
)
@click.option(
    "--http-listen",
    callback=_listen,
    metavar="ADDRESS",
    help="Where proxies ask over HTTP: unix:PATH or HOST:PORT. Default: nowhere. [env: SESSIOND_HTTP_LISTEN]",
)
@click.option(
    "--metrics-listen",
    callback=_listen,
    metavar="ADDRESS",
    help="Where Prometheus asks for metrics: unix:PATH or HOST:PORT. Default: nowhere. [env: SESSIOND_METRICS_LISTEN]",
)
@click.option(
    "--tracing",
    metavar="URL",
    help="The OpenTelemetry collector to which traces are sent: http://HOST:PORT, https://HOST:PORT, or env: the "
    "variables OTEL_*. Default: none. [env: SESSIOND_TRACING]",
)
@click.option(
    "--socket-mode",
    type=click.Choice(["0600", "0660"]),
    help="Who may connect to the Unix socket: its user, or its group too. [env: SESSIOND_SOCKET_MODE]",
)
@click.option(
    "--allow-remote-plaintext",
    is_flag=True,
    default=None,
    help="Send tokens over a network without encryption. [env: SESSIOND_ALLOW_REMOTE_PLAINTEXT]",
)
@click.option(
    "--cache-entries", type=int, help="How many answers are kept. Default: 100,000. [env: SESSIOND_CACHE_ENTRIES]"
)
@click.option(
    "--cache-bytes",
    type=int,
    help="About how many bytes they may take. Default: 256,000,000. [env: SESSIOND_CACHE_BYTES]",
)
@click.option(
    "--max-calls", type=int, help="How many calls are served at once. Default: 3,000. [env: SESSIOND_MAX_CALLS]"
)
@click.option(
    "--max-streams",
    type=int,
    help="How many streams are forwarded at once. Default: 1,000. [env: SESSIOND_MAX_STREAMS]",
)
@click.option(
    "--drain-delay",
    metavar="DURATION",
    help="How long to serve on after SIGTERM, for load balancers. Default: 0s. [env: SESSIOND_DRAIN_DELAY]",
)
@click.option(
    "--drain-timeout",
    metavar="DURATION",
    help="How long calls under way may then take. Default: 5s. [env: SESSIOND_DRAIN_TIMEOUT]",
)
@click.option(
    "--log-format",
    type=click.Choice(["auto", "json", "console"]),
    help=_help("log_format", "The format of the log. auto: console on a terminal, else json."),
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    help=_help("log_level", "The least severe level that is logged."),
)
def sidecar(**options: Any) -> None:
    """Serve the authority's service on a local address.

    Repeated validations are answered from memory, which follows the authority's changes. Everything else is forwarded.
    While the authority cannot be reached, calls that cannot be answered from memory are refused. Options override
    environment variables.

    Exit codes: 0 stopped by SIGTERM or SIGINT; 1 cannot listen on the address; 2 wrong usage; 78 a setting cannot be
    used.
    """
    overrides = sidecar_overrides_in(os.environ)
    overrides += [
        Override(name, value, f"--{name.replace('_', '-')}") for name, value in options.items() if value is not None
    ]
    try:
        config = load_sidecar(overrides)
        _set_up(config)
        sys.exit(uvloop.run(_serve_sidecar(config)))
    except CannotListen as error:
        raise _Failure(error) from error
    except (BadConfig, BadKey, BadTls, BadTracing, RemotePlaintext) as error:
        raise _Misconfigured(error) from error


@main.command(hidden=True)
@click.option("--upstream", required=True)
@click.option("--listen", required=True)
@click.option("--cache-entries", type=int, required=True)
@click.option("--max-calls", type=int, required=True)
@click.option("--max-streams", type=int, required=True)
@click.option("--drain-delay", required=True)
@click.option("--drain-timeout", required=True)
@click.option("--log-format", required=True)
@click.option("--log-level", required=True)
@click.option("--tracing", required=True)
def worker(**options: Any) -> None:
    """Answer on a port for `sessiond serve --workers`, which starts this."""
    try:
        config = load_sidecar([Override(name, value, f"--{name.replace('_', '-')}") for name, value in options.items()])
        set_up_logs(config.log_format, config.log_level)
        sys.exit(uvloop.run(_serve_sidecar(config, is_worker=True)))
    except CannotListen as error:
        raise _Failure(error) from error


@main.command("check-config")
@click.argument("file", type=click.Path(path_type=Path), default=_DEFAULT_FILE)
@click.option("--strict", is_flag=True, help="Exit with code 1 if a setting is weak or a file is missing.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON, one finding per line.")
def check_config(file: Path, strict: bool, as_json: bool) -> None:
    """Check a configuration file, ./sessiond.toml by default.

    Reports errors, settings that are weaker than OWASP, ASVS 5.0 or NIST recommend, and files that FILE names and that
    are not on this machine. What those files, the environment and the data folder contain is not checked.

    Exit codes: 0 the file can be used; 1 a setting is weaker than the guidance or a file is missing (--strict); 2
    wrong usage; 78 the file cannot be used.
    """
    from sessionctl.checking import check  # imported here: the server does not need the operator's tools

    sys.exit(check(file, strict=strict, json=as_json))


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
