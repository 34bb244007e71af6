"""A flood of 100,000 forged tokens: the alarm comes within a second, no store is read, honest clients hardly wait.

Attacker and honest client are processes of their own. The flood is bounded the way a real client bounds itself: so many
callers, each waiting for its answer before it asks again. What is compared is medians over windows that alternate,
quiet and flooded, so that whatever else the machine does meets both alike.

The callers are few on purpose: one process answers on one thread, so each call that waits before an honest one adds its
own cost to it, about as much as the honest one takes itself. A flood of dozens of callers at once is held off by what
stands in front, and by more processes; what is shown here is that a forged token costs no more than its turn.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from sessiond.app import App
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import VICTIM, authority, create, fresh_id, login, roll, validate
from tests.support.figures import report
from tests.support.programs import Program, start_program
from tests.support.server import AsyncStub, sqlite_of
from tests.support.streams import NOW, read, subscribe

ROOT = Path(__file__).parents[2]
UPKEEP = ("AND due_at <= ", "AND purge_at <= ", "SELECT revision, at FROM events WHERE log = 0 ORDER BY revision")
"""What the sweeper reads in every round, whoever calls: what is due."""


class Peer:
    """See `tests.attacks.peer`."""

    def __init__(self, process: Program) -> None:
        self._process = process

    async def ask(self, *command: object) -> dict[str, Any]:
        """Have one command carried out; its answer."""
        source, sink = self._process.stdout, self._process.stdin
        assert source is not None
        assert sink is not None
        sink.write(json.dumps(command).encode() + b"\n")
        await sink.drain()
        answer: dict[str, Any] = json.loads(await asyncio.wait_for(source.readline(), 60))
        return answer


@asynccontextmanager
async def peer(address: str) -> AsyncIterator[Peer]:
    """A process that sends validations."""
    process = await start_program(
        sys.executable,
        "-m",
        "tests.attacks.peer",
        address,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        yield Peer(process)
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def statements(app: App) -> AsyncIterator[list[str]]:
    """Every statement that SQLite itself carries out meanwhile."""
    seen: list[str] = []
    await sqlite_of(app)._db.run(lambda connection: connection.set_trace_callback(seen.append))
    yield seen
    await sqlite_of(app)._db.run(lambda connection: connection.set_trace_callback(None))


def reads(seen: list[str]) -> list[str]:
    """The reads among them that calls asked for."""
    return [sql for sql in seen if sql.startswith("SELECT") and not any(part in sql for part in UPKEEP)]


async def alarm_after(attacker: Peer, stub: AsyncStub, tokens: int, sources: int, threshold: int) -> tuple[float, str]:
    """Flood; how long after the answer to the threshold's token a subscriber had the alarm, and for which source."""
    stream = subscribe(stub, start=NOW, types=[pb.EVENT_TYPE_GUESSING_SUSPECTED])
    assert (await read(stream)).HasField("checkpoint")
    flood = asyncio.create_task(attacker.ask("flood", tokens, 4, 1, sources, threshold))
    event = (await read(stream)).event
    delivered = time.monotonic()
    answer = await flood
    stream.cancel()
    assert answer["forged"] == tokens
    return delivered - answer["crossed"], event.source


@pytest.mark.parametrize(("sources", "threshold", "source"), [(1, 20, "198.18.0.0/32"), (2_000, 1_000, "*")])
async def test_the_alarm_within_a_second(tmp_path: Path, sources: int, threshold: int, source: str) -> None:
    """While the flood goes on, a subscriber has the alarm within a second of the guess that crossed the threshold."""
    async with authority(tmp_path) as (app, stub), peer(app.address) as attacker:
        late, told = await alarm_after(attacker, stub, 2_500, sources, threshold)
        report(f"alarm for {told}: {late * 1e3:.1f} ms after the {threshold}th forged token was answered")
        assert told == source
        assert late < 1.0


async def compare(
    attacker: Peer, honest: Peer, token: str, windows: int, tokens: int, streams: int, batch: int
) -> tuple[float, float, float]:
    """Median latencies of honest validations, quiet and under flood, in seconds; and forged tokens a second."""
    quiet: list[float] = []
    flooded: list[float] = []
    rates = []

    async def window(into: list[float], seconds: float) -> None:
        measured = await honest.ask("measure", token, seconds, 0.002)
        assert measured["valid"] == len(measured["latencies"]) > 0
        into += measured["latencies"]

    for _ in range(windows):
        await window(quiet, 0.4)
        flood = asyncio.create_task(attacker.ask("flood", tokens, streams, batch, 200, 0))
        await asyncio.sleep(0.05)
        while not flood.done():
            await window(flooded, 0.2)
        answer = await flood
        assert answer["forged"] == tokens
        rates.append(tokens / answer["seconds"])
    return median(quiet), median(flooded), median(rates)


@pytest.mark.measured
@pytest.mark.parametrize(
    ("tokens", "streams", "batch"), [(1_500, 2, 1), (20_000, 2, 10)], ids=["one by one", "ten a call"]
)
async def test_honest_clients_hardly_wait(tmp_path: Path, tokens: int, streams: int, batch: int) -> None:
    """Under the flood an honest validation's median latency is less than twice its quiet one, and no store is read."""
    async with authority(tmp_path) as (app, stub), peer(app.address) as attacker, peer(app.address) as honest:
        mine = await create(stub)
        await honest.ask("measure", mine.token, 0.3, 0.002)
        await attacker.ask("flood", 500, streams, batch, 200, 0)
        async with statements(app) as seen:
            quiet, flooded, rate = await compare(attacker, honest, mine.token, 5, tokens, streams, batch)
            report(
                f"{5 * tokens} forged tokens, {streams} callers of {batch} at a time, {rate:.0f} a second: "
                f"honest median {quiet * 1e6:.0f} us quiet, {flooded * 1e6:.0f} us flooded: "
                f"{flooded / quiet:.2f} times"
            )
            assert flooded < 2 * quiet
            assert reads(seen) == []


async def test_the_count_of_reads_counts(tmp_path: Path) -> None:
    """The control: a good token whose session is not in memory is one read of the store, a forged one is none."""
    async with authority(tmp_path, cache_sessions=1) as (app, stub):
        first, _second = await create(stub), await create(stub, "bob")
        async with statements(app) as seen:
            assert (await validate(stub, "A" * 70, VICTIM)).verdict == pb.VERDICT_FORGED
            assert reads(seen) == []
            assert (await validate(stub, first.token)).verdict == pb.VERDICT_VALID
            assert len(reads(seen)) == 1


async def test_a_forged_change_reads_nothing_either(tmp_path: Path) -> None:
    """A forged token in a call that may be repeated has no first answer that could be looked for; a stale one has."""
    async with authority(tmp_path) as (app, stub):
        stale = (await create(stub)).token
        await roll(stub, stale)
        async with statements(app) as seen:
            for token, verdict, looks in (
                ("A" * 70, pb.VERDICT_FORGED, False),
                ("A", pb.VERDICT_MALFORMED, False),
                (stale, pb.VERDICT_SUPERSEDED, True),
            ):
                seen.clear()
                named = pb.SessionReference(token=token)
                answers: list[Any] = [
                    await login(stub, token, request_id=fresh_id()),
                    await stub.RollSession(pb.RollSessionRequest(token=token, request_id=fresh_id())),
                    await stub.RefreshSession(pb.RefreshSessionRequest(token=token, request_id=fresh_id())),
                    await stub.RevokeSession(pb.RevokeSessionRequest(session=named, request_id=fresh_id())),
                    await stub.UpdateSessionData(
                        pb.UpdateSessionDataRequest(session=named, delete=["a"], request_id=fresh_id())
                    ),
                    await stub.ReportSignal(pb.ReportSignalRequest(session=named, request_id=fresh_id())),
                ]
                assert [answer.verdict for answer in answers] == [verdict] * len(answers)
                assert bool(reads(seen)) is looks
