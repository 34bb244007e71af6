"""One run: random clients and subscribers of three replicas, trouble, and the history of it all."""

from __future__ import annotations

import asyncio
import json
import os
import re
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path
from random import Random
from uuid import UUID

import asyncpg

from scripts.postgres import LocalPostgres
from sessiond_client import EventType
from tests.consistency.clients import LIMITS, POLICIES, Clients
from tests.consistency.cluster import Cluster, running_cluster
from tests.consistency.facts import CREATED
from tests.consistency.history import History, LogEvent
from tests.consistency.recorder import Recorder
from tests.consistency.subscribers import Subscriber
from tests.consistency.trouble import Trouble

__all__ = ["Plan", "Ran", "read_log", "run", "running_database"]

_CATCH_UP = 40.0
_REASON = re.compile(r"operation (\d+)")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do: so many operations in all, by so many clients, with choices that follow from the seed.

    `seconds`: clients work for so long at most. `readers`, `sidecars` and `workers`: how many ask through near caches,
    through sidecars, and through the workers of one more replica, which has that many.
    """

    seed: int = 1
    operations: int = 20_000
    seconds: float = inf
    clients: int = 24
    readers: int = 3
    sidecars: int = 2
    workers: int = 2
    trouble: bool = True


@dataclass(frozen=True, slots=True)
class Ran:
    """A run: its history, what trouble there was how often, and how many validations near caches and workers answered.

    The workers' are all of their answers, also those for which they asked their owner.
    """

    history: History
    trouble: dict[str, int]
    hits: int
    by_workers: int


@asynccontextmanager
async def running_database() -> AsyncIterator[tuple[LocalPostgres, str]]:
    """Run a Postgres that may be restarted, with an empty database, and return its URL too."""
    with tempfile.TemporaryDirectory(prefix="sessiond-postgres-") as folder:
        os.chmod(folder, 0o755)
        # A restarted server finds what its files had in memory, so nothing has to reach the disk.
        server = LocalPostgres(Path(folder) / "server", fsync="off")
        await asyncio.to_thread(server.start)
        try:
            yield server, server.url()
        finally:
            await asyncio.to_thread(server.stop)


async def run(plan: Plan, folder: Path) -> Ran:
    """Carry out a plan. `folder` takes the data of the replicas and their logs."""
    dice = Random(plan.seed)
    async with running_database() as (server, url), running_cluster(folder, url, POLICIES) as cluster:
        for number in range(plan.readers):
            await cluster.add_near_reader(number % 3, (number + 1) % 3)
        for number in range(plan.sidecars):
            await cluster.add_sidecar(folder / f"sidecar-{number}", number % 3, (number + 2) % 3)
        if plan.workers:
            await cluster.add_workers(plan.workers)
        recorder = Recorder(cluster, dice)
        clients, trouble = Clients(cluster, recorder, dice), Trouble(cluster, server, Random(plan.seed))
        subscribers = _subscribers(cluster, dice)
        following = [asyncio.create_task(subscriber.run(), name=subscriber.name) for subscriber in subscribers]
        making = asyncio.create_task(trouble.run()) if plan.trouble else None
        until = asyncio.get_running_loop().time() + plan.seconds
        async with asyncio.TaskGroup() as group:
            for number in range(plan.clients):
                group.create_task(clients.run(f"client {number}", plan.operations, until))
        trouble.is_over = True
        if making is not None:
            await making
        cluster.heal()
        async with asyncio.timeout(60):
            await cluster.until_all_serve()
        await clients.look_at_everything()
        log = await read_log(url)
        with suppress(TimeoutError):  # the checker reports who is behind
            async with asyncio.timeout(_CATCH_UP):
                while any(one.reached < log[-1].revision for one in subscribers):  # noqa: ASYNC110 - they do not signal
                    await asyncio.sleep(0.05)
        for task in following:
            await _cancelled(task)
        log = await read_log(url)
        history = History(
            operations=tuple(recorder.operations),
            validations=tuple(recorder.validations),
            streams=tuple(subscriber.stream() for subscriber in subscribers),
            log=log,
            limits=LIMITS,
            deaths=cluster.deaths(),
            notes=tuple(trouble.notes),
        )
        workers = cluster.places_of_workers()
        by_workers = sum(one.replica in workers and bool(one.verdict) for one in history.validations)
        return Ran(history, dict(trouble.made), cluster.hits(), by_workers)


def _subscribers(cluster: Cluster, dice: Random) -> list[Subscriber]:
    ends = (EventType.SESSION_REVOKED, EventType.SESSION_EXPIRED)
    return [
        *(Subscriber(f"everything {number}", cluster, dice) for number in range(3)),
        Subscriber("from now", cluster, dice, "now"),
        Subscriber("ends", cluster, dice, types=ends),
        Subscriber("some subjects", cluster, dice, subjects=("subject 1", "subject 2", "subject 3")),
    ]


async def read_log(url: str) -> tuple[LogEvent, ...]:
    """Read the table of events."""
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch("SELECT * FROM events ORDER BY revision")
    finally:
        await connection.close()
    return tuple(_log_event(row) for row in rows)


def _log_event(row: asyncpg.Record) -> LogEvent:
    kind, said = row["type"].upper(), _REASON.fullmatch(row["cause_reason"])
    operation = None if said is None else int(said[1])
    if kind == CREATED:
        label = json.loads(row["detail"] or "{}").get("labels", {}).get("operation")
        operation = None if label is None else int(label)
    return LogEvent(
        revision=row["revision"],
        type=kind,
        application=row["application"],
        subject=row["subject"],
        session="" if row["session_id"] is None else str(UUID(bytes=row["session_id"])),
        generation=row["generation"],
        operation=operation,
    )


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
