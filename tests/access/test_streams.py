"""Open streams end when their caller changes, and only then for that reason."""

from __future__ import annotations

import asyncio
import os

import pytest

from sessiond.access.book import CallerBook
from sessiond.access.callers import Callers, CallersOfWorkers
from sessiond.access.streams import OpenStreams
from sessiond.crypto.caller_keys import new_key
from sessiond.domain.access import EVERYTHING, CallerRecord, Role
from sessiond.domain.call import PEER_KEY, Caller
from sessiond.domain.errors import AuthorityError, Unauthenticated, Unavailable
from sessiond.domain.values import Instant, Revision
from tests.support.clock import START, ManualClock

SHOP, OPS = Caller("shop"), Caller("ops")


class Gone:
    """Who is gone: their streams end with UNAUTHENTICATED."""

    def __init__(self) -> None:
        self.streams = OpenStreams(self._refusal)
        self.names: set[str] = set()

    def _refusal(self, caller: Caller) -> AuthorityError | None:
        return Unauthenticated("gone") if caller.name in self.names else None

    def end(self, *names: str) -> None:
        """Remove callers."""
        self.names |= set(names)
        self.streams.end(names)


async def opened(streams: OpenStreams, caller: Caller) -> asyncio.Task[None]:
    """The task of a stream that is being served, until it is ended."""
    began = asyncio.Event()

    async def serving() -> None:
        began.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(streams.serve(caller, serving()))
    await began.wait()
    return task


async def test_the_streams_of_a_caller_end() -> None:
    """All streams of a caller that changed end with UNAUTHENTICATED, and those of others go on."""
    gone = Gone()
    streams = gone.streams
    mine = [await opened(streams, SHOP) for _ in range(3)]
    other = await opened(streams, OPS)
    gone.end("shop", "unknown")
    for task in mine:
        with pytest.raises(Unauthenticated, match="gone"):
            await task
    assert not other.done()
    gone.end("ops")
    with pytest.raises(Unauthenticated):
        await other


async def test_a_cancelled_stream_is_not_unauthenticated() -> None:
    """A stream that the transport cancels is cancelled, and not turned into UNAUTHENTICATED."""
    gone = Gone()
    streams = gone.streams
    task = await opened(streams, SHOP)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


@pytest.mark.parametrize("times", [1, 2])
async def test_a_task_is_not_cancelled_any_more_after_its_end(times: int) -> None:
    """After its end a stream's task is no longer being cancelled, even if its caller changed twice at once."""
    gone = Gone()
    streams = gone.streams
    after: list[int] = []

    async def serving() -> None:
        try:
            await streams.serve(SHOP, asyncio.Event().wait())  # type: ignore[arg-type]  # what it returns does not matter
        except Unauthenticated:
            task = asyncio.current_task()
            assert task is not None
            after.append(task.cancelling())
            await asyncio.sleep(0)
            after.append(1_000)

    task = asyncio.create_task(serving())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for _ in range(times):
        gone.end("shop")
    await task
    assert after == [0, 1_000]
    assert streams._ended == set()


async def test_streams_are_forgotten_when_they_are_over() -> None:
    """A stream that has returned, failed or was cancelled is not kept, and the end of its caller reaches nothing."""
    gone = Gone()
    streams = gone.streams

    async def returning() -> None:
        await asyncio.sleep(0)

    async def failing() -> None:
        raise ValueError("bad")

    await streams.serve(SHOP, returning())
    with pytest.raises(ValueError, match="bad"):
        await streams.serve(SHOP, failing())
    (await opened(streams, SHOP)).cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert streams._tasks == {}
    gone.end("shop")
    await asyncio.sleep(0)  # a cancellation of this task would be raised here


def record(name: str, revision: int = 1) -> tuple[CallerRecord, list[tuple[str, str]]]:
    """A caller, and the metadata that proves it."""
    key, credential = new_key(os.urandom, Instant(START))
    metadata = [("authorization", f"Bearer {key.reveal()}")]
    return CallerRecord(name, EVERYTHING, (credential,), Instant(START), Revision(revision)), metadata


CHANGES: dict[str, type[AuthorityError] | None] = {
    "revoked": Unauthenticated,
    "rotated": Unavailable,  # clients resume, with a key that may still be good
    "nothing": None,
}
EACH_CHANGE = pytest.mark.parametrize(("change", "error"), CHANGES.items())


def change_of(change: str) -> dict[str, CallerRecord | None]:
    """What happens to `shop`, whose revision was 2."""
    changes: dict[str, dict[str, CallerRecord | None]] = {
        "revoked": {"shop": None},
        "rotated": {"shop": record("shop", 3)[0]},
        "nothing": {"edge": record("edge", 3)[0]},
    }
    return changes[change]


@EACH_CHANGE
async def test_a_stream_whose_message_comes_late(change: str, error: type[AuthorityError] | None) -> None:
    """A stream whose caller was revoked or rotated between its metadata and its first message is not served."""
    (ops, _), (shop, metadata) = record("ops"), record("shop", 2)
    book = CallerBook([ops, shop], ManualClock().now)
    callers = Callers(book)
    caller = callers.identify("", metadata)
    book.apply(change_of(change))
    served: list[bool] = []

    async def serving() -> None:
        served.append(True)

    if error is None:
        await callers.open_streams.serve(caller, serving())
    else:
        with pytest.raises(error):
            await callers.open_streams.serve(caller, serving())
    assert served == ([True] if error is None else [])


@EACH_CHANGE
async def test_an_open_stream_ends_with_a_change_of_its_caller(change: str, error: type[AuthorityError] | None) -> None:
    """An open stream of a revoked caller is UNAUTHENTICATED, and of a rotated one UNAVAILABLE: its client resumes."""
    (ops, _), (shop, metadata) = record("ops"), record("shop", 2)
    book = CallerBook([ops, shop], ManualClock().now)
    callers = Callers(book)
    task = await opened(callers.open_streams, callers.identify("", metadata))
    book.apply(change_of(change))
    if error is None:
        await asyncio.sleep(0)
        assert not task.done()
        task.cancel()
    else:
        with pytest.raises(error):
            await task


async def test_a_stream_from_before_the_first_caller() -> None:
    """A call that was identified before there were callers, and sends its message afterwards, is not served."""
    book = CallerBook([], ManualClock().now)
    callers = Callers(book)
    caller = callers.identify("", None)
    await callers.open_streams.serve(caller, asyncio.sleep(0))
    book.replace([record("caller")[0]])  # a caller may even have the name that everyone had
    with pytest.raises(Unauthenticated):
        await callers.open_streams.serve(caller, asyncio.sleep(0))


async def test_the_streams_of_workers_go_on() -> None:
    """The stream that feeds a worker's memory is served whatever callers there are, and no change of one ends it."""
    (ops, _), (shop, _) = record("ops"), record("shop", 2)
    book = CallerBook([ops], ManualClock().now)
    callers = CallersOfWorkers(book)
    task = await opened(callers.open_streams, callers.identify("unix:", None))
    book.apply({"shop": shop})
    book.apply({"shop": None})
    await asyncio.sleep(0)
    assert not task.done()
    task.cancel()


def test_a_call_through_a_worker_needs_a_key() -> None:
    """What a worker forwards needs the key of its caller; what it asks for itself needs none, and is no change."""
    ops, metadata = record("ops")
    callers = CallersOfWorkers(CallerBook([ops], ManualClock().now))
    through = (PEER_KEY, "ipv4:192.0.2.1:5")
    assert callers.identify("unix:", [*metadata, through]).name == "ops"
    with pytest.raises(Unauthenticated):
        callers.identify("unix:", [through])
    assert callers.identify("unix:", None).grants == {("*", Role.VALIDATOR)}
