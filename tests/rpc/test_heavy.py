"""Heavy messages: who sends them waits, and others that send honest ones do not wait for the sender's rest."""

from __future__ import annotations

import asyncio

import pytest

from sessiond.domain.errors import InvalidField, Overloaded
from sessiond.rpc.heavy import HEAVY_BYTES, HeavyMessages
from sessiond_stubs.v1 import session_authority_pb2 as pb

BROKEN = b"\xa0\x06\x00" * 300_000 + b"\xff"
HONEST = pb.CreateSessionRequest(data={"blob": bytes(2 * HEAVY_BYTES)}).SerializeToString()


async def refused(heavy: HeavyMessages, peer: str) -> None:
    """One broken message."""
    with pytest.raises(InvalidField):
        await heavy.parse(pb.CreateSessionRequest, BROKEN, peer)


async def test_an_honest_message_overtakes_the_rests_of_others() -> None:
    """Of ten broken messages from one connection most still wait when another's honest one has been read."""
    heavy = HeavyMessages()
    flood = [asyncio.create_task(refused(heavy, "ipv4:192.0.2.1:1")) for _ in range(10)]
    await asyncio.sleep(0)
    message = await heavy.parse(pb.CreateSessionRequest, HONEST, "ipv4:192.0.2.2:2")
    assert len(message.data["blob"]) == 2 * HEAVY_BYTES
    assert sum(task.done() for task in flood) <= 1
    for task in flood:
        task.cancel()
    await asyncio.gather(*flood, return_exceptions=True)


async def test_one_connections_messages_wait_for_each_other() -> None:
    """The same message from the connection of the flood comes last."""
    heavy, order = HeavyMessages(), []
    flood = [asyncio.create_task(refused(heavy, "unix:")) for _ in range(3)]
    await asyncio.sleep(0)
    await heavy.parse(pb.CreateSessionRequest, HONEST, "unix:")
    order += [task.done() for task in flood]
    assert order == [True, True, True]


async def test_a_connection_that_is_gone_is_forgotten() -> None:
    """What is remembered of connections does not grow with their number."""
    heavy = HeavyMessages()
    for number in range(200):
        await heavy.parse(pb.CreateSessionRequest, HONEST, f"ipv4:192.0.2.1:{number}")
    assert len(heavy._senders) <= 1


async def test_who_hangs_up_gives_back_its_turn() -> None:
    """A caller that is cancelled while it rests, or waits, leaves the turn to the next."""
    heavy = HeavyMessages()
    tasks = [asyncio.create_task(refused(heavy, f"ipv4:192.0.2.1:{number % 2}")) for number in range(6)]
    await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (await heavy.parse(pb.CreateSessionRequest, HONEST, "ipv4:192.0.2.1:0")).data


async def test_the_messages_of_one_connection_that_wait_are_bounded() -> None:
    """Beyond half of the bytes that may wait a connection's next is refused; another connection's is not."""
    heavy = HeavyMessages(held=4 * len(BROKEN))
    flood = [asyncio.create_task(refused(heavy, "ipv4:192.0.2.1:1")) for _ in range(3)]  # one is read, two wait
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await heavy.parse(pb.CreateSessionRequest, BROKEN, "ipv4:192.0.2.1:1")
    assert (await heavy.parse(pb.CreateSessionRequest, HONEST, "ipv4:192.0.2.2:2")).data
    for task in flood:
        task.cancel()
    await asyncio.gather(*flood, return_exceptions=True)


async def test_what_was_read_refused_or_given_up_waits_no_longer() -> None:
    """Once the flood has passed, however it ended, as much may wait as before; one alone may be of any length."""
    heavy = HeavyMessages(held=2 * len(BROKEN))
    for _ in range(3):
        flood = [asyncio.create_task(refused(heavy, f"ipv4:192.0.2.{number}:1")) for number in range(2)]
        await asyncio.sleep(0)
        flood[1].cancel()
        await asyncio.gather(*flood, return_exceptions=True)
    small = HeavyMessages(held=1)
    assert (await small.parse(pb.CreateSessionRequest, HONEST, "ipv4:192.0.2.2:2")).data
