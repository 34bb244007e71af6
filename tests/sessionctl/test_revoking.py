"""Ending many sessions: all of them and no others, counted, in steps that can fail or be interrupted."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from sessionctl.revoking import Filter, Halted, revoke_all
from sessiond.app import App
from sessiond_client import AsyncClient, Client, DeadlineExceeded, RevokedAll, Unavailable
from tests.sessionctl.operator import Operator
from tests.sessionctl.terminal import Run, on_terminal
from tests.support.clock import ManualClock
from tests.support.server import ServerProcess, config_for, serving

EVERYTHING: Filter = {"subject": None, "labels": {}}
ANSWERED = RevokedAll(revoked_count=0, consistency_token="")


@pytest.fixture
async def app(tmp_path: Path, clock: ManualClock) -> AsyncIterator[App]:
    """An authority with an application `shop`."""
    async with serving(config_for(tmp_path, "[applications.shop]\n"), clock) as app:
        yield app


async def open_many(client: AsyncClient, number: int, clock: ManualClock | None = None, subject: str = "ada") -> None:
    """That many sessions, each a millisecond after the other if there is a clock."""
    for start in range(0, number, 100):
        opened = []
        for _ in range(min(100, number - start)):
            if clock is not None:
                clock.advance(1)
            opened.append(client.create(subject=subject))
        await asyncio.gather(*opened)


class Unreliable:
    """A client whose calls of `revoke_all` do what the test says, one after the other, and then what they should."""

    def __init__(self, client: Client, *calls: Callable[[Callable[[], RevokedAll]], RevokedAll]) -> None:
        self._client = client
        self._calls = list(calls)
        self.list = client.list

    def revoke_all(self, **conditions: Any) -> RevokedAll:
        """End sessions, or fail."""

        def really() -> RevokedAll:
            return self._client.revoke_all(**conditions)

        return self._calls.pop(0)(really) if self._calls else really()


def answered(call: Callable[[], RevokedAll]) -> RevokedAll:
    return call()


def lost(call: Callable[[], RevokedAll]) -> RevokedAll:
    """The authority does it, and its answer does not come in time."""
    call()
    raise DeadlineExceeded("too late")


def not_reached(_: Callable[[], RevokedAll]) -> RevokedAll:
    raise DeadlineExceeded("too late")


def interrupted(_: Callable[[], RevokedAll]) -> RevokedAll:
    raise KeyboardInterrupt


def gone(_: Callable[[], RevokedAll]) -> RevokedAll:
    raise Unavailable("gone")


async def run(app: App, *calls: Callable[..., RevokedAll], which: Filter = EVERYTHING, keep: str = "") -> list[int]:
    """End sessions with such calls: what progress was told, and the total at the end."""
    told: list[int] = []

    def work() -> RevokedAll:
        with Client(app.address, application="shop", timeout=30) as client:
            unreliable = cast("Client", Unreliable(client, *calls))
            return revoke_all(unreliable, which, keep=keep, reason="a test", progress=told.append)

    answer = await asyncio.to_thread(work)
    return [*told, answer.revoked_count]


async def test_many_are_ended_in_steps(operator: Operator, app: App, clock: ManualClock) -> None:
    """More sessions than fit into a step are all ended and counted, with the progress after each step."""
    await open_many(operator.client, 1_100, clock)
    assert await run(app) == [500, 1000, 1100, 1100]
    assert [session async for session in operator.client.list()] == []
    assert await run(app) == [0]


async def test_one_is_kept_and_others_are_left(operator: Operator, app: App, clock: ManualClock) -> None:
    """Only what matches ends, and never the session that is to be kept, however many there are."""
    await open_many(operator.client, 300, clock)
    kept = (await operator.client.create(subject="ada")).session.session_id
    await open_many(operator.client, 300, clock)
    other = (await operator.client.create(subject="bob")).session.session_id
    assert (await run(app, which={"subject": "ada", "labels": {}}, keep=kept))[-1] == 600
    assert {session.session_id async for session in operator.client.list()} == {kept, other}


@pytest.mark.parametrize(
    "calls",
    [
        (lost,),
        (not_reached,),
        (not_reached, not_reached),
        (answered, lost),
        (lost, lost, lost),
        (lost, not_reached, lost),
    ],
    ids=lambda calls: " ".join(call.__name__ for call in calls),
)
async def test_a_deadline_is_not_the_end(
    operator: Operator, app: App, clock: ManualClock, calls: tuple[Callable[..., RevokedAll], ...]
) -> None:
    """After a deadline it goes on by itself, and each session is counted once, whatever the lost answers did."""
    await open_many(operator.client, 1_100, clock)
    assert (await run(app, *calls))[-1] == 1_100
    assert [session async for session in operator.client.list()] == []


async def test_what_is_opened_meanwhile_stays(operator: Operator, app: App, clock: ManualClock) -> None:
    """Sessions that are opened after it began live on: it comes to an end however many there are."""
    await open_many(operator.client, 600, clock)
    loop = asyncio.get_running_loop()

    def opened_first(call: Callable[[], RevokedAll]) -> RevokedAll:
        asyncio.run_coroutine_threadsafe(open_many(operator.client, 600, clock, "bob"), loop).result()
        return call()

    assert (await run(app, opened_first, opened_first))[-1] == 600
    assert len([session async for session in operator.client.list(subject="bob")]) == 1200


@pytest.mark.parametrize(
    ("calls", "cause"),
    [
        ((not_reached, not_reached, not_reached), DeadlineExceeded),
        ((interrupted,), KeyboardInterrupt),
        ((gone,), Unavailable),
    ],
    ids=["deadlines", "Ctrl-C", "gone"],
)
async def test_what_has_ended_is_told(
    operator: Operator,
    app: App,
    clock: ManualClock,
    calls: tuple[Callable[..., RevokedAll], ...],
    cause: type[BaseException],
) -> None:
    """If it cannot go on it says how many have ended; done again, it ends the rest."""
    await open_many(operator.client, 600, clock)
    with pytest.raises(Halted) as halted:
        await run(app, answered, *calls)
    assert halted.value.ended == 500
    assert isinstance(halted.value.cause, cause)
    assert (await run(app))[-1] == 100


# As a process


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """A server with 1,200 sessions."""
    server = ServerProcess(tmp_path)
    try:
        async with AsyncClient(await server.address(), timeout=60) as client:
            await open_many(client, 1_200)
        yield server
    finally:
        server.kill()


async def command(server: ServerProcess, *more: str) -> list[str]:
    """What ends all sessions of that server."""
    return [sys.executable, "-m", "sessionctl", "--target", await server.address(), "revoke", "--all", "--yes", *more]


async def revoke_on_terminal(
    server: ServerProcess, *more: str, watch: Callable[[int, bytes], None] = lambda pid, shown: None
) -> Run:
    """End all sessions, on a terminal."""
    return await asyncio.to_thread(on_terminal, await command(server, *more), watch)


async def test_progress_is_shown_on_a_terminal(server: ServerProcess) -> None:
    """A terminal sees a count that grows, and then the total in its place."""
    shown = await revoke_on_terminal(server)
    *progress, total = shown.output.decode().split("\r\x1b[K")
    assert shown.exit_code == 0
    assert progress == ["\rrevoked so far: 500\rrevoked so far: 1000\rrevoked so far: 1200"]
    assert "1200" in total
    assert "so far" not in total


async def test_machines_get_the_result_alone(server: ServerProcess) -> None:
    """With --json nothing but the final result is written, on a terminal too."""
    shown = await revoke_on_terminal(server, "--json")
    assert json.loads(shown.output)["revoked_count"] == 1200


async def test_an_interruption_says_how_to_go_on(server: ServerProcess) -> None:
    """Ctrl-C ends it with exit code 130, how many have ended, and that the same command ends the rest."""

    done: list[int] = []

    def stop_then_interrupt(pid: int, shown: bytes) -> None:
        if b"so far: " in shown and not done:
            done.append(pid)
            os.kill(server.process.pid, signal.SIGSTOP)  # so that it surely has not finished
            os.kill(pid, signal.SIGINT)

    shown = await revoke_on_terminal(server, "--timeout", "60", watch=stop_then_interrupt)
    os.kill(server.process.pid, signal.SIGCONT)
    assert shown.exit_code == 130
    told = shown.output.decode().splitlines()[-1]
    assert re.search(r"interrupted; revoked so far: \d+00; run the same command again to revoke the rest$", told)
    again = await revoke_on_terminal(server)
    assert again.exit_code == 0


async def test_a_server_that_does_not_answer_is_given_up(server: ServerProcess) -> None:
    """After a few deadlines without any progress the command says so, and what it has done."""

    def stop(pid: int, shown: bytes) -> None:
        if b"so far: " in shown:
            os.kill(server.process.pid, signal.SIGSTOP)

    shown = await revoke_on_terminal(server, "--timeout", "0.5", watch=stop)
    os.kill(server.process.pid, signal.SIGCONT)
    assert shown.exit_code == 1
    refusal, told = shown.output.decode().splitlines()[-2:]
    assert "did not answer within 0.5 s" in refusal
    assert re.fullmatch(r"revoked so far: \d+00; run the same command again to revoke the rest", told)
