"""One process of clients with near caches. `python -m tests.soak.worker` reads its `Task` as JSON from its arguments.

It writes a line of JSON: one when every client's cache is open and every session of its share was used, and then one
whenever standard input has a line. It ends when standard input does.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import threading
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.seed import Seeded, ready
from sessiond_client import AsyncClient, SessiondError
from tests.soak.resources import resources

__all__ = ["Task"]

_HOT = 100
"""How many sessions a client uses again and again."""
_COLD = 0.01
"""The part of its validations that are about any session of its share."""
_PAUSE = 0.05
"""Seconds between two validations of a client, and between two lives of a process, on average."""
_LIFE_PAUSE = 0.2
_CACHED = 120
"""Answers that a client's cache holds: few enough that it is full soon, and makes room all the time after that."""
_GROUP = 500


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker does.

    clients  how many clients it has
    number   which of `of` workers it is: its share of the sessions is every `of`th
    """

    address: str
    folder: str
    sessions: int
    config: str
    clients: int
    number: int
    of: int


class _Worker:
    def __init__(self, task: Task, seeded: Seeded) -> None:
        self._task = task
        self._random = random.Random(task.number)
        self._share = range(task.number, task.sessions, task.of)
        self._seeded = seeded
        self._clients = [
            AsyncClient(task.address, near_cache=True, near_cache_entries=_CACHED, timeout=20.0)
            for _ in range(task.clients)
        ]
        self.counts: Counter[str] = Counter()

    async def warm_up(self) -> None:
        """Use each session of the share once, and open every cache."""
        first = self._clients[0]
        for start in range(0, len(self._share), _GROUP):
            tokens = [self._seeded.token(number) for number in self._share[start : start + _GROUP]]
            assert all(answer.valid for answer in await first.validate_many(tokens))
        for client in self._clients:
            while client.near_cache is not None and not client.near_cache.is_open:
                await client.validate(self._seeded.token(self._share[0]))
                await asyncio.sleep(0.02)

    async def use(self, client: AsyncClient) -> None:
        """Validate for ever, mostly the same sessions."""
        hot = [self._seeded.token(self._random.choice(self._share)) for _ in range(_HOT)]
        while True:
            token = self._random.choice(hot)
            if self._random.random() < _COLD:
                token = self._seeded.token(self._random.choice(self._share))
            try:
                answer = await client.validate(token, data=True)
            except SessiondError:
                self.counts["errors"] += 1
            else:
                self.counts["validations"] += 1
                self.counts["wrongly denied"] += not answer.valid
            await asyncio.sleep(_PAUSE * (0.5 + self._random.random()))

    async def live(self) -> None:
        """Log in, use, change and revoke sessions for ever; every second revocation is awaited, and then checked."""
        number = 0
        while True:
            number += 1
            try:
                await self._one_life(number, awaited=number % 2 == 0)
            except SessiondError:
                self.counts["errors"] += 1
            await asyncio.sleep(_LIFE_PAUSE * (0.5 + self._random.random()))

    async def _one_life(self, number: int, *, awaited: bool) -> None:
        users = self._random.sample(self._clients, 3)
        guest = await users[0].create(data={"cart": b"x" * 100})
        subject = f"subject-{self._task.number}-{number % 50}"
        login = await users[0].authenticate(guest.token, subject)
        assert login.token is not None
        for _ in range(2):
            for client in users:
                await client.validate(login.token, data=True, at_least="")
        await users[1].update_data(token=login.token, set={"cart": b"y" * 200})
        await users[2].validate(login.token, data=True)
        await users[0].revoke(token=login.token, reason="soak", wait_for_caches=awaited)
        self.counts["lives"] += 1
        if awaited:
            self.counts["awaited"] += 1
            for answer in await asyncio.gather(*(client.validate(login.token, data=True) for client in self._clients)):
                self.counts["yes after an awaited revocation"] += answer.valid

    def report(self) -> dict[str, Any]:
        """What this process takes now, and what it has done."""
        caches = [client.near_cache for client in self._clients]
        found = [stats for stats in caches if stats is not None]
        return {
            **resources("self"),
            "tasks": len(asyncio.all_tasks()),
            "threads": threading.active_count(),
            "hits": sum(stats.hits for stats in found),
            "misses": sum(stats.misses + stats.closed for stats in found),
            "entries": sum(stats.entries for stats in found),
            "open": sum(stats.is_open for stats in found),
            **self.counts,
        }

    async def run(self) -> None:
        """Work until standard input ends."""
        await self.warm_up()
        tasks = [asyncio.create_task(self.use(client)) for client in self._clients]
        tasks.append(asyncio.create_task(self.live()))
        _say(self.report())
        while await asyncio.to_thread(sys.stdin.readline):
            for task in tasks:
                if task.done():
                    task.result()
            _say(self.report())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for client in self._clients:
            await client.close()


def _say(report: dict[str, Any]) -> None:
    print(json.dumps(report), flush=True)  # noqa: T201 - what the other process reads


def _main() -> None:
    task = Task(**json.loads(sys.argv[1]))
    seeded = ready(Path(task.folder), task.sessions, task.config)
    if seeded is None:
        raise SystemExit("the store is not the one that the task describes")
    asyncio.run(_Worker(task, seeded).run())


def arguments_for(task: Task) -> list[str]:
    """The command of a worker."""
    return [sys.executable, "-m", "tests.soak.worker", json.dumps(asdict(task))]


if __name__ == "__main__":
    _main()
