"""The leader of a Patroni cluster is killed under load: nothing acknowledged is lost, and replicas go on by themselves.

Patroni runs with the configuration in `deploy/patroni`. `make test-ha` runs these tests.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Sequence
from enum import StrEnum
from urllib.parse import urlsplit

import grpc
import pytest

from scripts.patroni import LocalCluster, Node
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.ha.load import Load, seen_in, stream_faults
from tests.support.faults import losses, recover
from tests.support.figures import report
from tests.support.server import ServerProcess

pytestmark = pytest.mark.ha


class End(StrEnum):
    """What ends the leadership of a node.

    KILL     its processes are killed, as if the machine had lost its power
    CUT_OFF  the same, after its standbys have received nothing for a while: it has commits that no other node has
    SWITCH   an operator's command; the node becomes a standby
    """

    KILL = "killed"
    CUT_OFF = "cut off and killed"
    SWITCH = "switched over"


async def end_leadership(cluster: LocalCluster, how: End) -> Node:
    """End the leadership of the leader, and return it."""
    if how is End.SWITCH:
        return await asyncio.to_thread(cluster.switch_over)
    leader = await asyncio.to_thread(cluster.leader)
    assert leader is not None
    if how is End.CUT_OFF:
        for sender in leader.senders():
            os.kill(sender, signal.SIGSTOP)
        await until_commits_wait(cluster, leader)
    await asyncio.to_thread(leader.kill)
    return leader


async def until_commits_wait(cluster: LocalCluster, leader: Node) -> None:
    """Wait until the leader has commits on its own disk that wait for a standby."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    async with asyncio.timeout(8):  # later the standbys would connect again
        while await asyncio.to_thread(cluster.query, leader, waiting) == "0":
            pass


def incarnations(cluster: LocalCluster, url: str) -> Sequence[str]:
    """Return number and first revision of each incarnation of the log."""
    name = urlsplit(url).path.lstrip("/")
    return cluster.on_leader("SELECT number, first_revision FROM incarnations ORDER BY number", name).splitlines()


@pytest.fixture
async def load(servers: list[ServerProcess]) -> AsyncIterator[Load]:
    async with Load.running([await server.address() for server in servers], random.Random(11)) as load:
        yield load


async def test_a_leader_that_ends_loses_nothing(
    cluster: LocalCluster, url: str, servers: list[ServerProcess], load: Load
) -> None:
    """After two failovers and a switchover under load every acknowledged write is there, and no stream has a gap."""
    before = await asyncio.to_thread(incarnations, cluster, url)
    for how in End:
        await load.more(200)
        count, load.facts.times[:] = len(load.facts), load.facts.times[-1:]
        leader = await end_leadership(cluster, how)
        await asyncio.gather(*(load.serves(stub) for stub in load.stubs))
        await load.more(200)
        pause = load.facts.longest_pause()
        report(f"{leader.name} {how} after {count} acknowledged writes; then {pause:.1f} s without one")
        await asyncio.to_thread(cluster.start)
    await load.more(200)
    await load.end_writers()
    # Writes are carried out in the order of their arrival, so these come after those that were under way.
    await asyncio.gather(*(load.serves(stub) for stub in load.stubs))

    found: list[str] = []
    for stub in load.stubs:
        recovered = await recover(stub, load.ledger, list(load.ledger.lives.values())[-500:])
        found += losses(load.ledger, recovered, [])
    log = [seen_in(event) for event in recovered.events]
    await load.reached(log[-1][0])
    gaps = [fault for seen in load.seen for fault in stream_faults(seen, log)]
    after = await asyncio.to_thread(incarnations, cluster, url)
    report(
        f"{len(load.facts)} writes acknowledged, {len(found)} lost; {len(load.seen)} subscribers with "
        f"{sum(map(len, load.seen))} events over {load.resumed} streams, {len(gaps)} faults; {load.failed_calls} calls "
        f"failed; incarnations (number|first revision): {' '.join(after)}"
    )
    assert found == []
    assert gaps == []
    assert not any(event.is_set() for event in load.refused)
    assert len(after) == len(before) + len(End)
    assert [server.process.poll() for server in servers] == [None, None]


async def test_without_a_synchronous_standby_a_loss_is_noticed(
    cluster: LocalCluster, url: str, servers: list[ServerProcess], load: Load
) -> None:
    """Without synchronous replication the checks report the lost end of the log, and positions in it are refused."""
    await asyncio.to_thread(cluster.set_synchronous, False)
    try:
        await load.more(200)
        leader = await asyncio.to_thread(cluster.leader)
        assert leader is not None
        for sender in leader.senders():
            os.kill(sender, signal.SIGSTOP)
        await load.more(200, seconds=8)
        await load.end_writers()
        _, token = await load.create(load.stubs[0])
        await load.reached(load.facts[-1].revision, seconds=8)
        await asyncio.to_thread(leader.kill)
        await asyncio.gather(*(load.serves(stub) for stub in load.stubs))
        async with asyncio.timeout(30):
            await asyncio.gather(*(refused.wait() for refused in load.refused))
        for stub in load.stubs:
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await stub.ValidateSession(pb.ValidateSessionRequest(token="A" * 70, at_least=token))
            assert error.value.code() is grpc.StatusCode.OUT_OF_RANGE
        recovered = await recover(load.stubs[0], load.ledger, [])
        found = losses(load.ledger, recovered, [])
        log = [seen_in(event) for event in recovered.events]
        lost = sum("is in the log 0 times" in fault for fault in found)
        report(f"without a synchronous standby {lost} of {len(load.facts)} acknowledged writes are reported lost")
        assert any("is lost" in fault for fault in found)
        assert all(any("not in the log" in fault for fault in stream_faults(seen, log)) for seen in load.seen)
        assert [server.process.poll() for server in servers] == [None, None]
        await asyncio.to_thread(cluster.start)
    finally:
        await asyncio.to_thread(cluster.set_synchronous, True)
