"""Neither a proxy from the environment nor an exception gets to see a token."""

from __future__ import annotations

import asyncio
import logging
import socket
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from sessiond.app import App
from sessiond_client import (
    AsyncClient,
    Authentication,
    ClientClosed,
    ClientContext,
    ConcurrencyLimitReached,
    DeadlineExceeded,
    InvalidArgument,
    NotJson,
    SessiondError,
    Token,
    Unavailable,
    json_data,
)
from tests.clients.calls_of import CALLS, DATA, REQUEST_ID, TOKEN, ending_of
from tests.clients.either import CLIENTS, Either, Kind
from tests.support.server import config_for, serving

SECRETS = (TOKEN, REQUEST_ID, DATA.decode())
OURS = str(Path(__file__).parent)


# What an exception holds


def frames_of(error: BaseException) -> Iterator[FrameType]:
    """The frames between the caller, which is this folder, and the exception; and those that it came from."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        found = waiting.pop()
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        for frame, _ in traceback.walk_tb(found.__traceback__):
            if not frame.f_code.co_filename.startswith(OURS):
                yield frame
        waiting += [found.__cause__, found.__context__]


def texts_in(value: Any, seen: set[int], depth: int = 8) -> Iterator[str]:
    """Every text that an error tracker could find in a value, however deep, but not what a `Token` wraps."""
    if isinstance(value, (Token, ModuleType, type)) or id(value) in seen or depth == 0:
        return
    seen.add(id(value))
    if isinstance(value, str):
        yield value
        return
    yield repr(value)
    if isinstance(value, Message):
        yield str(value)
    elif isinstance(value, dict):
        for key, item in list(value.items()):
            yield from texts_in(key, seen, depth - 1)
            yield from texts_in(item, seen, depth - 1)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for item in list(value):
            yield from texts_in(item, seen, depth - 1)
    else:
        slots = {name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())}
        inner = [getattr(value, name, None) for name in slots if isinstance(name, str)]
        for item in [*inner, *getattr(value, "__dict__", {}).values()]:
            yield from texts_in(item, seen, depth - 1)


def shown(error: BaseException) -> list[str]:
    """The secrets that an exception shows, with the place of each."""
    seen: set[int] = set()
    found = [f"the exception: {text}" for text in texts_in([error.args, error.__dict__, str(error)], seen)]
    for frame in frames_of(error):
        assert not any(isinstance(item, Message) for item in frame.f_locals.values()), frame
        found += [f"{frame.f_code.co_qualname}: {text}" for text in texts_in(dict(frame.f_locals), seen)]
    found += [f"{type(other).__name__}: {other!r}" for other in (error.__cause__, error.__context__) if other]
    return [text for text in found if any(secret in text for secret in SECRETS)]


@contextmanager
def listening(*, accepting: bool) -> Iterator[str]:
    """Somebody who never answers; or a port that refuses."""
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        if accepting:
            mute.listen()
        yield f"127.0.0.1:{mute.getsockname()[1]}"


def test_the_search_finds_what_is_there() -> None:
    """A token in a variable of a frame is found: as text, in a message and in an object."""

    class Holder:
        def __init__(self) -> None:
            self.inner = [{"deep": DATA}]

    assert any(TOKEN in text for text in texts_in({"a": (TOKEN,)}, set()))
    assert any(DATA.decode() in text for text in texts_in(Holder(), set()))
    assert not any(TOKEN in text for text in texts_in([Token(TOKEN)], set()))


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("kind", CLIENTS)
async def test_no_frame_of_an_exception_holds_a_secret(kind: Kind, call: Callable[..., Any]) -> None:
    """Whatever a call fails with, its traceback has no frame with a token, a request id, session data or a message."""
    with listening(accepting=True) as mute, listening(accepting=False) as refusing:
        async with Either(kind, mute, timeout=0.05) as client:
            late = await ending_of(client, call)
            wrong = await ending_of(client, lambda client: call(client, timeout="soon"))
            unknown = await ending_of(client, lambda client: call(client, no_such_argument=1))
        closed = await ending_of(client, call)
        async with Either(kind, refusing, retries=0) as client:
            refused = await ending_of(client, call)
            again = await ending_of(client, call)
    kinds = [type(error) for error in (late, wrong, unknown, closed, refused, again)]
    assert kinds == [DeadlineExceeded, InvalidArgument, TypeError, ClientClosed, Unavailable, Unavailable]
    assert [shown(error) for error in (late, wrong, unknown, closed, refused, again)] == [[]] * 6


async def test_no_exception_of_the_authority_shows_a_secret(client: Either) -> None:
    """What the authority refuses leaves no secret in the exception either."""
    created = await client.create(subject="ada", data={"k": DATA})
    wrong: list[Callable[[Any], Any]] = [
        lambda client: client.authenticate(created.token, "x" * 300, request_id=REQUEST_ID),
        lambda client: client.update_data(token=created.token, set={"k": DATA}, expected_version=7),
        lambda client: client.validate(TOKEN, at_least="nonsense"),
        lambda client: client.create(data={"k": DATA * 10_000}, request_id=REQUEST_ID),
        lambda client: client.get(token=TOKEN, session_id=TOKEN),
    ]
    for call in wrong:
        error = await ending_of(client, call)
        assert isinstance(error, SessiondError)
        assert shown(error) == []
        assert created.token.reveal() not in "".join(texts_in([dict(f.f_locals) for f in frames_of(error)], set()))


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_ticket_is_shown_by_no_frame(kind: Kind, tmp_path: Path) -> None:
    """The limit of concurrent sessions raises with its ticket, and no frame has the answer that it came in."""
    policy = '[applications.default]\npreset = "owasp-low"\nmax_sessions = 1\non_limit = "ask"\n'
    async with serving(config_for(tmp_path, policy)) as app, Either(kind, app.address) as client:
        how = Authentication(level=1, methods=("pwd",))
        await client.create(subject="ada", authentication=how)
        reached = await ending_of(client, lambda client: client.create(subject="ada", authentication=how))
    assert isinstance(reached, ConcurrencyLimitReached)
    assert reached.limit.ticket is not None
    ticket = reached.limit.ticket.reveal()
    assert not any(ticket in text for frame in frames_of(reached) for text in texts_in(dict(frame.f_locals), set()))


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_cancelled_call_shows_no_secret(call: Callable[..., Any]) -> None:
    """A caller that cancels its task gets the CancelledError without the frames of the client and of gRPC."""
    with listening(accepting=True) as mute:
        async with Either(AsyncClient, mute) as client:
            task = asyncio.create_task(ending_of(client, call))
            for _ in range(5):
                await asyncio.sleep(0)  # the task runs up to gRPC's own waiting; nobody answers, so it stays there
            task.cancel()
            ending = await task
    assert isinstance(ending, asyncio.CancelledError)
    assert shown(ending) == []


@pytest.mark.parametrize("cancelled", [False, True], ids=["late", "cancelled"])
async def test_a_failed_question_on_a_stream_shows_no_secret(cancelled: bool) -> None:
    """Validations that share a stream and fail, or are cancelled there, show no secret in any frame."""
    with listening(accepting=True) as mute:
        async with AsyncClient(mute, timeout=0.1) as client:
            seen = ClientContext(ip_address="192.0.2.1", user_agent="x")
            tasks = [asyncio.create_task(client.validate(TOKEN, client=seen)) for _ in range(20)]
            for _ in range(5):
                await asyncio.sleep(0)
            assert client._coalescer is not None
            assert client._coalescer._stream is not None
            for task in tasks if cancelled else ():
                task.cancel()
            endings = await asyncio.gather(*tasks, return_exceptions=True)
    wanted = asyncio.CancelledError if cancelled else DeadlineExceeded
    for ending in endings:
        assert isinstance(ending, wanted)
        assert shown(ending) == []


class Raising(grpc.UnaryUnaryClientInterceptor):
    """An interceptor of the caller's that fails."""

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        raise LookupError("nothing in the vault")


class RaisingAsync(grpc.aio.UnaryUnaryClientInterceptor):
    """The same for asyncio."""

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        raise LookupError("nothing in the vault")


@pytest.mark.parametrize("kind", CLIENTS)
async def test_an_exception_of_an_interceptor_shows_no_secret(kind: Kind) -> None:
    """An exception that is not ours arrives as it is, with a note of its place in place of the frames."""
    interceptor = RaisingAsync() if kind is AsyncClient else Raising()
    async with Either(kind, "127.0.0.1:1", interceptors=[interceptor]) as client:
        error = await ending_of(client, CALLS["roll"])
    assert isinstance(error, LookupError)
    assert shown(error) == []
    assert "intercept_unary_unary" in error.__notes__[0]


@pytest.mark.parametrize("kind", CLIENTS)
async def test_nothing_is_logged_of_a_failed_call(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    """A failed call leaves no secret in any log, at any level."""
    with listening(accepting=False) as refusing, caplog.at_level(logging.DEBUG):
        async with Either(kind, refusing, retries=1) as client:
            for call in CALLS.values():
                assert isinstance(await ending_of(client, call), Unavailable)
    assert not any(secret in caplog.text for secret in SECRETS)


def test_data_that_is_not_json_is_shown_by_no_frame() -> None:
    """`NotJson` comes without the value that it is about, in either direction."""
    with pytest.raises(NotJson) as written:
        json_data.encode({"fine": DATA.decode(), "k": {DATA.decode(): object()}})
    with pytest.raises(NotJson) as read:
        json_data.decode({"k": DATA})
    assert [shown(written.value), shown(read.value)] == [[], []]


# Proxies


@asynccontextmanager
async def proxy() -> AsyncIterator[tuple[str, list[bytes]]]:
    """An HTTP proxy that notes what it is sent, and refuses it."""
    sent: list[bytes] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent.append(await reader.read(65_536))
        writer.close()

    async with await asyncio.start_server(note, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}", sent


@pytest.mark.parametrize("name", ["http_proxy", "https_proxy", "grpc_proxy"])
@pytest.mark.parametrize("kind", CLIENTS)
async def test_no_call_goes_through_a_proxy(kind: Kind, name: str, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls and streams go to the authority itself, whatever proxy the environment names."""
    for other in ("no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(other, raising=False)
    async with proxy() as (address, sent):
        monkeypatch.setenv(name, address)
        async with Either(kind, app.address) as client:
            created = await client.create(subject="ada")
            assert (await client.validate(created.token)).valid
            async with client.follow(start="earliest") as stream:
                assert (await stream.next()).session_id == created.session.session_id
    assert sent == []


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_caller_may_ask_for_a_proxy(kind: Kind, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """`channel_options` turns the proxy of the environment on again."""
    async with proxy() as (address, sent):
        monkeypatch.setenv("grpc_proxy", address)
        options = {"grpc.enable_http_proxy": 1}.items()
        async with Either(kind, app.address, channel_options=options, retries=0) as client:
            with pytest.raises(Unavailable):
                await client.authority()
    assert sent
    assert sent[0].startswith(b"CONNECT ")
