"""The figures about coalesced validations: one Python client with 256 calls at a time, on both sides.

All sides are driven by the same process, on one event loop, because the cost of a call in the client is what is
compared. Each call has its own coroutine, as in a web application.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import BytesValue

from bench import echo
from bench.load import LoadFailed, Run
from bench.processes import Server, serving, sessiond
from bench.processes import echo as echo_command
from bench.redis_server import running_redis
from bench.results import Figure, Result, Settings, alternate
from bench.seed import APPLICATION, EVERY_SIGNAL, Seeded, client_of, seed
from bench.sides import Reporter, Validation
from sessiond_client import AsyncClient, ClientContext

__all__ = ["COALESCING_FIGURES", "stored_sessions"]

CONCURRENCY = 256
_SESSIONS = 10_000
_SPREAD = 7919  # a prime number: runs are spread over all sessions
_TIME_TO_LIVE = 1_800

Ask = Callable[[int], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ClientRun(Run):
    """One run, and the CPU time of the client process per call, in microseconds, all threads together."""

    client_cpu_us: float


class _Calls:
    """One side: calls by the Python client, 256 at a time. Each response is verified."""

    def __init__(self, server: Server, runner: asyncio.Runner, requests: int, ask: Ask) -> None:
        self.server = server
        self._runner = runner
        self._requests = requests
        self._ask = ask

    def run(self, number: int) -> ClientRun:
        """Run the load once."""
        return self._runner.run(self._drive((number + 1) * self._requests))

    async def _drive(self, first: int) -> ClientRun:
        left = iter(range(first, first + self._requests))
        taken: list[float] = []

        async def caller() -> None:
            for number in left:
                begun = time.perf_counter()
                await self._ask(number)
                taken.append(time.perf_counter() - begun)

        server_cpu, client_cpu, begun = self.server.cpu_seconds(), _cpu_seconds(), time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(CONCURRENCY)))
        seconds = time.perf_counter() - begun
        server_cpu, client_cpu = self.server.cpu_seconds() - server_cpu, _cpu_seconds() - client_cpu
        return ClientRun(
            server=self.server.name,
            requests=len(taken),
            seconds=seconds,
            throughput=len(taken) / seconds,
            body_bytes=0,
            latency_mean_ms=sum(taken) / len(taken) * 1_000,
            latency_max_ms=max(taken) * 1_000,
            server_cpu_us=server_cpu / len(taken) * 1e6,
            server_cores=server_cpu / seconds,
            client_cpu_us=client_cpu / len(taken) * 1e6,
        )


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system


def _validating(client: AsyncClient, seeded: Seeded) -> Ask:
    """Validate sessions, each with its own token and client context, and check whose session the answer is for."""
    tokens = [seeded.token(number) for number in range(seeded.count)]
    ids = [str(seeded.session_id(number)) for number in range(seeded.count)]
    contexts = []
    for number in range(seeded.count):
        seen = client_of(number)
        contexts.append(ClientContext(ip_address=seen.ip_address, user_agent=seen.user_agent))

    async def ask(number: int) -> None:
        number = number * _SPREAD % seeded.count
        answer = await client.validate(tokens[number], client=contexts[number])
        if not answer.valid or answer.session is None or answer.session.session_id != ids[number]:
            raise LoadFailed("a validation had the wrong answer")

    return ask


@contextmanager
def _subject(
    settings: Settings, name: str, runner: asyncio.Runner, reporter: Reporter
) -> Iterator[tuple[_Calls, int, int]]:
    """Run an authority; the side that validates, and the median sizes of a request and of its response."""
    reporter.step(f"{name}: opening {_SESSIONS:,} sessions")
    seeded = asyncio.run(seed(settings.folder / name, _SESSIONS, EVERY_SIGNAL, age_ms=61_000))
    with serving("sessiond", sessiond(seeded.data, seeded.config), settings.folder / f"{name}.log") as server:
        unary = Validation(server, seeded, 0, pulse=False)
        unary.warm_up(seeded.count, reporter)
        sizes = unary.sizes()

        async def connect() -> AsyncClient:
            return AsyncClient(server.address, application=APPLICATION, timeout=30)

        client = runner.run(connect())
        try:
            yield _Calls(server, runner, 4 * settings.validations, _validating(client, seeded)), *sizes
        finally:
            runner.run(client.close())


def _batched_vs_echo(settings: Settings, result: Result, reporter: Reporter) -> None:
    with asyncio.Runner() as runner, _subject(settings, result.name, runner, reporter) as (subject, asked, answered):
        command = echo_command(answered, settings.echo_loop)
        with serving("echo", command, settings.folder / f"{result.name}-echo.log") as server:
            request, wanted = echo.sized(asked), echo.sized(answered).ByteSize()

            async def connect() -> Any:
                return grpc.aio.insecure_channel(server.address)

            channel = runner.run(connect())
            method = channel.unary_unary(
                echo.PATH,
                request_serializer=BytesValue.SerializeToString,
                response_deserializer=BytesValue.FromString,
            )

            async def ask(_: int) -> None:
                if (await method(request)).ByteSize() != wanted:
                    raise LoadFailed("the echo returned another number of bytes")

            baseline = _Calls(server, runner, settings.validations, ask)
            alternate(result, subject, baseline, settings.pairs, reporter)
            runner.run(channel.close())
    result.subject, result.baseline = "AsyncClient.validate, 256 at once", "bare grpc.aio echo, 256 at once"
    result.details.update(
        request_bytes=asked, response_bytes=answered, concurrency=CONCURRENCY, live_sessions=_SESSIONS
    )
    _add_client_cpu(result)


def _batched_vs_redis_aio(settings: Settings, result: Result, reporter: Reporter) -> None:
    with (
        asyncio.Runner() as runner,
        _subject(settings, result.name, runner, reporter) as (subject, _, _),
        running_redis(settings.folder) as server,
    ):
        client = runner.run(stored_sessions(server))

        async def ask(number: int) -> None:
            number = number * _SPREAD % _SESSIONS
            stored = json.loads(await client.getex(f"session:{number}", ex=_TIME_TO_LIVE))
            if stored["_user_id"] != f"user-{number:07d}":
                raise LoadFailed("Redis returned another session")

        baseline = _Calls(server, runner, settings.validations, ask)
        alternate(result, subject, baseline, settings.pairs, reporter)
        runner.run(client.aclose())
    result.subject, result.baseline = "AsyncClient.validate, 256 at once", "redis.asyncio GETEX and JSON, 256 at once"
    result.details.update(concurrency=CONCURRENCY, live_sessions=_SESSIONS)
    _add_client_cpu(result)


def _add_client_cpu(result: Result) -> None:
    for side in ("subject", "baseline"):
        result.details[f"client_cpu_us_of_{side}"] = result.median(side, "client_cpu_us")


async def stored_sessions(server: Server, count: int = _SESSIONS) -> Any:
    """Store sessions as Flask-Session does, as JSON with a time to live, and return the client."""
    from redis.asyncio import Redis

    host, _, port = server.address.rpartition(":")
    client: Any = Redis(host=host, port=int(port), max_connections=CONCURRENCY)
    for number in range(count):
        session = {
            "_permanent": True,
            "_user_id": f"user-{number:07d}",
            "_fresh": True,
            "csrf_token": f"{number:040x}",
            "cart": [number, number + 1],
        }
        await client.set(f"session:{number}", json.dumps(session), ex=_TIME_TO_LIVE)
    return client


COALESCING_FIGURES = (
    Figure("batched_vs_echo", 6.0, _batched_vs_echo),
    Figure("batched_vs_redis_aio", 4.0, _batched_vs_redis_aio, needs_redis=True),
)
