"""An outage costs a call nothing but its error, which always says why; a short one costs the callers nothing at all."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import pytest

from sessiond.app import App
from sessiond_client import Cancelled, Client, DeadlineExceeded, InternalError, SessiondError, Unavailable, calls
from sessiond_client.circuit import Circuit
from sessiond_client.flow import Flows, Send, Wait
from sessiond_client.rpc import Call
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.clients.calls_of import CALLS, ending_of
from tests.clients.either import CLIENTS, Either, Kind
from tests.clients.relay import Counting

REFUSED = Unavailable("failed to connect to all addresses; last error: Connection refused", status="UNAVAILABLE")
BROKEN = Unavailable("Socket closed", status="UNAVAILABLE")
ANSWER = pb.CreateSessionResponse(token="t")
LATE = DeadlineExceeded("Deadline Exceeded", status="DEADLINE_EXCEEDED")


@contextmanager
def refusing() -> Iterator[str]:
    """An address where nobody listens, and that nobody else takes."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{unused.getsockname()[1]}"


# Against a port that refuses


def test_a_loopback_address_that_refuses() -> None:
    """If [::1] refuses, which `localhost` may mean, the error names the other address; at 127.0.0.1 there is none."""
    with refusing() as address:
        port = address.rpartition(":")[2]
        with Client(f"[::1]:{port}", retries=0) as client, pytest.raises(Unavailable) as other:
            client.authority()
        with Client(address, retries=0) as client, pytest.raises(Unavailable) as own:
            client.authority()
    assert "if the authority listens at 127.0.0.1, use that address" in other.value.message
    assert "127.0.0.1, use" not in own.value.message


@pytest.mark.parametrize("timeout", [0.3, 5.0])
@pytest.mark.parametrize("retries", [0, 4])
@pytest.mark.parametrize("kind", CLIENTS)
async def test_the_cause_is_in_the_message(kind: Kind, retries: int, timeout: float) -> None:
    """However short the deadline and whatever the retries, the exception says that the connection was refused."""
    with refusing() as target:
        async with Either(kind, target, retries=retries, timeout=timeout) as client:
            error = await ending_of(client, CALLS["create"])
            again = await ending_of(client, CALLS["create"])
    for ended in (error, again):
        assert isinstance(ended, Unavailable)
        assert "Connection refused" in ended.message
        assert not ended.outcome_unknown


def test_a_deadline_before_the_first_connection_says_so() -> None:
    """A client whose calls never got through says that in its deadlines; one whose calls did does not."""
    made, clock = flows()
    early, *_ = carry_out(made, clock, calls.create(""), LATE)
    assert early.message == "Deadline Exceeded; no call of this client has reached the authority yet"
    carry_out(made, clock, calls.create(""), ANSWER)
    assert carry_out(made, clock, calls.create(""), LATE)[0].message == "Deadline Exceeded"


@pytest.mark.parametrize("kind", CLIENTS)
async def test_an_outage_costs_later_calls_nothing(kind: Kind) -> None:
    """Once a call was refused, a hundred more fail with the cause in less time than one call's retries take."""
    loop = asyncio.get_running_loop()
    with refusing() as target:
        async with Either(kind, target) as client:
            await ending_of(client, CALLS["create"])
            begun = loop.time()
            for _ in range(100):
                error = await ending_of(client, CALLS["validate"])
                assert isinstance(error, Unavailable)
                assert "Connection refused" in error.message
            assert loop.time() - begun < 1.5  # a call with its retries takes about two seconds


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_client_finds_an_authority_that_is_back(kind: Kind, app: App) -> None:
    """A call that outlasts the outage gets through, and so do all calls after it, without a new client."""
    relay = Counting(app.address)
    with refusing() as target:
        client = Either(kind, target, retries=100, timeout=60)
        call = asyncio.create_task(ending_of(client, CALLS["authority"]))
        while not client.client._flows.circuit.cause:  # noqa: ASYNC110 - nothing outside of the client can tell
            await asyncio.sleep(0)
    host, _, port = target.rpartition(":")
    async with await asyncio.start_server(relay._relay, host, int(port)), client, asyncio.timeout(60):
        assert (await call).version
        assert (await client.create()).token
    assert relay.calls == 2


# What is done after which error, without a connection


class Clock:
    """Stands still but for waits."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def flows(**settings: Any) -> tuple[Flows, Clock]:
    clock = Clock()
    made = Flows(
        **{"timeout": 5.0, "retries": 4, "safe_retries": True, **settings}, clock=clock, jitter=lambda _, most: most
    )
    return made, clock


def carry_out(made: Flows, clock: Clock, call: Call[Any], *replies: Any) -> tuple[Any, int, list[float]]:
    """What a call ends in if its attempts get these replies; how many there were, and the waits between them."""
    flow, sent, waits, answers = made.of(call), 0, list[float](), iter(replies)
    reply: Any = None
    try:
        while True:
            step = flow.send(reply)
            reply = None
            if isinstance(step, Wait):
                waits.append(round(step.seconds, 3))
                clock.now += step.seconds
            else:
                sent += 1
                reply = next(answers)
    except StopIteration as done:
        return done.value, sent, waits
    except SessiondError as error:
        return error, sent, waits


@pytest.mark.parametrize("error", [REFUSED, BROKEN, Cancelled("stopping", status="CANCELLED")])
def test_retries_take_two_seconds(error: SessiondError) -> None:
    """A call is repeated four times with growing pauses, about two seconds in all: a restart."""
    made, clock = flows()
    ending, sent, waits = carry_out(made, clock, calls.create(""), *[error] * 4, ANSWER)
    assert ending.token.reveal() == "t"
    assert (sent, waits) == (5, [0.12, 0.3, 0.75, 1.2])
    ending, sent, _ = carry_out(made, clock, calls.create(""), *[error] * 5)
    assert (ending, sent) == (error, 5)


@pytest.mark.parametrize("retries", [0, 1, 7])
def test_retries_are_as_many_as_were_asked_for(retries: int) -> None:
    """`retries=` sets how often a call is repeated; with 0 it is made once."""
    made, clock = flows(retries=retries, timeout=100)
    ending, sent, _ = carry_out(made, clock, calls.create(""), *[BROKEN] * 20)
    assert (ending, sent) == (BROKEN, retries + 1)


@pytest.mark.parametrize("error", [LATE, InternalError("no", status="INTERNAL")])
def test_other_errors_are_not_repeated(error: SessiondError) -> None:
    """Nothing else is repeated: the deadline is for all attempts together."""
    made, clock = flows()
    carry_out(made, clock, calls.create(""), ANSWER)
    assert carry_out(made, clock, calls.authority(""), error)[:2] == (error, 1)


def test_what_was_sent_without_an_id_is_not_repeated() -> None:
    """Without safe retries a change that may have arrived is made once; one that was never sent is repeated."""
    made, clock = flows(safe_retries=False)
    assert carry_out(made, clock, calls.create(""), BROKEN)[:2] == (BROKEN, 1)
    ending, sent, _ = carry_out(made, clock, calls.create(""), REFUSED, REFUSED, ANSWER)
    assert (ending.token.reveal(), sent) == ("t", 3)
    assert carry_out(made, clock, calls.authority(""), BROKEN, pb.GetAuthorityResponse())[1] == 2


def test_no_attempt_begins_after_the_deadline() -> None:
    """A pause that would outlast the deadline is not made: the call ends with the cause at once."""
    made, clock = flows(timeout=0.5)
    ending, sent, waits = carry_out(made, clock, calls.create(""), *[REFUSED] * 9)
    assert (ending, sent, waits) == (REFUSED, 3, [0.12, 0.3])
    assert clock.now <= 100.5


def test_each_attempt_has_the_time_that_is_left() -> None:
    """All attempts share the call's one deadline."""
    made, clock = flows(timeout=2.0)
    flow = made.of(calls.authority(""))
    first = next(flow)
    clock.now += 0.5
    pause = flow.send(BROKEN)
    assert isinstance(pause, Wait)
    clock.now += pause.seconds
    second = flow.send(None)
    assert isinstance(first, Send)
    assert isinstance(second, Send)
    assert (first.timeout, round(second.timeout, 3)) == (2.0, 1.38)


def test_a_deadline_names_the_cause_before_it() -> None:
    """If the last attempt runs out of time, the exception says what the attempt before ended in."""
    made, clock = flows()
    ending, *_ = carry_out(made, clock, calls.create(""), REFUSED, LATE)
    assert isinstance(ending, DeadlineExceeded)
    assert ending.message == f"Deadline Exceeded; before that: {REFUSED.message}"


def test_a_call_during_an_outage_is_not_sent() -> None:
    """After the first refusal other calls fail at once with the cause, though the first goes on."""
    made, clock = flows()
    first = made.of(calls.create(""))
    next(first)
    assert isinstance(first.send(REFUSED), Wait)
    ending, sent, waits = carry_out(made, clock, calls.create(""))
    assert isinstance(ending, Unavailable)
    assert (ending.message, sent, waits) == (REFUSED.message, 0, [])


@pytest.mark.parametrize("reply", [BROKEN, Unavailable("starting", status="UNAVAILABLE"), ANSWER])
def test_any_connection_ends_an_outage(reply: Any) -> None:
    """An authority that accepts a connection is there, even if it cannot answer yet: its own words are the cause."""
    made, clock = flows(retries=0)
    carry_out(made, clock, calls.create(""), REFUSED)
    clock.now += 1
    carry_out(made, clock, calls.create(""), reply)
    assert made.circuit.cause == ""


def test_a_deadline_does_not_end_an_outage() -> None:
    """A probe that runs out of time says nothing about the connection: the next call is a probe again."""
    made, clock = flows(retries=0)
    carry_out(made, clock, calls.create(""), REFUSED)
    clock.now += 1
    ending, sent, _ = carry_out(made, clock, calls.create(""), LATE)
    assert (type(ending), sent, made.circuit.cause) == (DeadlineExceeded, 1, REFUSED.message)
    assert carry_out(made, clock, calls.create(""), ANSWER)[1] == 1


def test_a_call_that_an_outage_surprised_waits_for_its_end() -> None:
    """A call that was under way when the outage began uses its retries, though another one found out first."""
    made, clock = flows()
    surprised = made.of(calls.create(""))
    next(surprised)
    made.circuit.refused(object(), REFUSED.message, clock.now)
    assert isinstance(surprised.send(BROKEN), Wait)


# The circuit


def test_a_closed_circuit_lets_everything_through() -> None:
    """As long as nobody was refused, every call is made."""
    circuit = Circuit()
    assert [circuit.admit(object(), now) for now in range(5)] == [""] * 5
    assert circuit.cause == ""


def test_one_probe_at_a_time() -> None:
    """While the circuit is open one call at a time gets through, after a pause; the others get the cause."""
    circuit, calls_made = Circuit(), count()
    circuit.refused(object(), "refused", 0.0)
    assert circuit.admit(next(calls_made), 0.05) == "refused"
    probe = object()
    assert circuit.admit(probe, 0.2) == ""
    assert [circuit.admit(next(calls_made), now) for now in (0.3, 1.0, 100.0)] == ["refused"] * 3
    circuit.refused(probe, "refused again", 100.0)
    assert circuit.admit(next(calls_made), 100.05) == "refused again"
    assert circuit.admit(next(calls_made), 100.2) == ""


def test_a_probe_that_gets_through_closes_the_circuit() -> None:
    """As soon as a call reaches the authority all calls are made again."""
    circuit, probe = Circuit(), object()
    circuit.refused(object(), "refused", 0.0)
    assert circuit.admit(probe, 1.0) == ""
    circuit.reached()
    assert [circuit.admit(object(), 1.0) for _ in range(3)] == [""] * 3


def test_a_probe_that_is_given_up_makes_room() -> None:
    """A probe whose caller has gone away, as by Ctrl-C, does not keep the next one out."""
    circuit, probe = Circuit(), object()
    circuit.refused(object(), "refused", 0.0)
    assert circuit.admit(probe, 1.0) == ""
    circuit.leave(object())
    assert circuit.admit(object(), 1.0) == "refused"
    circuit.leave(probe)
    assert circuit.admit(object(), 1.0) == ""


def test_a_flow_that_is_given_up_leaves_the_circuit() -> None:
    """A probe's flow that is closed half-way makes room for the next."""
    made, clock = flows()
    made.circuit.refused(object(), "refused", 0.0)
    probe = made.of(calls.authority(""))
    assert isinstance(next(probe), Send)
    assert made.circuit.admit(object(), clock.now) == "refused"
    probe.close()
    assert made.circuit.admit(object(), clock.now) == ""


@pytest.mark.parametrize("kind", CLIENTS)
async def test_many_calls_of_an_outage_make_one_probe(kind: Kind) -> None:
    """Fifty calls at once during an outage all fail with the cause; they do not all connect."""
    with refusing() as target:
        async with Either(kind, target, retries=0) as client:
            await ending_of(client, CALLS["create"])
            endings = await asyncio.gather(*(ending_of(client, CALLS["validate"]) for _ in range(50)))
    assert {type(error) for error in endings} == {Unavailable}
    assert all("Connection refused" in error.message for error in endings)
