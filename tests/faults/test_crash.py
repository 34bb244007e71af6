"""Repeated kill -9 under load: everything acknowledged is stored exactly once, and nothing else is."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.support.faults import Ledger, Life, Record, Recovered, Unsure, losses, recover, work
from tests.support.figures import report
from tests.support.server import ServerProcess, stub_for
from tests.support.streams import Fact

ROUNDS = 20
CLIENTS = 4
WORKERS = 12
POLICY = '[applications.default]\nrenewal_timeout = "300ms"\nrenewal_overlap = "200ms"\n'


async def load_until_killed(server: ServerProcess, ledger: Ledger, dice: random.Random, opened: int = 0) -> None:
    """Put a server under load from several clients, and kill it at a random moment after so many sessions are open."""
    address = await server.address()
    known, before = ledger.usable(), len(ledger.lives)
    dice.shuffle(known)
    async with AsyncExitStack() as stack:
        stubs = [await stack.enter_async_context(stub_for(address)) for _ in range(CLIENTS)]
        async with asyncio.TaskGroup() as group:
            for worker in range(WORKERS):
                own = known[worker:200:WORKERS]
                group.create_task(work(stubs[worker % CLIENTS], ledger, own, random.Random(dice.random())))
            await asyncio.sleep(dice.uniform(0.02, 0.6))
            async with asyncio.timeout(60):
                while len(ledger.lives) < before + opened:  # noqa: ASYNC110 - the workers do not signal
                    await asyncio.sleep(0.01)
            server.kill()


async def what_is_lost(server: ServerProcess, ledger: Ledger, *, all_data: bool) -> list[str]:
    """Compare a restarted server with the ledger. Afterwards the ledger has no uncertain entries left."""
    async with stub_for(await server.address()) as stub:
        lives = [life for life in ledger.lives.values() if not life.revoked]
        data_of = lives if all_data else [life for life in lives if life.unsure is not None] + lives[-50:]
        recovered = await recover(stub, ledger, data_of)
    found = losses(ledger, recovered, data_of)
    for life in ledger.lives.values():
        settle(life, recovered.sessions.get(life.session_id))
    return found


def settle(life: Life, record: Record | None) -> None:
    """Replace every uncertain entry by what the restarted server reports."""
    if life.unsure is None or record is None:
        return
    life.revoked = record.state == pb.SESSION_STATE_REVOKED
    if record.data_version != life.data_version:
        life.data, life.data_version = life.unsure_data, record.data_version
    if life.unsure is Unsure.RENEW:
        life.generation += 1  # used by now: before the crash, or by the check itself
    life.unsure = None


@pytest.mark.slow
async def test_twenty_kills_lose_nothing(tmp_path: Path) -> None:
    """After each of 20 kills under load every acknowledged change and event exists once; no revoked session lives."""
    (tmp_path / "sessiond.toml").write_text(POLICY, encoding="utf-8")
    ledger, dice = Ledger(), random.Random(20)
    for number in range(ROUNDS + 1):
        server = ServerProcess(tmp_path, "--config", str(tmp_path / "sessiond.toml"))
        try:
            if number > 0:
                assert await what_is_lost(server, ledger, all_data=number == ROUNDS) == []
            if number < ROUNDS:
                await load_until_killed(server, ledger, dice)
        finally:
            server.kill()
    report(
        f"{ROUNDS} kills: {len(ledger.lives)} sessions, {len(ledger.facts)} events and {len(ledger.renewals)} renewals "
        "acknowledged, none lost"
    )
    assert len(ledger.facts) > 1000
    assert len(ledger.renewals) > 20


async def test_a_real_loss_is_noticed(tmp_path: Path) -> None:
    """The check can fail: after an older copy of the data is restored, it reports what is missing."""
    ledger, dice = Ledger(), random.Random(3)
    for number in range(2):
        server = ServerProcess(tmp_path)
        try:
            await load_until_killed(server, ledger, dice, opened=10)
        finally:
            server.kill()
        if number == 0:
            shutil.copytree(tmp_path / "data", tmp_path / "older")
    shutil.rmtree(tmp_path / "data")
    (tmp_path / "older").rename(tmp_path / "data")
    server = ServerProcess(tmp_path)
    try:
        found = await what_is_lost(server, ledger, all_data=True)
    finally:
        server.kill()
    assert any("is in the log 0 times" in fault for fault in found)
    assert any("is lost" in fault for fault in found)


# Every single loss is reported


def _sound() -> tuple[Ledger, Recovered]:
    """Return a ledger of one live and one revoked session, and a server that has lost nothing."""
    live = Life("live", "ada", "", generation=1, data={"key": b"value"}, data_version=1)
    ended = Life("ended", "bob", "", revoked=True)
    created, renewed = pb.EVENT_TYPE_SESSION_CREATED, pb.EVENT_TYPE_SESSION_RENEWED
    changed, revoked = pb.EVENT_TYPE_SESSION_DATA_CHANGED, pb.EVENT_TYPE_SESSION_REVOKED
    events = [
        pb.Event(revision=1, type=created, session_id="live", subject="ada"),
        pb.Event(revision=2, type=created, session_id="ended", subject="bob"),
        pb.Event(revision=3, type=changed, session_id="live", subject="ada"),
        pb.Event(revision=4, type=renewed, session_id="live", subject="ada", generation=1),
        pb.Event(revision=5, type=revoked, session_id="ended", subject="bob"),
    ]
    ledger = Ledger({"live": live, "ended": ended}, [Fact.of(e) for e in events if e.type != renewed], [("live", 1)])
    sessions = {
        "live": Record(pb.SESSION_STATE_ACTIVE, 1, 1),
        "ended": Record(pb.SESSION_STATE_REVOKED, 0, 0),
    }
    verdicts = {"live": pb.VERDICT_VALID, "ended": pb.VERDICT_REVOKED}
    return ledger, Recovered(5, events, sessions, verdicts, {"live": {"key": b"value"}})


def _hole(recovered: Recovered) -> None:
    del recovered.events[2]


def _double(recovered: Recovered) -> None:
    recovered.events.insert(2, recovered.events[2])


def _cut(recovered: Recovered) -> None:
    recovered.events.pop()


def _forget_renewal(recovered: Recovered) -> None:
    recovered.events[3].type = pb.EVENT_TYPE_SESSION_REFRESHED


def _lose_session(recovered: Recovered) -> None:
    del recovered.sessions["live"]


def _revive(recovered: Recovered) -> None:
    recovered.verdicts["ended"] = pb.VERDICT_VALID


def _unrevoke(recovered: Recovered) -> None:
    recovered.sessions["ended"] = replace(recovered.sessions["ended"], state=pb.SESSION_STATE_ACTIVE)


def _kill_token(recovered: Recovered) -> None:
    recovered.verdicts["live"] = pb.VERDICT_REPLAYED


def _take_back_generation(recovered: Recovered) -> None:
    recovered.sessions["live"] = replace(recovered.sessions["live"], generation=0)


def _take_back_version(recovered: Recovered) -> None:
    recovered.sessions["live"] = replace(recovered.sessions["live"], data_version=0)


def _lose_data(recovered: Recovered) -> None:
    recovered.data["live"] = {}


def _invent_session(recovered: Recovered) -> None:
    recovered.sessions["ghost"] = Record(pb.SESSION_STATE_ACTIVE, 0, 0)


def test_the_checker_accepts_what_lost_nothing() -> None:
    """The check accepts a server that has exactly what was acknowledged."""
    ledger, recovered = _sound()
    assert losses(ledger, recovered, list(ledger.lives.values())) == []


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (_hole, "gap or a duplicate"),
        (_double, "gap or a duplicate"),
        (_cut, "the log's head is 5"),
        (_forget_renewal, "renewal"),
        (_lose_session, "is lost"),
        (_revive, "lives"),
        (_unrevoke, "the log tells"),
        (_kill_token, "VERDICT_REPLAYED"),
        (_take_back_generation, "has generation 0"),
        (_take_back_version, "has data version 0"),
        (_lose_data, "lost data"),
        (_invent_session, "the log tells None"),
    ],
)
def test_the_checker_reports_a_loss(harm: Callable[[Recovered], None], told: str) -> None:
    """The check reports every single thing that is lost, duplicated or revived."""
    ledger, recovered = _sound()
    harm(recovered)
    assert any(told in fault for fault in losses(ledger, recovered, list(ledger.lives.values())))
