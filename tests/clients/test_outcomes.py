"""After a failed change you know whether it may have happened, and have the id to repeat it with."""

from __future__ import annotations

import asyncio
import copy
import pickle
import socket
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest

import sessiond_client
from sessiond.app import App
from sessiond_client import (
    WITHHELD,
    ConcurrencyLimit,
    ConcurrencyLimitReached,
    Conflict,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    NotJson,
    SessiondError,
    Token,
    Unavailable,
    Violation,
    calls,
    errors,
)
from sessiond_client.flow import Flows, Send, Wait
from sessiond_client.rpc import Call
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.clients.calls_of import CALLS, REQUEST_ID, TOKEN, ending_of
from tests.clients.either import CLIENTS, Either, Kind
from tests.clients.relay import Holding, Losing

CHANGES = [
    *("create", "authenticate", "roll", "refresh", "revoke", "revoke_all", "update_data", "report_signal"),
    *("clear_source_lock", "create_caller", "rotate_caller", "revoke_caller"),
    *("update_caller_certificates", "add_sealing_key", "promote_sealing_key", "retire_sealing_key"),
]


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("kind", CLIENTS)
async def test_an_answer_that_does_not_come_leaves_the_outcome_unknown(kind: Kind, name: str, app: App) -> None:
    """A change that ran out of time may have happened, and its exception has its id; a reading call has neither."""
    relay = Holding(app.address)
    async with relay.running() as target, Either(kind, target, timeout=0.2) as client:
        error = await ending_of(client, CALLS[name])
    assert isinstance(error, DeadlineExceeded)
    assert error.outcome_unknown is (name in CHANGES)
    assert error.request_id == (Token(REQUEST_ID) if name in CHANGES else None)


@pytest.mark.parametrize("kind", CLIENTS)
async def test_what_was_refused_did_not_happen(kind: Kind) -> None:
    """A change that found no connection has not happened, and the exception has its id all the same."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with Either(kind, f"127.0.0.1:{unused.getsockname()[1]}", retries=0) as client:
            for name in CHANGES:
                error = await ending_of(client, CALLS[name])
                assert isinstance(error, Unavailable)
                assert (error.outcome_unknown, error.request_id) == (False, Token(REQUEST_ID))


async def test_what_the_authority_refuses_did_not_happen(client: Either) -> None:
    """An error of the authority's judgement means that nothing has changed."""
    created = await client.create(subject="ada")
    for call, kind in (
        (lambda client: client.update_data(token=created.token, set={"a": b""}, expected_version=9), Conflict),
        (lambda client: client.revoke(session_id=str(uuid.uuid4())), NotFound),
        (lambda client: client.create(subject="x" * 300), InvalidArgument),
    ):
        error = await ending_of(client, call)
        assert type(error) is kind
        assert not error.outcome_unknown
        assert isinstance(error.request_id, Token)


@pytest.mark.parametrize("kind", CLIENTS)
async def test_the_id_of_a_lost_call_finds_its_answer(kind: Kind, app: App) -> None:
    """With the id that the client made, a repeated call returns the session that the lost answer was about."""
    relay = Losing(app.address)
    async with relay.running() as target, Either(kind, target, retries=0) as client:
        lost = await ending_of(client, lambda client: client.create(subject="ada"))
        assert isinstance(lost, Unavailable)
        assert lost.outcome_unknown
        assert lost.request_id is not None
        assert uuid.UUID(lost.request_id.reveal()).version == 4
        assert lost.request_id.reveal() not in f"{lost} {lost!r} {vars(lost)}"
        again = None
        while again is None:  # gRPC may send a call on the broken connection before it notices
            with suppress(Unavailable):
                again = await client.create(subject="ada", request_id=lost.request_id)
        assert [again.session.session_id] == [session.session_id for session in await client.all("list")]


@pytest.mark.parametrize("kind", CLIENTS)
async def test_without_safe_retries_there_is_no_id(kind: Kind, app: App) -> None:
    """A call that was sent without an id has none to repeat it with."""
    relay = Losing(app.address)
    async with relay.running() as target, Either(kind, target, safe_retries=False) as client:
        lost = await ending_of(client, lambda client: client.create(subject="ada"))
    assert isinstance(lost, Unavailable)
    assert (lost.outcome_unknown, lost.request_id) == (True, None)


def replied(call: Call[Any], *replies: Any, clock: Any = lambda: 0.0) -> tuple[Any, list[str]]:
    """What a call ends in with these replies, and which RPCs were sent."""
    flow, answers, sent = Flows(5.0, 4, safe_retries=True, clock=clock).of(call), iter(replies), list[str]()
    reply: Any = None
    try:
        while True:
            step = flow.send(reply)
            reply = None
            if isinstance(step, Send):
                sent.append(step.name)
                reply = next(answers)
            assert isinstance(step, (Send, Wait))
    except StopIteration as done:
        return done.value, sent
    except SessiondError as error:
        return error, sent


def of_status(status: str, message: str = "no") -> SessiondError:
    return errors._BY_STATUS[status](message, status=status)


@pytest.mark.parametrize("status", errors._BY_STATUS)
def test_each_status_says_whether_it_may_have_happened(status: str) -> None:
    """The contract's refusals come before a change; what the transport or a fault says may come after it."""
    unknown = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "INTERNAL", "UNKNOWN", "DATA_LOSS"}
    error, _ = replied(calls.create(""), *[of_status(status)] * 5)
    assert error.outcome_unknown is (status in unknown)
    error, _ = replied(calls.authority(""), *[of_status(status)] * 5)
    assert error.outcome_unknown is False


def test_an_earlier_attempt_counts() -> None:
    """If the first attempt may have arrived, the outcome is unknown though the last one was refused."""
    refused = of_status("UNAVAILABLE", "failed to connect to all addresses; last error: refused")
    error, _ = replied(calls.create(""), of_status("UNAVAILABLE", "Socket closed"), *[refused] * 4)
    assert error.outcome_unknown
    error, _ = replied(calls.create(""), of_status("UNAVAILABLE", "Socket closed"), of_status("NOT_FOUND"))
    assert not error.outcome_unknown  # with an id, the answer says that it did not happen before either


def test_an_answer_that_is_too_long_was_given() -> None:
    """An answer over our own bound of a message's size comes after the change."""
    long = of_status("RESOURCE_EXHAUSTED", "CLIENT: Received message larger than max (5 vs. 4)")
    assert replied(calls.create(""), long)[0].outcome_unknown


# Rounds of revoke_all


LATE = ("DEADLINE_EXCEEDED", "Deadline Exceeded")


def test_revoke_all_goes_on_until_it_is_done() -> None:
    """While the log advances the call is repeated with the same id; the callback hears of each round but the last."""
    rounds: list[int] = []
    call = calls.revoke_all("", subject="ada", progress=rounds.append)
    position = [pb.GetAuthorityResponse(revision=revision) for revision in (1_000, 2_000)]
    answer, sent = replied(
        call, of_status(*LATE), position[0], of_status(*LATE), position[1], pb.RevokeSessionsResponse(revoked_count=7)
    )
    assert answer.revoked_count == 7
    assert sent == ["RevokeSessions", "GetAuthority"] * 2 + ["RevokeSessions"]
    assert rounds == [1, 2]


def test_revoke_all_ends_if_nothing_advances() -> None:
    """If a whole round passes without any event, the call raises its DeadlineExceeded, and does not go on for ever."""
    position = pb.GetAuthorityResponse(revision=1_000)
    error, sent = replied(calls.revoke_all("", subject="ada"), of_status(*LATE), position, of_status(*LATE), position)
    assert isinstance(error, DeadlineExceeded)
    assert error.outcome_unknown
    assert sent == ["RevokeSessions", "GetAuthority"] * 2


def test_revoke_all_ends_if_the_authority_is_gone() -> None:
    """If nobody says where the log is, the call raises its DeadlineExceeded."""
    error, _ = replied(calls.revoke_all("", subject="ada"), of_status(*LATE), of_status("PERMISSION_DENIED"))
    assert isinstance(error, DeadlineExceeded)
    assert isinstance(error.request_id, Token)


@pytest.mark.parametrize("kind", CLIENTS)
async def test_many_sessions_end_within_short_deadlines(kind: Kind, app: App) -> None:
    """More sessions than fit into one deadline all end in one call; an exception of the callback ends it."""
    rounds: list[int] = []
    async with Either(kind, app.address) as client:
        await asyncio.gather(*(client.create(subject="ada") for _ in range(400)))
        ended = await client.revoke_all(subject="ada", timeout=0.2, progress=rounds.append)
        assert await client.all("list", subject="ada", at_least=ended.consistency_token) == []
    assert rounds == list(range(1, len(rounds) + 1))


# Copies and pickles


def exceptions() -> list[SessiondError]:
    """One of each exception of the package, with everything that it can hold."""
    found: list[SessiondError] = []
    for name in sessiond_client.__all__:
        kind = getattr(sessiond_client, name)
        if isinstance(kind, type) and issubclass(kind, SessiondError):
            if kind is InvalidArgument:
                error: SessiondError = InvalidArgument("no", violations=(Violation("subject", "is too long"),))
            elif kind is ConcurrencyLimitReached:
                until = datetime(2026, 1, 1, tzinfo=UTC)
                error = ConcurrencyLimitReached(
                    ConcurrencyLimit(max_sessions=3, live_sessions=(), ticket=Token(TOKEN), ticket_expire_time=until)
                )
            else:
                error = kind("no", status="UNAVAILABLE", outcome_unknown=True)
            error.request_id = Token(REQUEST_ID)
            error.add_note("a note")
            found.append(error)
    return found


EXCEPTIONS = exceptions()


@pytest.mark.parametrize("error", EXCEPTIONS, ids=lambda error: type(error).__name__)
def test_every_exception_can_be_copied(error: SessiondError) -> None:
    """A copy is the same exception with everything that it holds, tokens included."""
    for other in (copy.copy(error), copy.deepcopy(error), copy.deepcopy([error])[0]):
        assert other is not error
        assert (type(other), str(other), vars(other)) == (type(error), str(error), vars(error))
        assert other.request_id == Token(REQUEST_ID)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("error", EXCEPTIONS, ids=lambda error: type(error).__name__)
def test_every_exception_can_be_pickled_without_its_secrets(error: SessiondError, protocol: int) -> None:
    """A pickle has no token: WITHHELD stands in its place, and everything else is as it was."""
    pickled = pickle.dumps(error, protocol)
    assert not any(secret.encode() in pickled for secret in (TOKEN, REQUEST_ID))
    other = pickle.loads(pickled)
    assert (type(other), str(other), other.status) == (type(error), str(error), error.status)
    assert other.outcome_unknown is error.outcome_unknown
    assert other.__notes__ == ["a note"]
    assert other.request_id == WITHHELD
    if isinstance(error, InvalidArgument):
        assert other.violations == error.violations
    if isinstance(error, ConcurrencyLimitReached):
        assert other.limit.ticket == WITHHELD
        assert (other.limit.max_sessions, other.limit.ticket_expire_time) == (3, error.limit.ticket_expire_time)


def test_data_that_is_not_json_can_be_copied_and_pickled() -> None:
    """`NotJson` too survives a pickle and a copy."""
    error = NotJson("cart", "is not JSON")
    for other in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert (str(other), other.key) == (str(error), "cart")


async def test_what_stands_for_a_token_is_good_for_nothing(client: Either) -> None:
    """WITHHELD is no token and no id of any authority."""
    assert not (await client.validate(WITHHELD)).valid
    error = await ending_of(client, lambda client: client.create(request_id=WITHHELD))
    assert isinstance(error, InvalidArgument)
    assert [violation.field for violation in error.violations] == ["request_id"]
