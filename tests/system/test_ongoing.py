"""Ids of calls: which are taken over, and who sees which."""

from __future__ import annotations

import asyncio
from contextvars import copy_context

import pytest

from sessiond.domain.errors import Unavailable
from sessiond.rpc.status import status_of
from sessiond.system.ongoing import (
    CALL_ID,
    OngoingCall,
    begin_call,
    call_id,
    new_call_id,
    note,
    outside_calls,
    sent_call_id,
    step,
    this_call,
)

UUID = "2b0f2c4e-0f1e-4d5c-9a2a-6f1f0f5f9a11"


@pytest.mark.parametrize("text", ["a", UUID, "0" * 32, "Root:1.67891233-abcdef01_2345", "a" * 39, ("a" * 31 + ".") * 2])
def test_ids_that_are_taken_over(text: str) -> None:
    """An id of 1 to 64 letters, digits, `-`, `_`, `.` and `:` is the id of the call."""
    assert sent_call_id([text]) == text


@pytest.mark.parametrize(
    "values",
    [
        [],
        [""],
        ["a b"],
        ["a\nb"],
        ["ä"],
        ["a/b"],
        ['{"a":1}'],
        [b"bytes"],
        [UUID, UUID],
        ["a." * 33],
        ["a" * 40],  # could be a token
        [f"x.{'a' * 43}"],
    ],
)
def test_ids_that_are_replaced(values: list[str | bytes]) -> None:
    """What is longer, could control a terminal, could be a token, or is there twice, is not the id of a call."""
    assert sent_call_id(values) == ""


def test_an_id_is_made_once() -> None:
    """A call keeps the id that it has, whoever asks for it, and each further failure in it gets a number."""
    call = OngoingCall()
    assert not call.is_named
    first = call.id
    call.adopt("another")
    assert (call.id, call.is_named) == (first, False)
    assert [call.failure_id() for _ in range(3)] == [first, f"{first}.2", f"{first}.3"]
    assert len({new_call_id() for _ in range(1_000)}) == 1_000


def test_outside_of_calls() -> None:
    """Outside of calls there is no id, and notes for a trace go nowhere."""

    def outside() -> None:
        assert call_id() == ""
        note(application="shop")
        with step("commit"):
            assert call_id() == ""

    copy_context().run(outside)


async def test_tasks_of_a_call() -> None:
    """A task that a call creates belongs to it; one call does not see the other's id."""

    async def child() -> str:
        return call_id()

    async def call(sent: str) -> tuple[str, str, str]:
        begun = this_call([("other", "x"), (CALL_ID, sent)])
        await asyncio.sleep(0)
        return begun.id, await asyncio.create_task(child()), this_call().id

    found = await asyncio.gather(*(asyncio.create_task(call(f"call-{number}")) for number in range(3)))
    assert found == [(f"call-{number}",) * 3 for number in range(3)]


def test_an_error_outside_of_calls() -> None:
    """An error that is made outside of a call has an id, and what comes later does not belong to it."""

    def outside() -> tuple[str, str]:
        return status_of(Unavailable("later")).details, call_id()

    assert copy_context().run(outside) == ("later", "")


async def test_what_a_call_schedules_for_later() -> None:
    """What runs at the end of a minute is about many calls, so it has not the id of the call that scheduled it."""
    seen: asyncio.Queue[str] = asyncio.Queue()
    begin_call(OngoingCall("call-1"))
    outside_calls(asyncio.get_running_loop().call_later)(0, lambda: seen.put_nowait(call_id()))
    asyncio.get_running_loop().call_later(0, lambda: seen.put_nowait(call_id()))
    assert sorted([await seen.get(), await seen.get()]) == ["", "call-1"]
