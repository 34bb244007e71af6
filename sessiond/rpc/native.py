"""The optional transport: HTTP/2 and gRPC in Rust, outside of the interpreter's lock (PyPI `pygrpc-native`).

Decision 24 in docs/decisions says what it is good for, and which limits do not hold on it. The package is used through
its lower layer, `NativeGrpcFront`: a call arrives as the bytes of its request, and is answered by its number with bytes
or with a status. Methods with a stream of requests, and reflection, are forwarded to a grpcio server behind it, over a
Unix socket in a private temporary folder.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, Protocol

import grpc
import structlog
from pygrpc_native import EVENT_CANCEL, STREAM_CLOSED, STREAM_FULL, NativeGrpcFront

from sessiond.access.limits import Account
from sessiond.access.turns import Work, watched
from sessiond.domain.call import Caller
from sessiond.domain.errors import AuthorityError
from sessiond.rpc.call_stats import CallStats, MethodStats
from sessiond.rpc.grpcio import GrpcioTransport
from sessiond.rpc.handlers import Intake, Method, internal_error
from sessiond.rpc.listening import (
    KEEPALIVE_TIME_MS,
    KEEPALIVE_TIMEOUT_MS,
    MAX_MESSAGE_BYTES,
    MAX_METADATA_BYTES,
)
from sessiond.rpc.sockets import check_port, prepare_socket
from sessiond.rpc.status import status_of
from sessiond.rpc.traced import TracedStats, begin_traced
from sessiond.system.ongoing import Metadata, Tracer, end_call, this_call

__all__ = ["NativeTransport"]

_log = structlog.get_logger(__name__)
_IO_THREADS = 2
_BATCH = 64
"""How many events one trip from the Rust threads to the event loop carries, at most."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05
"""Seconds between attempts to write to a stream whose reader is behind."""
_FLUSH = 0.01
"""Seconds for the sockets to take the last bytes of responses that the package counts as sent."""


class _CallerGone(Exception):
    """The caller has hung up, so nothing more can be sent."""


class _Call:
    """One call: the methods of grpc.aio's context that handlers use, and the ways it ends, which are counted."""

    __slots__ = ("_began", "_front", "_stats", "number", "status")

    def __init__(self, front: NativeGrpcFront, number: int, stats: MethodStats | TracedStats) -> None:
        self._front = front
        self._stats = stats
        self._began = stats.begin()
        self.number = number
        self.status: Any = None
        """The status that the handler has aborted the call with."""

    async def write(self, message: Any) -> None:
        """Send a message of a stream; wait while the caller does not read."""
        raw = message if isinstance(message, bytes) else message.SerializeToString()
        pause = _FIRST_PAUSE
        # Not the package's blocking `stream_send`: it would keep a thread for each reader that is behind.
        while (outcome := self._front.stream_try_send(self.number, raw)) == STREAM_FULL:
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        if outcome == STREAM_CLOSED:
            raise _CallerGone
        self._stats.sent += 1

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        """End the call with a status."""
        self.status = _Status(code, details, trailing_metadata)
        raise grpc.aio.AbortError

    async def abort_with_status(self, status: Any) -> NoReturn:
        """End the call with a status."""
        self.status = status
        raise grpc.aio.AbortError

    def respond(self, response: bytes) -> None:
        """End the call with its response."""
        self._stats.sent += 1
        self._stats.end(self._began)
        self._front.respond(self.number, response)

    def end_stream(self) -> None:
        """End a stream."""
        self._stats.end(self._began)
        self._front.stream_end(self.number)

    def fail(self, status: Any) -> None:
        """End the call with a status."""
        self._stats.end(self._began, status.code.name)
        self._front.fail(self.number, status.code.value[0], status.details, list(status.trailing_metadata))

    def refuse(self, code: grpc.StatusCode, details: str) -> None:
        """End the call with a status without metadata. If the caller has hung up, it is only counted."""
        self._stats.end(self._began, code.name)
        self._front.fail(self.number, code.value[0], details)


class _Status:
    """A gRPC status, as `grpc_status` has it."""

    def __init__(self, code: grpc.StatusCode, details: str, trailing_metadata: Any) -> None:
        self.code = code
        self.details = details
        self.trailing_metadata = trailing_metadata


def _stats_of(path: str, method: Method, stats: CallStats) -> MethodStats:
    _, service, name = path.split("/")
    return stats.of(service, name, "server_stream" if method.streams else "unary")


class Watched(Protocol):
    """What is known about calls: see `server.Shared`."""

    @property
    def stats(self) -> CallStats:
        """Counts the calls."""

    @property
    def tracer(self) -> Tracer | None:
        """Begins their spans; None: they are not traced."""


def _end(account: Account, work: Work | None) -> None:
    account.end()
    if work is not None:
        work.end()


class NativeTransport:
    """Serves the methods with one request each by itself, and everything else through `fallback`; see `Transport`.

    `methods` are the former, by the path of the method. Calls beyond `max_calls` at once are refused.
    """

    def __init__(
        self,
        methods: Mapping[str, Method],
        intake: Intake,
        fallback: GrpcioTransport,
        max_calls: int,
        watched: Watched,
    ) -> None:
        self._stats = [_stats_of(path, method, watched.stats) for path, method in methods.items()]
        self._tracer = watched.tracer
        self._paths = [(path, method.streams) for path, method in methods.items()]
        self._methods = list(methods.values())
        self._callers = intake.callers
        self._audited = intake.audited
        self._intake = intake
        self._unary_calls = intake.unary_calls
        self._fallback = fallback
        self._max_calls = max_calls
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._stopping = False

    def bind(self, address: str, credentials: grpc.ServerCredentials | None = None) -> int:
        """Bind an address; see `Transport`. There is no TLS, which the configuration has checked."""
        if credentials is not None:
            raise ValueError("the native transport has no TLS")
        check_port(address)
        self._front = NativeGrpcFront(
            address,
            self._paths,
            io_threads=_IO_THREADS,
            call_details=True,
            delay_stream_headers=True,
            metrics=True,  # they say when all responses have been sent
            keepalive_time_ms=KEEPALIVE_TIME_MS,
            keepalive_timeout_ms=KEEPALIVE_TIMEOUT_MS,
            keepalive_permit_without_calls=True,
            max_concurrent_streams=self._max_calls // 2,
            max_metadata_size=MAX_METADATA_BYTES,
        )
        return self._front.bound_port

    async def start(self) -> None:
        """Accept calls. Raise `CannotListen` if the socket to the fallback cannot be created."""
        self._folder = Path(tempfile.mkdtemp(prefix="sessiond-"))
        try:
            path = str(self._folder / "grpcio")
            prepare_socket(path)
            self._fallback.bind(f"unix:{path}")
            await self._fallback.start()
            self._front.set_fallback(path)
            self._front.start()
        except BaseException:
            self._front.close()
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        self._receiver = threading.Thread(
            target=self._receive, args=(asyncio.get_running_loop(),), name="native-transport", daemon=True
        )
        self._receiver.start()

    async def stop(self, grace: float) -> None:
        """Refuse new calls, give open calls `grace` seconds to finish, and then end them."""
        self._stopping = True
        loop = asyncio.get_running_loop()
        end = loop.time() + grace
        fallback = asyncio.ensure_future(self._fallback.stop(grace))
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=grace)
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await fallback
        # Closing the package's server drops the responses that it has not sent yet.
        while self._unsent() and loop.time() < end:  # noqa: ASYNC110 - the package reports no event for it
            await asyncio.sleep(_FLUSH)
        await asyncio.sleep(_FLUSH)
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._front.close()
        self._receiver.join()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _unsent(self) -> bool:
        """Return whether there are calls that have not ended, or whose response has not been sent."""
        counts = (self._front.metrics() or {"methods": {}})["methods"].values()
        return any(one["started"] != sum(status["count"] for status in one["status"].values()) for one in counts)

    def _receive(self, loop: asyncio.AbstractEventLoop) -> None:
        """Pass events to the event loop until the server is closed. Runs in a thread of its own."""
        while (events := self._front.recv_batch_details(_BATCH)) is not None:
            try:
                loop.call_soon_threadsafe(self._take, loop, events)
            except RuntimeError:
                return  # the loop was closed

    def _take(self, loop: asyncio.AbstractEventLoop, events: Sequence[Any]) -> None:
        for kind, number, method, raw, _, details in events:
            if kind == EVENT_CANCEL:
                if (task := self._tasks.get(number)) is not None:
                    loop.call_soon(task.cancel)  # after it has begun, so that it can clean up
                continue
            served, stats = self._methods[method], self._stats[method]
            account, metadata = None, details[0]
            stats.received += 1
            call = _Call(self._front, number, self._begun(served, stats, metadata))
            try:
                if (refusal := self._refusal(len(raw))) is not None:
                    call.refuse(*refusal)
                    continue
                peer = details[1]
                if served.is_open:
                    self._start(number, self._serve(call, served, raw, Caller("", peer)), None)
                    continue
                caller = self._audited.identify(served.name, self._callers, peer, metadata)
                beginning = self._intake.limiter.account(caller)
                if (turn := self._intake.begin(beginning, served.turn_weight)) is not None:
                    this_call(metadata)
                    self._start(number, self._serve_in_turn(turn, beginning, call, served, raw, caller), None)
                    continue
                account = beginning
                if (known := served.known(raw, caller)) is None:
                    this_call(metadata)
                    self._start_work(account, call, served, raw, caller)
                    continue
                call.respond(known)
            except AuthorityError as error:
                call.fail(status_of(error, metadata))
            except Exception:  # noqa: BLE001 - one call must not take the others of its batch with it
                this_call(metadata)
                call.fail(internal_error(served.name))
            if account is not None:
                # Not at once, or all that has arrived would be answered before anything else has its turn.
                loop.call_soon(self._intake.end, account, served.turn_weight)

    def _begun(self, method: Method, stats: MethodStats, metadata: Metadata) -> MethodStats | TracedStats:
        """Begin a call after the one before. Return what counts it."""
        end_call()
        if self._tracer is None or method.is_open:
            return stats
        return TracedStats(stats, begin_traced(self._tracer, stats.service, stats.method, metadata))

    def _start(self, number: int, serving: Coroutine[Any, Any, None], end: Callable[[], None] | None) -> None:
        task = asyncio.get_running_loop().create_task(serving)
        self._tasks[number] = task
        # Not in the task itself: one that is cancelled before it has begun never runs.
        task.add_done_callback(partial(self._forget, number, end))

    def _start_work(self, account: Account, call: _Call, method: Method, raw: bytes, caller: Caller) -> None:
        work = self._work(account, method)
        self._start(call.number, self._serve(call, method, raw, caller, work), partial(_end, account, work))

    def _work(self, account: Account, method: Method) -> Work | None:
        """Return what counts a call that has its turn; None for a stream, whose turn ends when it has begun."""
        if not method.streams:
            return Work(self._intake.turns, account.lane, method.turn_weight)
        self._intake.turns.end(account.lane, method.turn_weight)
        return None

    def _refusal(self, size: int) -> tuple[grpc.StatusCode, str] | None:
        """Return the code and text to refuse a call with before anything looks at it; None to serve it."""
        if self._stopping:
            return grpc.StatusCode.UNAVAILABLE, "the server is shutting down"
        if len(self._tasks) >= self._max_calls:
            return (
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "too many calls at once; try again soon, or raise server.max_calls",
            )
        if size > MAX_MESSAGE_BYTES:
            text = f"the message has {size} bytes, at most {MAX_MESSAGE_BYTES} are allowed"
            return grpc.StatusCode.RESOURCE_EXHAUSTED, text
        return None

    def _forget(self, number: int, end: Callable[[], None] | None, _: asyncio.Task[None]) -> None:
        del self._tasks[number]
        if end is not None:
            end()

    async def _serve_in_turn(
        self, turn: Awaitable[None], account: Account, call: _Call, method: Method, raw: bytes, caller: Caller
    ) -> None:
        try:
            await turn
        except AuthorityError as error:
            call.fail(status_of(error))
            return
        except asyncio.CancelledError:
            call.refuse(grpc.StatusCode.CANCELLED, "the call was ended")
            raise
        work = self._work(account, method)
        try:
            known = method.known(raw, caller)
            if known is None:
                serving = self._serve(call, method, raw, caller, work)
                del raw  # a stream may last for days
                await serving
            else:
                call.respond(known)
        except AuthorityError as error:
            call.fail(status_of(error))
        except Exception:  # noqa: BLE001 - of `known`; whatever `_serve` meets, it has ended the call itself
            call.fail(internal_error(method.name))
        finally:
            _end(account, work)

    async def _serve(self, call: _Call, method: Method, raw: bytes, caller: Caller, work: Work | None = None) -> None:
        if not method.streams:
            self._unary_calls.begin()
        try:
            responding = method.respond(raw, caller, call)
            del raw  # a stream may last for days
            response = await (responding if work is None else watched(responding, work))
        except AuthorityError as error:
            call.fail(status_of(error))
        except grpc.aio.AbortError:
            call.fail(call.status)
        except _CallerGone:
            call.refuse(grpc.StatusCode.CANCELLED, "the caller has hung up")
            _log.debug("caller gone", rpc=method.name)
        except asyncio.CancelledError:
            # If the caller has hung up, this does nothing.
            code = grpc.StatusCode.UNAVAILABLE if self._stopping else grpc.StatusCode.CANCELLED
            call.refuse(code, "the call was ended")
            raise
        except Exception:  # noqa: BLE001 - the last place to turn an exception into a status
            call.fail(internal_error(method.name))
        else:
            if method.streams:
                call.end_stream()
            else:
                call.respond(response)
        finally:
            if not method.streams:
                self._unary_calls.end()
