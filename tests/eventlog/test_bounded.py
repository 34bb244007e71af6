"""The last promise of Subscribe, bounded: one that does not read costs nobody anything, and ends resumably."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import grpc
import pytest

from sessiond.app import App
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.support.clock import ManualClock
from tests.support.figures import report
from tests.support.processes import resident_bytes, until_idle
from tests.support.server import ServerProcess, config_for, serving, stub_for
from tests.support.streams import (
    NOW,
    PADDING,
    Fact,
    Stream,
    faults_of,
    fill_log,
    open_sessions,
    position,
    read,
    read_to_end,
    read_up_to,
    subscribe,
)

MIB = 1024 * 1024
BACKLOG = 6000
"""Padded events: 13 MiB, far more than all buffers between server and client hold."""


SHORT_TIMEOUT = '[server]\nsubscriber_write_timeout = "500ms"\n'


@dataclass(frozen=True)
class Backlog:
    """A data folder whose log is long, and what its writers were told."""

    data: Path
    facts: list[Fact]

    def copy_to(self, folder: Path) -> Path:
        """Give a server's folder a copy of it."""
        shutil.copytree(self.data, folder / "data")
        return folder


@pytest.fixture(scope="module")
def backlog(tmp_path_factory: pytest.TempPathFactory) -> Backlog:
    """Made once: each test takes a copy."""
    folder = tmp_path_factory.mktemp("backlog")

    async def write() -> list[Fact]:
        async with serving(config_for(folder), ManualClock()) as app, stub_for(app.address) as stub:
            return await open_sessions(stub, BACKLOG, client=PADDING)

    return Backlog(folder / "data", asyncio.run(write()))


@asynccontextmanager
async def a_stuck_subscriber(address: str) -> AsyncIterator[None]:
    """A subscriber from the earliest event that reads one item and then never again, on a connection of its own."""
    async with stub_for(address) as stub:
        stream = subscribe(stub)
        await read(stream)
        yield
        stream.cancel()


@pytest.mark.measured
async def test_a_stuck_subscriber_does_not_slow_writers(tmp_path: Path, backlog: Backlog) -> None:
    """Sessions open about as fast beside a subscriber that never reads as without it."""
    server = ServerProcess(backlog.copy_to(tmp_path))
    try:
        address = await server.address()
        pid = server.process.pid
        async with stub_for(address) as stub:

            async def rate() -> float:
                await until_idle(pid)
                loop = asyncio.get_running_loop()
                begun = loop.time()
                await open_sessions(stub, 250)
                return 250 / (loop.time() - begun)

            async def rate_beside() -> float:
                async with a_stuck_subscriber(address):
                    return await rate()

            await rate()  # warm
            ratios = []
            for pair in range(7):
                # In turns also within the pairs, so that a machine that grows busier or calmer favours neither.
                if pair % 2:
                    free, beside = await rate(), await rate_beside()
                else:
                    beside, free = await rate_beside(), await rate()
                ratios.append(beside / free)
        report(f"create beside a stuck subscriber / without: {median(ratios):.2f} {[f'{r:.2f}' for r in ratios]}")
        assert median(ratios) > 0.7
    finally:
        server.kill()


async def _growth(folder: Path, *, stuck: bool) -> int:
    """By how many bytes a server grows over 20,000 events."""
    agent = pb.ClientContext(user_agent="agent " * 170)
    server = ServerProcess(folder)
    try:
        address = await server.address()
        async with stub_for(address) as stub, stub_for(address) as other:
            stream = subscribe(other, start=NOW)
            await read(stream)
            if not stuck:
                stream.cancel()
            await fill_log(stub, 500, agent)
            before = resident_bytes(server.process.pid)
            await fill_log(stub, 10_000, agent)
            await until_idle(server.process.pid)
            after = resident_bytes(server.process.pid)
            revision = (await stub.GetAuthority(pb.GetAuthorityRequest())).revision
            assert revision > 20_000
            stream.cancel()
            return after - before
    finally:
        server.kill()


@pytest.mark.slow
async def test_a_stuck_subscriber_costs_constant_memory(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Over 20,000 events, 20 MiB, a server with a subscriber that never reads grows hardly more than one without."""
    control = await _growth(tmp_path_factory.mktemp("control"), stuck=False)
    growth = await _growth(tmp_path_factory.mktemp("stuck"), stuck=True)
    report(f"growth over 20,000 events: {growth / MIB:.1f} MiB, without the stuck subscriber {control / MIB:.1f} MiB")
    assert growth - control < 8 * MIB


async def test_others_do_not_wait_for_a_stuck_subscriber(tmp_path: Path, backlog: Backlog) -> None:
    """A subscriber that reads gets every event while another one is stuck."""
    config = config_for(backlog.copy_to(tmp_path))
    async with (
        serving(config, ManualClock()) as app,
        stub_for(app.address) as stub,
        a_stuck_subscriber(app.address),
    ):
        stream = subscribe(stub)
        items = await read_up_to(stream, BACKLOG)
        facts = [*backlog.facts, *await open_sessions(stub, 50)]
        items += await read_up_to(stream, BACKLOG + 50)
        stream.cancel()
    assert faults_of(items, facts) == []


async def _left_alone(app: App, patience: float) -> tuple[list[pb.SubscribeResponse], grpc.aio.AioRpcError | None]:
    """What a subscriber gets that reads nothing for so many seconds and then everything, and the error at the end."""
    async with stub_for(app.address) as stub:
        stream = subscribe(stub)
        items = [await read(stream)]
        await asyncio.sleep(patience)
        try:
            items += await read_up_to(stream, BACKLOG)
        except grpc.aio.AioRpcError as error:
            return items, error
        stream.cancel()
        return items, None


async def _read_on(stream: Stream) -> list[pb.SubscribeResponse]:
    """Return the items up to the end of the backlog, or until the authority ends the stream for slowness."""
    items: list[pb.SubscribeResponse] = []
    while not items or position(items[-1]) < BACKLOG:
        try:
            items.append(await read(stream))
        except grpc.aio.AioRpcError as error:
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED  # noqa: PT017 - the only error that may come
            break
    return items


async def test_a_stuck_subscriber_keeps_no_place(tmp_path: Path, backlog: Backlog) -> None:
    """After the write timeout the authority reads nothing for a stuck subscriber, which has not seen the status yet."""
    config = config_for(backlog.copy_to(tmp_path), SHORT_TIMEOUT)
    async with serving(config, ManualClock()) as app, stub_for(app.address) as stub:
        stream = subscribe(stub)
        await read(stream)
        assert len(app.authority.parts.feed._readers) == 1
        async with asyncio.timeout(20):
            while app.authority.parts.feed._readers:  # noqa: ASYNC110 - nothing tells of its end
                await asyncio.sleep(0.02)


async def test_a_stuck_subscriber_is_ended_and_resumes(
    tmp_path: Path, backlog: Backlog, capsys: pytest.CaptureFixture[str]
) -> None:
    """After the write timeout a stream ends with RESOURCE_EXHAUSTED; its last cursor brings exactly the rest."""
    facts = backlog.facts
    config = config_for(backlog.copy_to(tmp_path), SHORT_TIMEOUT)
    async with serving(config, ManualClock()) as app, stub_for(app.address) as stub:
        for patience in (0.7, 2.0, 5.0, 10.0):  # a machine that is busy elsewhere may need longer to fill the buffers
            items, error = await _left_alone(app, patience)
            if error is not None:
                break
        assert error is not None, "a subscriber that did not read for ten seconds was not ended"
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "resume" in (error.details() or "")
        assert faults_of(items, facts) == []
        assert position(items[-1]) < BACKLOG
        rest: list[Fact] = []
        began, cursor = position(items[-1]), items[-1].cursor
        while began + len(rest) < BACKLOG:  # on a busy machine this reader may be too slow too, and resumes again
            items = await _read_on(subscribe(stub, cursor=cursor))
            assert faults_of(items, facts, begin=began + len(rest)) == []
            cursor, rest = items[-1].cursor, [*rest, *(Fact.of(item.event) for item in items[1:])]
        assert rest == facts[began:]
    assert "call failed" not in capsys.readouterr().out


async def test_a_subscriber_that_hangs_up_is_no_error(
    tmp_path: Path, backlog: Backlog, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A subscriber that goes away while it is written to, or after it was ended, leaves no error in any log."""
    config = config_for(backlog.copy_to(tmp_path), SHORT_TIMEOUT)
    app = await App.start(config, ManualClock())
    for patience in (0.0, 0.2, 1.0):
        async with a_stuck_subscriber(app.address):
            await asyncio.sleep(patience)
    async with a_stuck_subscriber(app.address):
        await app.stop()
    assert "call failed" not in capsys.readouterr().out
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_the_horizon_overtakes_a_slow_subscriber_out_loud(
    tmp_path: Path, backlog: Backlog, clock: ManualClock
) -> None:
    """A subscriber too slow for the log's retention gets OUT_OF_RANGE that names the horizon, and no gap before it."""
    text = '[server]\nevent_retention = "1m"\n'
    facts, config = backlog.facts, config_for(backlog.copy_to(tmp_path), text)
    # A fresh process: the backlog is in the store alone, as it is for whoever is far behind.
    async with serving(config, clock) as app, stub_for(app.address) as stub:
        stream = subscribe(stub)
        items = [await read(stream)]
        clock.advance(120_000)
        await app.sweeper.prune()
        rest, error = await read_to_end(stream)
        items += rest
        assert error.code() == grpc.StatusCode.OUT_OF_RANGE
        assert str(BACKLOG) in (error.details() or "")
        assert faults_of(items, facts) == []
        assert position(items[-1]) < BACKLOG
        # The cursor is from before the horizon now: resuming says so at once.
        none, again = await read_to_end(subscribe(stub, cursor=items[-1].cursor))
        assert (none, again.code()) == ([], grpc.StatusCode.OUT_OF_RANGE)
        horizon = await read(subscribe(stub))
        assert position(horizon) == BACKLOG
