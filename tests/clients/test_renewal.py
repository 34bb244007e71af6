"""Channels whose credentials change: new ones are opened, and those before are closed when nothing needs them."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from sessiond_client.connection import Channels
from sessiond_stubs.v1 import session_authority_pb2 as pb
from sessiond_stubs.v1.session_authority_pb2_grpc import SessionAuthorityStub


class Stream:
    """What occupies a place on a channel."""


class Renewable:
    """Channels to nowhere, which count what was opened, and are renewed on request."""

    def __init__(self, *, asynchronous: bool = False) -> None:
        self.opened: list[Any] = []
        self.is_renewed = False
        self.channels = Channels(self._open, asynchronous=asynchronous, is_renewed=self._take)
        self._library: Any = grpc.aio if asynchronous else grpc

    def _open(self) -> Any:
        self.opened.append(self._library.insecure_channel("127.0.0.1:1"))
        return self.opened[-1]

    def _take(self) -> bool:
        found, self.is_renewed = self.is_renewed, False
        return found

    def renew(self) -> None:
        """Renew as if the files had changed."""
        self.is_renewed = True
        self.channels.renew()


def is_closed(channel: Any) -> bool:
    """Return whether a channel is closed: gRPC refuses calls on it then."""
    try:
        SessionAuthorityStub(channel).GetAuthority(pb.GetAuthorityRequest(), timeout=0.001)
    except ValueError:
        return True
    except grpc.RpcError:
        return False
    raise AssertionError("nobody answers there")


def test_unchanged_files_open_nothing() -> None:
    """Without a change, calls and streams share the channels that are open."""
    one = Renewable()
    stub, stream = one.channels.for_calls(), Stream()
    one.channels.renew()
    assert one.channels.for_calls() is stub
    assert one.channels.for_stream(stream) is one.channels.for_stream(stream)
    assert len(one.opened) == 2
    for channel in one.channels.close():
        channel.close()


def test_old_channels_go_on_until_the_next_change() -> None:
    """After a change new channels are opened; the old ones stay open until the next change, and are closed then."""
    one = Renewable()
    first, stream = one.channels.for_calls(), Stream()
    one.channels.for_stream(stream)
    one.renew()
    assert one.channels.for_calls() is not first
    assert one.channels.streams() == [stream]
    assert [is_closed(channel) for channel in one.opened] == [False] * 3
    one.renew()
    one.channels.for_calls()
    assert [is_closed(channel) for channel in one.opened] == [True, True, False, False]
    for channel in one.channels.close():
        channel.close()
    assert all(is_closed(channel) for channel in one.opened)


def test_a_stream_that_begins_notices_a_change() -> None:
    """A stream that begins after a change gets a new channel, and one that has ended is forgotten on its old one."""
    one = Renewable()
    old, new = Stream(), Stream()
    before = one.channels.for_stream(old)
    one.is_renewed = True
    assert one.channels.for_stream(new) is not before
    assert set(one.channels.streams()) == {old, new}
    one.channels.forget(old)
    assert one.channels.streams() == [new]
    for channel in one.channels.close():
        channel.close()


async def test_channels_of_asyncio() -> None:
    """The same with asyncio, where closing takes a task."""
    one = Renewable(asynchronous=True)
    one.channels.for_calls()
    one.renew()
    one.channels.for_calls()
    one.renew()
    for channel in one.channels.close():
        await channel.close()
    for task in tuple(one.channels._old._closing):
        await task
    for channel in one.opened:
        with pytest.raises(grpc.aio.UsageError):
            await SessionAuthorityStub(channel).GetAuthority(pb.GetAuthorityRequest(), timeout=1)
