"""Trouble for a cluster: stopped and killed replicas, bad networks, a database that restarts."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from random import Random

from scripts.postgres import LocalPostgres
from tests.consistency.cluster import Cluster
from tests.consistency.members import NearReader, Replica, WorkersReader

__all__ = ["Trouble"]


class Trouble:
    """Makes trouble, one or two kinds at a time, with quiet moments in between, until `is_over` is set."""

    def __init__(self, cluster: Cluster, server: LocalPostgres, dice: Random) -> None:
        self.is_over = False
        self.made: Counter[str] = Counter()
        self.notes: list[tuple[float, str]] = []
        self._cluster = cluster
        self._server = server
        self._dice = dice
        self._kinds: list[tuple[int, Callable[[Replica], Coroutine[None, None, None]]]] = [
            (3, self._stop),
            (3, self._kill),
            (2, self._slow_network),
            (2, self._drop_connections),
            (3, self._black_hole),
            (2, self._restart_database),
        ]
        self._reader_kinds = (self._slow_network, self._drop_connections, self._black_hole, self._stop)
        self._owner_kinds = (*self._reader_kinds, self._kill)
        self._worker_kinds = (self._stop, self._kill, self._kill_owner_of_stopped)

    async def run(self) -> None:
        """Make trouble. Nothing of it is left at the end."""
        while not self.is_over:
            await asyncio.sleep(self._dice.uniform(0.3, 1.5))
            victims = self._dice.sample(self._cluster.replicas, self._dice.choice((1, 1, 2)))
            kinds = self._dice.choices([kind for _, kind in self._kinds], [weight for weight, _ in self._kinds], k=2)
            async with asyncio.TaskGroup() as group:
                if self._cluster.readers and self._dice.random() < 0.7:
                    kind, trouble = self._for_reader(self._dice.choice(self._cluster.readers))
                    self.notes.append((time.monotonic(), kind))
                    self.made[kind] += 1
                    group.create_task(trouble)
                for victim, harm in zip(victims, dict.fromkeys(kinds), strict=False):
                    self.notes.append((time.monotonic(), f"{_name_of(harm)} {victim.number}"))
                    self.made[_name_of(harm)] += 1
                    group.create_task(harm(victim))

    def _for_reader(self, reader: NearReader) -> tuple[str, Coroutine[None, None, None]]:
        """Return trouble for a reader, and what it is called."""
        if not isinstance(reader, WorkersReader):
            harm = self._dice.choice(self._reader_kinds)
            return f"{_name_of(harm)} of a reader", harm(reader)
        if self._dice.random() < 0.5:
            by_owner = self._dice.choice(self._owner_kinds)
            return f"{_name_of(by_owner)} of an owner", by_owner(reader.owner)
        by_worker = self._dice.choice(self._worker_kinds)
        return f"{_name_of(by_worker)} of a worker", by_worker(reader)

    async def _stop(self, victim: Replica | NearReader) -> None:
        victim.pause()
        try:
            await asyncio.sleep(self._dice.choice((0.3, 2.0, 6.5)))
        finally:
            victim.resume()

    async def _kill(self, victim: Replica | WorkersReader) -> None:
        victim.kill()
        try:
            await asyncio.sleep(self._dice.choice((0.0, 0.5, 6.0)))
        finally:
            victim.revive()

    async def _kill_owner_of_stopped(self, worker: WorkersReader) -> None:
        """Stop a worker and kill its owner. When it continues, it has questions, and an owner that is gone."""
        worker.pause()
        worker.owner.kill()
        try:
            await asyncio.sleep(self._dice.choice((0.3, 2.0, 6.5)))
        finally:
            worker.resume()
            worker.owner.revive()

    async def _slow_network(self, victim: Replica | NearReader) -> None:
        delay = self._dice.choice((0.05, 0.4, 1.5))
        if self._dice.random() < 0.7:
            victim.proxy.answer_delay = delay
        if self._dice.random() < 0.7:
            victim.proxy.request_delay = delay
        try:
            await asyncio.sleep(self._dice.uniform(1, 8))
        finally:
            victim.proxy.heal()

    async def _drop_connections(self, victim: Replica | NearReader) -> None:
        for _ in range(self._dice.randint(1, 5)):
            victim.proxy.drop()
            await asyncio.sleep(self._dice.uniform(0.01, 0.5))

    async def _black_hole(self, victim: Replica | NearReader) -> None:
        victim.proxy.black_hole()
        try:
            await asyncio.sleep(self._dice.choice((0.5, 2.5, 7.0)))
            if self._dice.random() < 0.5:
                victim.proxy.drop()  # what was under way never arrives
        finally:
            victim.proxy.heal()

    async def _restart_database(self, _: Replica) -> None:
        how = self._dice.choice((signal.SIGINT, signal.SIGQUIT))  # fast, immediate
        await asyncio.to_thread(self._server.stop, how)
        await asyncio.sleep(self._dice.choice((0.0, 0.0, 4.0)))
        await asyncio.to_thread(self._server.start)


def _name_of(kind: Callable[..., object]) -> str:
    return kind.__name__.strip("_").replace("_", " ")
