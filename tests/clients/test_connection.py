"""How a client reaches its authority: which calls may be repeated, with which id, and what a client shows of itself."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from sessiond_client import AsyncClient, Client, ClientOptions, Grant, Role, Token, calls
from sessiond_client.connection import channel_options
from sessiond_client.flow import Flows, Send
from sessiond_client.rpc import Call
from sessiond_client.settings import Settings
from sessiond_stubs.v1 import session_authority_pb2 as pb

NOBODY = "127.0.0.1:1"
SERVICE = pb.DESCRIPTOR.services_by_name["SessionAuthority"]
STREAMS = {"StreamValidations", "Subscribe", "Follow", "StreamBackup"}

CHANGING: dict[str, Callable[..., Call[Any]]] = {
    "CreateSession": calls.create,
    "AuthenticateSession": lambda application, **more: calls.authenticate(application, "any", "ada", **more),
    "RollSession": lambda application, **more: calls.roll(application, "any", **more),
    "RefreshSession": lambda application, **more: calls.refresh(application, "any", **more),
    "RevokeSession": lambda application, **more: calls.revoke(application, token="any", **more),
    "RevokeSessions": lambda application, **more: calls.revoke_all(application, subject="ada", **more),
    "UpdateSessionData": lambda application, **more: calls.update_data(application, token="any", **more),
    "ReportSignal": lambda application, **more: calls.report_signal(application, token="any", **more),
    "ClearSourceLock": lambda application, **more: calls.clear_source_lock(application, "192.0.2.1/32", **more),
    "CreateCaller": lambda application, **more: calls.create_caller(
        application, "ops", [Grant(role=Role.ADMIN)], **more
    ),
    "RotateCaller": lambda application, **more: calls.rotate_caller(application, "ops", **more),
    "RevokeCaller": lambda application, **more: calls.revoke_caller(application, "ops", **more),
    "UpdateCallerCertificates": lambda application, **more: calls.update_caller_certificates(
        application, "ops", add=["ops.example"], **more
    ),
    "AddSealingKey": calls.add_sealing_key,
    "PromoteSealingKey": lambda application, **more: calls.promote_sealing_key(application, "5aedb482", **more),
    "RetireSealingKey": lambda application, **more: calls.retire_sealing_key(application, "5aedb482", **more),
}
READING: list[Call[Any]] = [
    calls.validate("shop", "any"),
    calls.validate_many("shop", ["any"]),
    calls.get("shop", token="any"),
    calls.get_data("shop", token="any"),
    calls.list_sessions("shop"),
    calls.activity("shop", "ada"),
    calls.issue_companion_token("shop", "any", "pay"),
    calls.list_source_locks("shop"),
    calls.list_callers("shop"),
    calls.key_ring("shop"),
    calls.authority("shop"),
]


# Each call describes itself


def test_every_call_of_the_contract_is_described_once() -> None:
    """The descriptions are of the contract's unary calls, each of them, once."""
    assert sorted(rpc.name for rpc in calls.RPCS) == sorted({*SERVICE.methods_by_name} - STREAMS)


def test_a_change_is_what_has_an_id_in_the_contract() -> None:
    """A call is described as a change exactly if the contract gives its request a `request_id`."""
    with_id = {
        name for name, method in SERVICE.methods_by_name.items() if "request_id" in method.input_type.fields_by_name
    }
    assert {rpc.name for rpc in calls.RPCS if rpc.changes} == with_id == set(CHANGING)


def test_each_call_is_made_with_its_own_description() -> None:
    """A call's request and answer are those that the contract has for the RPC that it names."""
    made = [*READING, *(change("shop") for change in CHANGING.values())]
    assert {call.rpc for call in made} == set(calls.RPCS)
    for call in made:
        assert SERVICE.methods_by_name[call.rpc.name].input_type == call.request.DESCRIPTOR
    assert {name: change("shop").rpc.name for name, change in CHANGING.items()} == {name: name for name in CHANGING}


def test_only_what_changes_nothing_twice_is_repeatable_without_an_id() -> None:
    """Without an id what reads may be repeated, and `revoke`, since a session that has ended stays ended."""
    repeatable = {rpc.name for rpc in calls.RPCS if rpc.repeatable}
    assert repeatable == {call.rpc.name for call in READING} | {"RevokeSession"}


# Ids


def identified(call: Call[Any], *, safe_retries: bool = True) -> Any:
    """The request of a call as a client sends it."""
    Flows(timeout=5.0, retries=4, safe_retries=safe_retries).add_request_id(call)
    return call.request


@pytest.mark.parametrize("change", CHANGING.values(), ids=CHANGING)
def test_a_change_carries_an_id(change: Any) -> None:
    """Each changing call has an id of its own, a UUIDv4; the caller's own stays, and shows nowhere."""
    ids = {identified(change("shop")).request_id for _ in range(3)}
    assert len(ids) == 3
    assert {(uuid.UUID(text).version, str(uuid.UUID(text)) == text) for text in ids} == {(4, True)}
    own = change("shop", request_id=Token("canary"))
    assert identified(own).request_id == "canary"
    assert "canary" not in repr(own)
    assert identified(change("shop"), safe_retries=False).request_id == ""
    assert identified(change("shop", request_id="own"), safe_retries=False).request_id == "own"


@pytest.mark.parametrize("safe_retries", [True, False])
def test_an_end_that_opens_always_has_an_id(safe_retries: bool) -> None:
    """`revoke` is repeated even without safe retries; if it opens a session, it has an id so as not to open two."""
    for call in (
        calls.revoke("shop", token="any", open_anonymous=True),
        calls.revoke("shop", session_id="s", open_anonymous=True),
    ):
        assert uuid.UUID(identified(call, safe_retries=safe_retries).request_id).version == 4
    own = calls.revoke("shop", token="any", open_anonymous=True, request_id="own")
    assert identified(own, safe_retries=safe_retries).request_id == "own"
    plain = calls.revoke("shop", session_id="s")
    assert bool(identified(plain, safe_retries=safe_retries).request_id) is safe_retries


@pytest.mark.parametrize("call", READING, ids=lambda call: call.rpc.name)
def test_a_call_that_reads_needs_no_id(call: Call[Any]) -> None:
    """A call that changes nothing is sent as it is."""
    before = call.request.SerializeToString(deterministic=True)
    assert identified(call).SerializeToString(deterministic=True) == before


# What a client is


@pytest.mark.parametrize("kind", [AsyncClient, Client])
def test_a_client_tells_where_it_points(kind: type[AsyncClient] | type[Client]) -> None:
    """A client's target and application are those that it was made with; without an application it is empty."""
    client = kind(NOBODY, application="shop")
    assert (client.target, client.application) == (NOBODY, "shop")
    assert (kind("unix:/run/s.sock").target, kind(NOBODY).application) == ("unix:/run/s.sock", "")


def test_a_clients_own_channel_options_override_ours() -> None:
    """An option that the caller sets takes the place of ours; the others stay, and each option is there once."""
    settings = Settings(
        target=NOBODY, channel_options=[("grpc.keepalive_time_ms", 1), ("grpc.primary_user_agent", "a")]
    )
    options = channel_options(settings)
    assert ("grpc.keepalive_time_ms", 1) in options
    assert ("grpc.primary_user_agent", "a") in options
    assert ("grpc.enable_http_proxy", 0) in options
    assert len({name for name, _ in options}) == len(options)


def test_options_are_the_settings() -> None:
    """Every setting but the target can be given to a client, and is described in `ClientOptions`."""
    fields = {field.name for field in dataclasses.fields(Settings)}
    assert fields == set(ClientOptions.__annotations__) | {"target"}


def test_a_calls_deadline_comes_before_the_clients() -> None:
    """A call's own timeout counts if it has one, 0 too; otherwise it is the client's."""
    flows = Flows(timeout=2.0, retries=0, safe_retries=True, clock=lambda: 100.0)
    sent = [next(flows.of(calls.authority("", timeout=timeout))) for timeout in (None, 0.5, 0.0)]
    assert [step.timeout for step in sent if isinstance(step, Send)] == [2.0, 0.5, 0.0]
