"""A client that cannot make a call says why: it is closed, in another event loop, or in a forked process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sessiond.app import App
from sessiond_client import (
    AsyncClient,
    ClientClosed,
    ClientUnusable,
    WrongEventLoop,
)
from tests.clients.calls_of import CALLS, ending_of
from tests.clients.either import CLIENTS, Either, Kind
from tests.clients.relay import Holding
from tests.support.programs import start_program
from tests.support.server import config_for, serving

# Closing


@pytest.mark.parametrize("call", [*CALLS.values(), lambda client: client.events()], ids=[*CALLS, "events"])
@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_closed_client_says_so(kind: Kind, call: Callable[[Any], Any]) -> None:
    """Every call of a closed client is a ClientClosed, whether the client was used before or not."""
    client = Either(kind, "127.0.0.1:1")
    await client.close()
    await client.close()
    error = await ending_of(client, call)
    assert isinstance(error, ClientClosed)
    assert isinstance(error, ClientUnusable)
    assert (error.message, error.outcome_unknown) == ("the client is closed: create a new one", False)


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_client_that_was_used_and_closed_says_so(kind: Kind, app: App) -> None:
    """After calls, too, a closed client says that it is closed, for calls and for streams."""
    async with Either(kind, app.address) as client:
        await client.authority()
    for call in (CALLS["authority"], CALLS["list"], lambda client: client.events()):
        assert isinstance(await ending_of(client, call), ClientClosed)


@pytest.mark.parametrize(("name", "unknown"), [("create", True), ("authority", False)])
@pytest.mark.parametrize("kind", CLIENTS)
async def test_closing_during_a_call_raises_a_client_error(kind: Kind, app: App, name: str, unknown: bool) -> None:
    """A call that is under way when its client is closed ends in a ClientClosed; the outcome of a change is unknown."""
    relay = Holding(app.address)
    async with relay.running() as target:
        client = Either(kind, target)
        call = asyncio.create_task(ending_of(client, CALLS[name]))
        async with asyncio.timeout(10):
            await relay.arrived.wait()
            await client.close()
            error = await call
    assert isinstance(error, ClientClosed)
    assert (error.message, error.outcome_unknown) == ("the client was closed during the call", unknown)


async def test_a_task_group_sees_that_its_client_was_closed(app: App) -> None:
    """A task group does not take a closed client for a cancellation, which it would swallow."""
    relay = Holding(app.address)

    async def in_a_group(client: AsyncClient) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(client.authority())
            await relay.arrived.wait()
            await client.close()

    async with relay.running() as target, asyncio.timeout(10):
        with pytest.raises(BaseExceptionGroup) as failed:
            await in_a_group(AsyncClient(target))
    assert [type(error) for error in failed.value.exceptions] == [ClientClosed]


@pytest.mark.parametrize("kind", CLIENTS)
async def test_closing_ends_a_call_between_its_attempts(kind: Kind) -> None:
    """A call that is being repeated does not go on after `close`."""
    tried = asyncio.Semaphore(0)

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tried.release()
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server, asyncio.timeout(30):
        host, port = server.sockets[0].getsockname()
        client = Either(kind, f"{host}:{port}", retries=1_000, timeout=600)
        call = asyncio.create_task(ending_of(client, CALLS["create"]))
        for _ in range(3):
            await tried.acquire()
        await client.close()
        error = await call
    assert isinstance(error, ClientClosed)


async def test_a_cancelled_caller_stays_cancelled(app: App) -> None:
    """Cancelling the task of a call is a CancelledError, also if the client is closed at the same moment."""
    relay = Holding(app.address)
    async with relay.running() as target, asyncio.timeout(10):
        client = AsyncClient(target)
        task = asyncio.create_task(client.authority())
        await relay.arrived.wait()
        task.cancel()
        await client.close()
        with pytest.raises(asyncio.CancelledError):
            await task


# Event loops


def test_a_second_event_loop_is_refused_with_the_remedy(app_elsewhere: str) -> None:
    """An AsyncClient in a second event loop raises WrongEventLoop, which says what to do; nothing is sent."""
    client = AsyncClient(app_elsewhere)
    asyncio.run(client.authority())
    for call in (CALLS["authority"], CALLS["list"]):
        error = asyncio.run(ending_of(Either.of(client), call))
        assert isinstance(error, WrongEventLoop)
        assert "create one in each loop" in error.message
    asyncio.run(client.close())  # its loop is closed: nothing is left that could be closed


def test_a_stream_in_a_second_event_loop_is_refused(app_elsewhere: str) -> None:
    """A stream is of its client's loop too."""

    async def follow() -> Any:
        stream = client.events(start="earliest", include_checkpoints=True)
        try:
            return await anext(stream)
        finally:
            await stream.close()

    client = AsyncClient(app_elsewhere)
    asyncio.run(follow())
    with pytest.raises(WrongEventLoop):
        asyncio.run(follow())


@pytest.fixture
def app_elsewhere(tmp_path: Path) -> Iterator[str]:
    """The address of an authority whose loop runs in a thread of its own."""
    addresses, stop = list[str](), asyncio.Event()
    ready = threading.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with serving(config_for(tmp_path)) as app:
            addresses.append(app.address)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(30)
    yield addresses[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join(30)
    loop.close()


# Forks


async def forking(*arguments: str, relay: Holding | None = None) -> list[str]:
    """What the program writes. With a relay it forks while a call through it waits."""
    program = await start_program(
        *(sys.executable, "-m", "tests.clients.forking", *arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert program.stdin is not None
    assert program.stdout is not None
    async with asyncio.timeout(120):
        if relay is not None:
            await relay.arrived.wait()
            program.stdin.write(b"go on\n")
        lines = (await program.stdout.read()).decode().splitlines()
        assert await program.wait() == 0
    return lines


async def test_a_fork_between_calls_leaves_the_child_its_own_clients(app: App) -> None:
    """In a child the parent's client and streams raise ClientForked, and the child's own clients work."""
    # On a busy machine gRPC's threads may still work on the last call at the fork, and abort a child (see below).
    for _ in range(3):
        *children, parent = await forking(app.address, "threads")
        assert set(children) <= {"ClientForked ClientForked ClientForked fine fine"}
        if len(children) == 4:
            break
    assert (len(children), parent) == (4, "parent fine 0 0 0 0")


async def test_no_client_hangs_after_a_fork_during_a_call(app: App) -> None:
    """If another thread was making a call, every client in a child raises ClientForked, and none waits for ever."""
    # Threads of gRPC's own may abort such a child at any moment, by signal 6 or 11: no client can prevent that.
    relay = Holding(app.address)
    async with relay.running() as waiting:
        *children, parent = await forking(app.address, "threads", waiting, relay=relay)
    assert set(children) <= {" ".join(["ClientForked"] * 5)}
    name, ending, *codes = parent.split()
    assert (name, ending) == ("parent", "fine")
    assert set(codes) <= {"0", "6", "11"}
    assert codes.count("0") <= len(children)


async def test_a_fork_with_an_open_asynchronous_client_never_crashes(app: App) -> None:
    """While one is open, no AsyncClient works in a child, and each says so; once it is closed, the child's own does."""
    expected = ["ClientForked ClientForked fine", "ClientForked fine fine", "parent 0 0"]
    assert await forking(app.address, "asyncio") == expected
