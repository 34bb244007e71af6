"""The figure `latency`: percentiles of each path at fixed offered loads. See `bench.open_loop` for the method.

One client process asks all paths, one after the other, on one event loop: `python -m bench.latency`. It reads its task
as JSON from its standard input and prints one line of JSON for each run. To add a path, add one entry to `PATHS`.
"""

from __future__ import annotations

import asyncio
import json
import os
import selectors
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    ExitStack,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import BytesValue
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.box import SIMPLE_HEAD
from rich.table import Table

from bench import echo
from bench.coalescing import stored_sessions
from bench.load import LoadFailed
from bench.open_loop import Load, histogram, offer, percentile
from bench.processes import Server, serving, sessiond, sidecar
from bench.processes import echo as echo_command
from bench.redis_server import running_redis
from bench.results import Figure, Result, Settings
from bench.seed import APPLICATION, EVERY_SIGNAL, client_of
from bench.sides import Reporter, expect
from sessiond.sidecar.endpoint import CACHE_SERVICE
from sessiond_client import AsyncClient, ClientContext, Token, json_data

__all__ = ["LATENCY_FIGURES", "LOADS", "PATHS", "LatencyPath", "Place", "Sessions", "latency_table"]

_SESSIONS = 500
_SPREAD = 7919  # a prime number: consecutive questions are about different sessions
_AT_ONCE = 32
_WARM_UP_SECONDS = 0.3
_OPEN_SECONDS = 20.0
"""Within that time a cache must follow its authority."""
_ROUNDS = 3
_REQUEST_BYTES, _RESPONSE_BYTES = 210, 528
"""The sizes of a unary validation, as `validate_vs_echo` measures them."""
LOADS = (Load(200, 5.0), Load(1_000, 3.0))
"""The offered loads. Each run has at least 1,000 questions, so that its p99.9 is not simply the slowest one."""
_SHARES = {"p50_us": 0.5, "p99_us": 0.99, "p99_9_us": 0.999}

Ask = Callable[[int], Awaitable[None]]


class Place:
    """Where the servers of a measurement run. Each is started once, when a path first needs it."""

    def __init__(self, folder: Path, echo_loop: str) -> None:
        self.folder = folder
        self.echo_loop = echo_loop
        self._running = ExitStack()
        self._servers: dict[Any, Server] = {}

    def __enter__(self) -> Place:
        self.folder.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def server(self, start: StartServer) -> Server:
        """Return the server that `start` runs. A sidecar's `start` asks for its authority in this way."""
        if start not in self._servers:
            self._servers[start] = self._running.enter_context(start(self))
        return self._servers[start]


StartServer = Callable[[Place], AbstractContextManager[Server]]


def _authority(place: Place) -> AbstractContextManager[Server]:
    """Run an authority with the default policy, in which no signal is ignored."""
    config = place.folder / "sessiond.toml"
    config.write_text(EVERY_SIGNAL, encoding="utf-8")
    return serving("sessiond", sessiond(place.folder / "data", config), place.folder / "sessiond.log")


def _native(place: Place) -> AbstractContextManager[Server]:
    """Run the same authority on the native transport."""
    config = place.folder / "native.toml"
    config.write_text(EVERY_SIGNAL, encoding="utf-8")
    command = sessiond(place.folder / "native", config, transport="native")
    return serving("sessiond, native", command, place.folder / "native.log")


@contextmanager
def _sidecar(place: Place) -> Iterator[Server]:
    """Run a sidecar of the authority that the other paths ask. It answers from memory when this yields."""
    with serving("sidecar", sidecar(place.server(_authority)), place.folder / "sidecar.log") as server:
        request = health_pb2.HealthCheckRequest(service=CACHE_SERVICE)
        with grpc.insecure_channel(server.address) as channel:
            check, end = health_pb2_grpc.HealthStub(channel).Check, time.monotonic() + _OPEN_SECONDS
            while check(request, timeout=_OPEN_SECONDS).status != health_pb2.HealthCheckResponse.SERVING:
                expect(time.monotonic() < end, "the sidecar does not answer from memory; see its log")
                time.sleep(0.01)
        yield server


def _echo(place: Place) -> AbstractContextManager[Server]:
    return serving("echo", echo_command(_RESPONSE_BYTES, place.echo_loop), place.folder / "echo.log")


def _redis(place: Place) -> AbstractContextManager[Server]:
    return running_redis(place.folder)


_Session = tuple[Token, str, ClientContext]


class Sessions:
    """The sessions of each authority in the client process: opened once, with data, each with a client of its own."""

    def __init__(self) -> None:
        self._opened: dict[str, list[_Session]] = {}

    async def at(self, address: str) -> list[_Session]:
        """Return token, id and client of each session of that authority."""
        if address not in self._opened:
            async with AsyncClient(address, application=APPLICATION, timeout=30) as client:
                self._opened[address] = [await _open(client, number) for number in range(_SESSIONS)]
        return self._opened[address]


async def _open(client: AsyncClient, number: int) -> _Session:
    seen = client_of(number)
    context = ClientContext(ip_address=seen.ip_address, user_agent=seen.user_agent)
    data = json_data.encode({"cart": [number, number + 1], "csrf_token": f"{number:040x}"})
    created = await client.create(subject=f"user-{number:07d}", client=context, data=data)
    return created.token, created.session.session_id, context


@dataclass(frozen=True, slots=True)
class LatencyPath:
    """One way to ask about a session.

    name, title  in the report, and for people
    start        runs the server that is asked, in the process of the bench
    connect      connects to its address, in the client process, and yields what asks one question. Each answer must be
                 verified
    """

    name: str
    title: str
    start: StartServer
    connect: Callable[[str, Sessions], AbstractAsyncContextManager[Ask]]


@asynccontextmanager
async def _asking_redis(address: str, _: Sessions) -> AsyncIterator[Ask]:
    from redis.asyncio import BlockingConnectionPool, Redis

    await (await stored_sessions(Server("redis", 0, address), _SESSIONS)).aclose()
    # When all connections are in use, the plain pool raises an error; this one waits, as a saturated side should. The
    # warm-up opens all of them: to open connections during a stall would make it longer.
    pool: Any = BlockingConnectionPool.from_url(f"redis://{address}", max_connections=_AT_ONCE, timeout=30)
    client: Any = Redis.from_pool(pool)

    async def ask(number: int) -> None:
        number = number * _SPREAD % _SESSIONS
        stored = json.loads(await client.getex(f"session:{number}", ex=1_800))
        expect(stored["_user_id"] == f"user-{number:07d}", "Redis returned another session")

    try:
        yield ask
    finally:
        await client.aclose()


@asynccontextmanager
async def _asking_echo(address: str, _: Sessions) -> AsyncIterator[Ask]:
    request, wanted = echo.sized(_REQUEST_BYTES), echo.sized(_RESPONSE_BYTES).ByteSize()
    async with grpc.aio.insecure_channel(address) as channel:
        method: Any = channel.unary_unary(
            echo.PATH, request_serializer=BytesValue.SerializeToString, response_deserializer=BytesValue.FromString
        )

        async def ask(_: int) -> None:
            expect((await method(request)).ByteSize() == wanted, "the echo returned another number of bytes")

        yield ask


def asking(*, data: bool = False, **options: Any) -> Callable[[str, Sessions], AbstractAsyncContextManager[Ask]]:
    """Return what validates through an `AsyncClient` with these options, and with `data` reads session data too."""

    @asynccontextmanager
    async def connect(address: str, opened: Sessions) -> AsyncIterator[Ask]:
        sessions = await opened.at(address)
        async with AsyncClient(address, application=APPLICATION, timeout=30, **options) as client:

            async def ask(number: int) -> None:
                token, session_id, context = sessions[number * _SPREAD % len(sessions)]
                answer = await client.validate(token, client=context, data=data)
                if not answer.valid or answer.session is None or answer.session.session_id != session_id:
                    raise LoadFailed("a validation had the wrong answer")
                if data and (answer.data is None or "cart" not in json_data.decode(answer.data.values)):
                    raise LoadFailed("a validation returned no data")

            if options.get("near_cache"):
                await _until_open(client, ask)
            yield ask

    return connect


async def _until_open(client: AsyncClient, ask: Ask) -> None:
    """Wait until the near cache follows the authority; the first question makes it begin."""
    async with asyncio.timeout(_OPEN_SECONDS):
        while client.near_cache is None or not client.near_cache.is_open:
            await ask(0)
            await asyncio.sleep(0.01)


PATHS = (
    LatencyPath("redis", "redis.asyncio, GETEX and JSON", _redis, _asking_redis),
    LatencyPath("echo", "bare grpc.aio echo, unary", _echo, _asking_echo),
    LatencyPath("unary", "validation, one call each", _authority, asking(coalesce=False)),
    LatencyPath("native", "native transport, one call each", _native, asking(coalesce=False)),
    LatencyPath("sidecar", "sidecar, one call each", _sidecar, asking(coalesce=False)),
    LatencyPath("coalesced", "validation, default client", _authority, asking()),
    LatencyPath("near_cache", "near cache, data included", _authority, asking(near_cache=True, data=True)),
)


def _latency(settings: Settings, result: Result, reporter: Reporter) -> None:
    result.under_load = False
    loads = [Load(load.per_second, min(load.seconds, settings.latency_seconds)) for load in LOADS]
    rounds = max(_ROUNDS, settings.pairs * 3 // 5)
    runs: list[dict[str, Any]] = []
    with Place(settings.folder / result.name, settings.echo_loop) as place:
        reporter.step("latency: starting the servers")
        addresses = {path.name: place.server(path.start).address for path in PATHS}
        task = {"addresses": addresses, "loads": [asdict(load) for load in loads], "rounds": rounds}
        whole = rounds * len(loads) * len(PATHS)
        for run in _asked(task):
            runs.append(run)
            reporter.progress(result.name, len(runs), whole)
    for number in range(rounds):
        of_round = [run for run in runs if run["round"] == number]
        slow = {run["path"]: run["p99_us"] for run in of_round if run["per_second"] == loads[0].per_second}
        result.pairs.append({"ratio": slow["coalesced"] / slow["echo"], "runs": of_round})
    result.subject = f"p99 of a validation by the default client at {loads[0].per_second:,.0f}/s"
    result.baseline = "that of the bare echo"
    result.details["latency"] = [_medians(load, runs) for load in loads]


def _asked(task: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Let the client process carry out the task, and yield its runs as they end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.latency"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(task))
        process.stdin.close()
        for line in process.stdout:
            yield json.loads(line)
        expect(process.wait() == 0, "the client process of the figure latency failed; its error is above")
    finally:
        process.kill()
        process.wait()


def _medians(load: Load, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the medians over the rounds for one load, by path. A path is saturated if most of its runs are."""
    paths = {}
    for path in PATHS:
        of_path = [run for run in runs if run["path"] == path.name and run["per_second"] == load.per_second]
        measured = [*_SHARES, "late_p99_us", "answered_per_second"]
        paths[path.name] = {
            "title": path.title,
            "saturated": sum(run["saturated"] for run in of_path) * 2 > len(of_path),
            **{key: statistics.median(run[key] for run in of_path) for key in measured},
        }
    return {"per_second": load.per_second, "seconds": load.seconds, "paths": paths}


def latency_table(latency: list[dict[str, Any]]) -> Table:
    """Return the table of percentiles: `details.latency` of the figure."""
    table = Table(
        title="Latency in ms from the scheduled time (open loop); medians of the rounds",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("offered", justify="right", no_wrap=True)
    table.add_column("path", no_wrap=True)
    for column in ("p50", "p99", "p99.9"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, min_width=len("saturated"))
    for load in latency:
        for number, path in enumerate(load["paths"].values()):
            table.add_row(
                "" if number else f"{load['per_second']:,.0f}/s",
                path["title"],
                *(f"{path[key] / 1_000:,.2f}" for key in _SHARES),
                "saturated" if path["saturated"] else "",
                end_section=number == len(load["paths"]) - 1,
            )
    return table


async def _carry_out(task: dict[str, Any]) -> None:
    """Ask every path at every load, in turn, in each round; each round begins with another path."""
    sessions, first = Sessions(), 0
    for number in range(task["rounds"]):
        for fields in task["loads"]:
            load = Load(**fields)
            turn = number % len(PATHS)
            for path in PATHS[turn:] + PATHS[:turn]:
                run = await _run(path, task["addresses"][path.name], sessions, load, first)
                first += load.count
                print(json.dumps({"round": number, "path": path.name} | run), flush=True)


async def _run(path: LatencyPath, address: str, sessions: Sessions, load: Load, first: int) -> dict[str, Any]:
    # Each run has a new client: nothing that another one left behind runs beside it.
    async with path.connect(address, sessions) as ask:
        for start in range(0, _SESSIONS, _AT_ONCE):
            await asyncio.gather(*(ask(number) for number in range(start, start + _AT_ONCE)))
        await offer(ask, Load(load.per_second, _WARM_UP_SECONDS))
        cpu = _cpu_seconds()
        measured = await offer(ask, load, first)
        cpu = _cpu_seconds() - cpu
    return {
        "per_second": load.per_second,
        "saturated": measured.saturated,
        "unanswered": measured.unanswered,
        "answered_per_second": round(measured.answered_per_second, 1),
        **{key: round(percentile(measured.latencies, share) * 1e6, 1) for key, share in _SHARES.items()},
        "late_p99_us": round(percentile(measured.late, 0.99) * 1e6, 1),
        "client_cpu_us": round(cpu / len(measured.latencies) * 1e6, 1),
        "histogram": histogram(measured.latencies),
    }


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system


def _new_loop() -> asyncio.AbstractEventLoop:
    # epoll waits whole milliseconds, which would be most of the latency of the fast paths; select waits microseconds.
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


LATENCY_FIGURES = (Figure("latency", None, _latency, at_most=True, needs_redis=True),)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        runner.run(_carry_out(json.loads(sys.stdin.read())))
