"""The figure about the near cache: validations with session data from memory, beside reading sessions from Redis.

Each side is one thread of one process that makes one call after the other, as a worker of a synchronous web server
does. The near cache is open and follows a server in a process of its own; Redis is a process of its own too.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

from bench.load import LoadFailed, Run
from bench.processes import Server, serving, sessiond
from bench.redis_server import running_redis
from bench.results import Figure, Result, Settings, alternate
from bench.seed import client_of
from bench.sides import Reporter
from sessiond_client import AsyncClient, Client, ClientContext, Token, Validation

__all__ = ["NEAR_CACHE_FIGURES"]

_SESSIONS = 1_000
_SPREAD = 7919  # a prime number: runs are spread over all sessions
_TIME_TO_LIVE = 1_800
_KEY = "session"
_OPENS_WITHIN = 10.0

Loop = Callable[[int, int], None]
"""Makes so many calls, beginning with the session of this number, and verifies each."""


def _stored(number: int) -> bytes:
    """Return a session's data, as Flask-Session stores it."""
    session = {
        "_permanent": True,
        "_user_id": f"user-{number:07d}",
        "_fresh": True,
        "csrf_token": f"{number:040x}",
        "cart": [number, number + 1],
    }
    return json.dumps(session).encode()


class _Calls:
    """One side: calls one after the other."""

    def __init__(self, server: Server, requests: int, loop: Loop) -> None:
        self.server = server
        self._requests = requests
        self._loop = loop

    def run(self, number: int) -> Run:
        """Run the load once."""
        cpu, begun = self.server.cpu_seconds(), time.perf_counter()
        self._loop((number + 1) * self._requests, self._requests)
        seconds, cpu = time.perf_counter() - begun, self.server.cpu_seconds() - cpu
        each = seconds / self._requests
        return Run(
            server=self.server.name,
            requests=self._requests,
            seconds=seconds,
            throughput=1 / each,
            body_bytes=0,
            latency_mean_ms=each * 1_000,
            latency_max_ms=0.0,
            server_cpu_us=cpu / self._requests * 1e6,
            server_cores=cpu / seconds,
        )


class _Sessions:
    """The sessions of the subject, with their tokens and client contexts."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.tokens: list[Token] = []
        self.contexts: list[ClientContext] = []
        self.data = [_stored(number) for number in range(_SESSIONS)]
        for number in range(_SESSIONS):
            seen = client_of(number)
            self.contexts.append(ClientContext(ip_address=seen.ip_address, user_agent=seen.user_agent))
            made = client.create(subject=f"user-{number:07d}", client=self.contexts[-1], data={_KEY: self.data[number]})
            self.tokens.append(made.token)

    def warm_up(self) -> None:
        """Open the cache, and ask about each session once."""
        give_up = time.monotonic() + _OPENS_WITHIN
        while self.client.near_cache is None or not self.client.near_cache.is_open:
            self.client.validate(self.tokens[0], client=self.contexts[0], data=True)
            if time.monotonic() > give_up:
                raise LoadFailed("the near cache did not open")
        self.validate(0, _SESSIONS)

    def validate(self, first: int, count: int) -> None:
        """Validate with session data."""
        validate, tokens, contexts, data = self.client.validate, self.tokens, self.contexts, self.data
        for number in range(first, first + count):
            index = number * _SPREAD % _SESSIONS
            answer = validate(tokens[index], client=contexts[index], data=True)
            _check(answer, data[index])

    def validate_and_decode(self, first: int, count: int) -> None:
        """Validate with session data, for a client context that is new each time, and decode the data."""
        validate, tokens, contexts = self.client.validate, self.tokens, self.contexts
        for number in range(first, first + count):
            index = number * _SPREAD % _SESSIONS
            seen = contexts[index]
            context = ClientContext(ip_address=seen.ip_address, user_agent=seen.user_agent)
            answer = validate(tokens[index], client=context, data=True)
            if answer.data is None or json.loads(answer.data.values[_KEY])["cart"] != [index, index + 1]:
                raise LoadFailed("a validation had the wrong data")


def _check(answer: Validation, data: bytes) -> None:
    if not answer.valid or answer.data is None or answer.data.values[_KEY] != data:
        raise LoadFailed("a validation had the wrong answer")


def _near_cache_vs_redis(settings: Settings, result: Result, reporter: Reporter) -> None:
    result.under_load = False  # the subject's server has next to nothing to do
    many, few = 8 * settings.validations, settings.validations // 4
    command = sessiond(settings.folder / "near-cache")
    with (
        serving("sessiond", command, settings.folder / "near-cache.log") as server,
        running_redis(settings.folder) as redis,
        Client(server.address, near_cache=True) as client,
    ):
        sessions = _Sessions(client)
        sessions.warm_up()
        baseline = _Calls(redis, few, _reading(redis))
        alternate(result, _Calls(server, many, sessions.validate), baseline, settings.pairs, reporter)
        result.details["with_a_new_context_and_json"] = _beside(
            settings, result, _Calls(server, many // 2, sessions.validate_and_decode), baseline, reporter
        )
        with asyncio.Runner() as runner:
            own = AsyncClient(server.address, near_cache=True)
            try:
                loop = _awaiting(runner, own, sessions)
                result.details["of_async_client"] = _beside(
                    settings, result, _Calls(server, many // 2, loop), baseline, reporter
                )
            finally:
                runner.run(own.close())
        stats = client.near_cache
        result.details.update(live_sessions=_SESSIONS, hits=stats.hits if stats else 0)
    result.subject, result.baseline = "Client.validate with data, near cache", "redis-py GETEX and JSON"
    result.details["microseconds"] = {side: 1e6 / result.median(side, "throughput") for side in ("subject", "baseline")}


def _beside(settings: Settings, result: Result, subject: _Calls, baseline: _Calls, reporter: Reporter) -> float:
    other = Result(f"{result.name}, variant", None, False, "", "")
    alternate(other, subject, baseline, min(settings.pairs, 5), reporter)
    return other.ratio


def _awaiting(runner: asyncio.Runner, client: AsyncClient, sessions: _Sessions) -> Loop:
    async def validate(first: int, count: int) -> None:
        for number in range(first, first + count):
            index = number * _SPREAD % _SESSIONS
            answer = await client.validate(sessions.tokens[index], client=sessions.contexts[index], data=True)
            _check(answer, sessions.data[index])

    async def warm_up() -> None:
        while client.near_cache is None or not client.near_cache.is_open:
            await client.validate(sessions.tokens[0])
            await asyncio.sleep(0.01)
        await validate(0, _SESSIONS)

    runner.run(warm_up())
    return lambda first, count: runner.run(validate(first, count))


def _reading(server: Server) -> Loop:
    """Read sessions as Flask-Session does: GETEX, which extends the time to live, and JSON."""
    from redis import Redis

    host, _, port = server.address.rpartition(":")
    client: Any = Redis(host=host, port=int(port))
    for number in range(_SESSIONS):
        client.set(f"session:{number}", _stored(number), ex=_TIME_TO_LIVE)

    def read(first: int, count: int) -> None:
        for number in range(first, first + count):
            index = number * _SPREAD % _SESSIONS
            if json.loads(client.getex(f"session:{index}", ex=_TIME_TO_LIVE))["cart"] != [index, index + 1]:
                raise LoadFailed("Redis returned another session")

    return read


NEAR_CACHE_FIGURES = (Figure("near_cache_vs_redis", 30.0, _near_cache_vs_redis, needs_redis=True),)
