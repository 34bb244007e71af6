"""Heavy messages: their sender has to wait, and other connections do not wait for that sender's pause."""

from __future__ import annotations

import asyncio

import pytest

from sessiond.domain.errors import InvalidField, Overloaded
from sessiond.rpc.heavy import HEAVY_BYTES, HeavyMessages
from sessiond_stubs.v1 import session_authority_pb2 as pb

BROKEN = b"\xa0\x06\x00" * 300_000 + b"\xff"
HONEST = pb.CreateSessionRequest(data={"blob": bytes(2 * HEAVY_BYTES)}).SerializeToString()


async def refused(heavy: HeavyMessages, peer: str) -> None:
    """Send one malformed message."""
    with pytest.raises(InvalidField):
        await heavy.parse(pb.CreateSessionRequest, BROKEN, peer)


async def test_an_honest_message_overtakes_the_rests_of_others() -> None:
    """When another connection's valid message has been parsed, most of ten malformed ones still wait."""
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
    """The same message on the connection of the flood is parsed last."""
    heavy, order = HeavyMessages(), []
    flood = [asyncio.create_task(refused(heavy, "unix:")) for _ in range(3)]
    await asyncio.sleep(0)
    await heavy.parse(pb.CreateSessionRequest, HONEST, "unix:")
    order += [task.done() for task in flood]
    assert order == [True, True, True]


async def test_a_connection_that_is_gone_is_forgotten() -> None:
    """The memory for connections does not grow with the number of past connections."""
    heavy = HeavyMessages()
    for number in range(200):
        await heavy.parse(pb.CreateSessionRequest, HONEST, f"ipv4:192.0.2.1:{number}")
    assert len(heavy._senders) <= 1


async def test_who_hangs_up_gives_back_its_turn() -> None:
    """A caller that is cancelled while it pauses or waits does not block the next one."""
    heavy = HeavyMessages()
    tasks = [asyncio.create_task(refused(heavy, f"ipv4:192.0.2.1:{number % 2}")) for number in range(6)]
    await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (await heavy.parse(pb.CreateSessionRequest, HONEST, "ipv4:192.0.2.1:0")).data


async def test_the_messages_of_one_connection_that_wait_are_bounded() -> None:
    """A connection with half of the bytes that may wait is refused its next message; another connection's is parsed."""
    heavy = HeavyMessages(max_waiting_bytes=4 * len(BROKEN))
    flood = [asyncio.create_task(refused(heavy, "ipv4:192.0.2.1:1")) for _ in range(3)]  # one is read, two wait
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await heavy.parse(pb.CreateSessionRequest, BROKEN, "ipv4:192.0.2.1:1")
    assert (await heavy.parse(pb.CreateSessionRequest, HONEST, "ipv4:192.0.2.2:2")).data
    for task in flood:
        task.cancel()
    await asyncio.gather(*flood, return_exceptions=True)


async def test_what_was_read_refused_or_given_up_waits_no_longer() -> None:
    """After a flood has ended in any way, as many bytes may wait as before; a single message may have any length."""
    heavy = HeavyMessages(max_waiting_bytes=2 * len(BROKEN))
    for _ in range(3):
        flood = [asyncio.create_task(refused(heavy, f"ipv4:192.0.2.{number}:1")) for number in range(2)]
        await asyncio.sleep(0)
        flood[1].cancel()
        await asyncio.gather(*flood, return_exceptions=True)
    small = HeavyMessages(max_waiting_bytes=1)
    assert (await small.parse(pb.CreateSessionRequest, HONEST, "ipv4:192.0.2.2:2")).data


async def test_a_pause_outlasts_its_caller() -> None:
    """A broken message is refused at once; its connection's next still waits, and another's is parsed meanwhile."""
    heavy = HeavyMessages()
    await refused(heavy, "ipv4:192.0.2.1:1")
    again = asyncio.create_task(refused(heavy, "ipv4:192.0.2.1:1"))
    await asyncio.sleep(0)
    again.cancel()
    await asyncio.gather(again, return_exceptions=True)
    third = asyncio.create_task(refused(heavy, "ipv4:192.0.2.1:1"))
    assert (await heavy.parse(pb.CreateSessionRequest, HONEST, "ipv4:192.0.2.2:2")).data
    assert not third.done()
    await third
