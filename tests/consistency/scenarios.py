"""Directed scenarios: each provokes one mistake within seconds, if a replica makes it. See `broken.py`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.consistency.broken import WORKER_FAULTS
from tests.consistency.broken_near import NEAR_FAULTS, without_protection
from tests.consistency.clients import LIMITS, POLICIES
from tests.consistency.cluster import Cluster, running_cluster
from tests.consistency.facts import Rule
from tests.consistency.history import History
from tests.consistency.recorder import Held, Recorder
from tests.consistency.run import read_log
from tests.support.sidecars import until_healthy

__all__ = ["SCENARIOS", "Scenario", "play"]

_NAME = "scenario"
_SOUND, _SUSPECT, _NEAR, _WORKER = 0, 1, 2, 2
"""The replica that changes sessions, the one that may be broken, and a reader: clients with a near cache of the sound
replica, or the worker of one more replica."""


async def _revoke_what_is_cached(cluster: Cluster, recorder: Recorder) -> None:
    """Revoke sessions on one replica that the other has in its cache."""
    del cluster
    for held in await _cached(recorder, 20):
        await recorder.revoke(_NAME, _SOUND, held, waits=True)
        await recorder.validate(_NAME, _SUSPECT, held)


async def _stop_and_cut_off(cluster: Cluster, recorder: Recorder) -> None:
    """Stop a replica and cut it off from the database until its lease is over; ask it as soon as it continues."""
    sessions, replica = await _cached(recorder, 10), cluster.replicas[_SUSPECT]
    replica.pause()
    replica.proxy.black_hole()
    await _all(recorder.revoke(_NAME, _SOUND, held, waits=True) for held in sessions)
    asking = asyncio.ensure_future(_all(recorder.validate(_NAME, _SUSPECT, held) for held in sessions))
    await asyncio.sleep(0)
    replica.resume()
    await asking
    cluster.heal()
    await _all(recorder.validate(_NAME, _SUSPECT, held) for held in sessions)


async def _delay_grants(cluster: Cluster, recorder: Recorder) -> None:
    """Delay every answer of the database, so that a lease is over for the others before its grant arrives.

    A renewal takes seven answers, and they take longer than the lease. The replica reads the log in between, but not
    what is revoked after that. The revocation waits for nobody: the lease was not renewed for its duration.
    """
    sessions = await _cached(recorder, 45)
    revoked: list[Held] = []
    cluster.replicas[_SUSPECT].proxy.answer_delay = 0.8

    async def revoke(held: Held, after: float) -> None:
        await asyncio.sleep(after)
        await recorder.revoke(_NAME, _SOUND, held, waits=True)
        revoked.append(held)

    revoking = asyncio.ensure_future(_all(revoke(held, number * 0.4) for number, held in enumerate(sessions)))
    while not revoking.done():
        # One after another: without a lease each is a read, and many of those would keep the replica from renewing it.
        if revoked:
            await recorder.validate(_NAME, _SUSPECT, revoked.pop())
        await asyncio.sleep(0.05)
    await revoking


async def _log_in_at_once(cluster: Cluster, recorder: Recorder) -> None:
    """Open many sessions of one subject at the same time, on every replica."""
    replicas = range(len(cluster.replicas))
    for number in range(10):
        subject = f"subject {number}"
        await _all(recorder.create(_NAME, replica, "reject", subject) for replica in replicas for _ in range(3))


async def _revoke_what_is_near(cluster: Cluster, recorder: Recorder) -> None:
    """Revoke sessions that a near cache has."""
    for held in await _near(cluster, recorder, 20):
        await recorder.revoke(_NAME, _SOUND, held, waits=True)
        await recorder.validate(_NAME, _NEAR, held)


async def _cut_off_what_is_near(cluster: Cluster, recorder: Recorder) -> None:
    """Cut a near cache off until the authority no longer counts with it, and ask it."""
    sessions = await _near(cluster, recorder, 10)
    cluster.readers[0].proxy.black_hole()
    await _all(recorder.revoke(_NAME, _SOUND, held, waits=True) for held in sessions)
    await _all(recorder.validate(_NAME, _NEAR, held) for held in sessions)


async def _delay_what_is_near(cluster: Cluster, recorder: Recorder) -> None:
    """Delay grants for longer than a lease, then hold back renewals, so that a revocation waits for no lease.

    The cache takes the last grants some time before the revocation reaches it, because that comes after them.
    """
    sessions, proxy = await _near(cluster, recorder, 10), cluster.readers[0].proxy
    proxy.answer_delay = 6.0
    await asyncio.sleep(2.5)
    proxy.request_delay = 60.0
    await asyncio.sleep(0.5)
    await _all(recorder.revoke(_NAME, _SOUND, held, waits=True) for held in sessions)
    asking = []
    for _ in range(40):
        asking += [asyncio.ensure_future(recorder.validate(_NAME, _NEAR, held)) for held in sessions[:2]]
        await asyncio.sleep(0.05)
    cluster.heal()
    await _all(asking)


async def _revoke_what_a_worker_keeps(cluster: Cluster, recorder: Recorder) -> None:
    """Revoke sessions that a worker has in memory."""
    for held in await _kept_by_worker(cluster, recorder, 20):
        await recorder.revoke(_NAME, _SOUND, held, waits=True)
        await recorder.validate(_NAME, _WORKER, held)


async def _stop_the_owner(cluster: Cluster, recorder: Recorder) -> None:
    """Stop the owner of a worker until the other replicas no longer count with it, and ask the worker.

    The worker hears of nothing meanwhile, and its connection stays open. So its lease alone must end its answers, and
    before the owner's lease ends for the others.
    """
    sessions, (owner,) = await _kept_by_worker(cluster, recorder, 10), cluster.owners
    owner.pause()
    await _all(recorder.revoke(_NAME, _SOUND, held, waits=True) for held in sessions)
    await _all(recorder.validate(_NAME, _WORKER, held) for held in sessions)
    owner.resume()
    await _all(recorder.validate(_NAME, _WORKER, held) for held in sessions)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What to do, and the rule that is broken if the replicas have the fault of that name."""

    play: Callable[[Cluster, Recorder], Awaitable[None]]
    rule: Rule


SCENARIOS: Mapping[str, Scenario] = {
    "keep-outdated": Scenario(_revoke_what_is_cached, Rule.AWAITED),
    "ignore-lease": Scenario(_stop_and_cut_off, Rule.AWAITED),
    "lease-from-receipt": Scenario(_delay_grants, Rule.AWAITED),
    "limit-outside": Scenario(_log_in_at_once, Rule.LIMIT),
    "near-keep-outdated": Scenario(_revoke_what_is_near, Rule.AWAITED),
    "near-ignore-lease": Scenario(_cut_off_what_is_near, Rule.AWAITED),
    "near-lease-from-receipt": Scenario(_delay_what_is_near, Rule.AWAITED),
    "worker-keep-outdated": Scenario(_revoke_what_a_worker_keeps, Rule.AWAITED),
    "worker-ignore-lease": Scenario(_stop_the_owner, Rule.AWAITED),
}
"""The scenario for each fault, by its name."""


async def play(name: str, folder: Path, database: str, *, broken: bool) -> History:
    """Play the scenario of a fault on two replicas, with the fault or without it, and return its history."""
    scenario, is_near, is_worker = SCENARIOS[name], name in NEAR_FAULTS, name in WORKER_FAULTS
    is_reader = is_near or is_worker
    faults = {_SOUND: name, _SUSPECT: name} if broken and not is_reader else {}
    # A reader keeps an answer until its token is due for renewal.
    policies = re.sub(r'renewal_timeout = ".*"', 'renewal_timeout = "1h"', POLICIES) if is_reader else POLICIES
    async with running_cluster(folder, database, policies, faults, count=2) as cluster:
        if is_worker:
            await cluster.add_workers(1, name if broken else None)
        recorder = Recorder(cluster, Random(1), timeout=10.0)
        with without_protection(name) if broken and is_near else nullcontext():
            await scenario.play(cluster, recorder)
        log = await read_log(database)
        return History(
            operations=tuple(recorder.operations),
            validations=tuple(recorder.validations),
            log=log,
            limits=LIMITS,
            deaths=cluster.deaths(),
        )


async def _cached(recorder: Recorder, count: int) -> list[Held]:
    """Open sessions on the sound replica, and have the suspect one cache them."""
    opened = [await recorder.create(_NAME, _SOUND, "default", "") for _ in range(count)]
    sessions = [held for held in opened if held is not None]
    # At once, so that the replica has as many connections as it will ever have.
    verdicts = await asyncio.gather(*(recorder.validate(_NAME, _SUSPECT, held) for held in sessions))
    assert verdicts == ["VALID"] * count
    return sessions


async def _near(cluster: Cluster, recorder: Recorder, count: int) -> list[Held]:
    """Open sessions on the sound replica, and have a near cache of that replica keep them."""
    await cluster.add_near_reader(_SOUND)
    opened = [await recorder.create(_NAME, _SOUND, "default", "") for _ in range(count)]
    sessions = [held for held in opened if held is not None]
    cache = cluster.client(_NEAR)
    async with asyncio.timeout(10):
        while cluster.hits() < count:
            await _all(cache.validate(held.token) for held in sessions)
            await asyncio.sleep(0.05)
    return sessions


async def _kept_by_worker(cluster: Cluster, recorder: Recorder, count: int) -> list[Held]:
    """Open sessions on the sound replica, and have the worker of another one keep them."""
    await until_healthy(cluster.owners[0].address, serves=True, from_memory=True)
    opened = [await recorder.create(_NAME, _SOUND, "default", "") for _ in range(count)]
    sessions = [held for held in opened if held is not None]
    verdicts = await asyncio.gather(*(recorder.validate(_NAME, _WORKER, held) for held in sessions))
    assert verdicts == ["VALID"] * count
    return sessions


async def _all(calls: Iterable[Awaitable[object]]) -> None:
    await asyncio.gather(*calls)
