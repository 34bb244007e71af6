"""Ending many sessions: exactly those that match, counted, in steps that can fail or be interrupted."""

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
    """A server with an application `shop`."""
    async with serving(config_for(tmp_path, "[applications.shop]\n"), clock) as app:
        yield app


async def open_many(client: AsyncClient, number: int, clock: ManualClock | None = None, subject: str = "ada") -> None:
    """Open so many sessions, a millisecond apart if there is a clock."""
    for start in range(0, number, 100):
        opened = []
        for _ in range(min(100, number - start)):
            if clock is not None:
                clock.advance(1)
            opened.append(client.create(subject=subject))
        await asyncio.gather(*opened)


class Unreliable:
    """A client whose first calls of `revoke_all` do what the test says, and whose later calls work."""

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
    """The server revokes the sessions, and its answer does not arrive in time."""
    call()
    raise DeadlineExceeded("too late")


def not_reached(_: Callable[[], RevokedAll]) -> RevokedAll:
    raise DeadlineExceeded("too late")


def interrupted(_: Callable[[], RevokedAll]) -> RevokedAll:
    raise KeyboardInterrupt


def gone(_: Callable[[], RevokedAll]) -> RevokedAll:
    raise Unavailable("gone")


async def run(app: App, *calls: Callable[..., RevokedAll], which: Filter = EVERYTHING, keep: str = "") -> list[int]:
    """End sessions with such calls; returns the progress, and the total at the end."""
    progress: list[int] = []

    def work() -> RevokedAll:
        with Client(app.address, application="shop", timeout=30) as client:
            unreliable = cast("Client", Unreliable(client, *calls))
            return revoke_all(unreliable, which, keep=keep, reason="a test", progress=progress.append)

    answer = await asyncio.to_thread(work)
    return [*progress, answer.revoked_count]


async def test_many_are_ended_in_steps(operator: Operator, app: App, clock: ManualClock) -> None:
    """Sessions that need several steps are all ended and counted, with the progress after each step."""
    await open_many(operator.client, 1_100, clock)
    assert await run(app) == [500, 1000, 1100, 1100]
    assert [session async for session in operator.client.list()] == []
    assert await run(app) == [0]


async def test_one_is_kept_and_others_are_left(operator: Operator, app: App, clock: ManualClock) -> None:
    """Only matching sessions are ended, and never the one to keep, however many there are."""
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
    """It continues after a deadline, and counts each session once, whether or not the lost calls took effect."""
    await open_many(operator.client, 1_100, clock)
    assert (await run(app, *calls))[-1] == 1_100
    assert [session async for session in operator.client.list()] == []


async def test_a_step_that_runs_late_is_counted(operator: Operator, app: App, clock: ManualClock) -> None:
    """If the call of one step ends sessions during the next step, these are counted, though no answer counts them."""
    await open_many(operator.client, 600, clock)
    running = []

    def late(call: Callable[[], RevokedAll]) -> RevokedAll:
        running.append(call)
        raise DeadlineExceeded("too late")

    def late_one_first(call: Callable[[], RevokedAll]) -> RevokedAll:
        running.pop()()
        return call()

    assert (await run(app, late, late_one_first))[-1] == 600


async def test_sessions_opened_meanwhile_are_kept(operator: Operator, app: App, clock: ManualClock) -> None:
    """Sessions that are opened after the start are not ended, so the command ends however many there are."""
    await open_many(operator.client, 600, clock)
    loop = asyncio.get_running_loop()

    def opened_first(call: Callable[[], RevokedAll]) -> RevokedAll:
        asyncio.run_coroutine_threadsafe(open_many(operator.client, 600, clock, "bob"), loop).result()
        return call()

    assert (await run(app, opened_first, opened_first))[-1] == 600
    assert len([session async for session in operator.client.list(subject="bob")]) == 1200


@pytest.mark.parametrize("with_kept", [True, False], ids=["only the kept one", "none"])
async def test_sessions_opened_before_the_only_call_are_kept(
    operator: Operator, app: App, clock: ManualClock, with_kept: bool
) -> None:
    """If there is nothing to end at the start, sessions that are opened directly after it are not ended either."""
    keep = (await operator.client.create(subject="ada")).session.session_id if with_kept else ""
    loop = asyncio.get_running_loop()

    def opened_first(call: Callable[[], RevokedAll]) -> RevokedAll:
        asyncio.run_coroutine_threadsafe(open_many(operator.client, 2, clock), loop).result()
        return call()

    assert await run(app, opened_first, which={"subject": "ada", "labels": {}}, keep=keep) == [0]
    assert len([session async for session in operator.client.list(subject="ada")]) == 2 + with_kept


@pytest.mark.parametrize(
    ("calls", "cause"),
    [
        ((not_reached, not_reached, not_reached), DeadlineExceeded),
        ((interrupted,), KeyboardInterrupt),
        ((gone,), Unavailable),
    ],
    ids=["deadlines", "Ctrl-C", "gone"],
)
async def test_a_halt_has_the_count_so_far(
    operator: Operator,
    app: App,
    clock: ManualClock,
    calls: tuple[Callable[..., RevokedAll], ...],
    cause: type[BaseException],
) -> None:
    """If it cannot continue, it reports how many sessions have ended; a second run ends the rest."""
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
    """The command that ends all sessions of the server."""
    return [sys.executable, "-m", "sessionctl", "--target", await server.address(), "revoke", "--all", "--yes", *more]


async def revoke_on_terminal(
    server: ServerProcess, *more: str, watch: Callable[[int, bytes], None] = lambda pid, shown: None
) -> Run:
    """End all sessions, on a terminal."""
    return await asyncio.to_thread(on_terminal, await command(server, *more), watch)


async def test_progress_is_shown_on_a_terminal(server: ServerProcess) -> None:
    """A terminal shows a growing count, and then the total in its place."""
    shown = await revoke_on_terminal(server)
    *progress, total = shown.output.decode().split("\r\x1b[K")
    assert shown.exit_code == 0
    assert progress == ["\rrevoked so far: 500\rrevoked so far: 1000\rrevoked so far: 1200"]
    assert "1200" in total
    assert "so far" not in total


async def test_json_is_only_the_result(server: ServerProcess) -> None:
    """With --json only the final result is written, on a terminal too."""
    shown = await revoke_on_terminal(server, "--json")
    assert json.loads(shown.output)["revoked_count"] == 1200


async def test_an_interruption_says_how_to_continue(server: ServerProcess) -> None:
    """After Ctrl-C the exit code is 130, and the message has the count and the way to end the rest."""

    done: list[int] = []

    def stop_then_interrupt(pid: int, shown: bytes) -> None:
        if b"so far: " in shown and not done:
            done.append(pid)
            os.kill(server.process.pid, signal.SIGSTOP)  # so that it surely has not finished
            os.kill(pid, signal.SIGINT)

    shown = await revoke_on_terminal(server, "--timeout", "60", watch=stop_then_interrupt)
    os.kill(server.process.pid, signal.SIGCONT)
    assert shown.exit_code == 130
    message = shown.output.decode().splitlines()[-1]
    assert re.search(r"interrupted; revoked so far: \d+00; run the same command again to revoke the rest$", message)
    again = await revoke_on_terminal(server)
    assert again.exit_code == 0


async def test_a_server_that_stops_answering(server: ServerProcess) -> None:
    """After a few deadlines without progress the command fails, and the message has the count."""

    def stop(pid: int, shown: bytes) -> None:
        if b"so far: " in shown:
            os.kill(server.process.pid, signal.SIGSTOP)

    shown = await revoke_on_terminal(server, "--timeout", "0.5", watch=stop)
    os.kill(server.process.pid, signal.SIGCONT)
    assert shown.exit_code == 4
    refusal, message = shown.output.decode().splitlines()[-2:]
    assert "within 0.5 s" in refusal
    assert re.fullmatch(r"revoked so far: \d+00; run the same command again to revoke the rest", message)
