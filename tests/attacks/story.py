"""What the stories share: an authority under a policy, its clients, and what the event stream told."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from sessiond.app import App
from sessiond.domain.policy import PRESETS, Policy
from sessiond.domain.signals import Reaction, SignalType
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.support.canary import Canary
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub, config_for, serving, stub_for
from tests.support.streams import position, read, subscribe
from tests.support.validation_streams import batches

__all__ = [
    "ATTACKER",
    "HOUR",
    "MINUTE",
    "SECOND",
    "VICTIM",
    "authority",
    "create",
    "fresh_id",
    "hijacks",
    "kinds",
    "login",
    "loose",
    "millis",
    "policy",
    "roll",
    "signal_types",
    "story_of",
    "unmet_kinds",
    "validate",
]

on_stream = False
"""Whether `validate` asks on a stream of validations; `conftest.py` sets it."""
loose: Any = pb  # lets a message within a message be written as a dict
SECOND, MINUTE, HOUR = 1_000, 60_000, 3_600_000

VICTIM = pb.ClientContext(
    ip_address="192.0.2.10",
    user_agent="Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:128.0) Gecko/20100101 Firefox/128.0",
)
ATTACKER = pb.ClientContext(
    ip_address="203.0.113.66",
    user_agent="Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
)


def policy(preset: str = "owasp-low", reactions: Mapping[SignalType, Reaction] | None = None, **changes: Any) -> Policy:
    """A preset with changes; `reactions` differ from the preset's where they are named."""
    base = PRESETS[preset]
    return replace(base, reactions={**base.reactions, **(reactions or {})}, **changes)


@asynccontextmanager
async def authority(
    folder: Path,
    clock: ManualClock | None = None,
    rules: Policy | None = None,
    extra: Mapping[str, Policy] | None = None,
    **config: Any,
) -> AsyncIterator[tuple[App, AsyncStub]]:
    """An authority with the application `default` under these rules, `extra` ones beside it, and a client of it."""
    settings = config_for(folder, policies={"default": rules or policy(), **(extra or {})}, **config)
    async with serving(settings, clock or ManualClock()) as app, stub_for(app.address) as stub:
        yield app, stub


# Steps


async def create(
    stub: AsyncStub, subject: str = "ada", client: pb.ClientContext = VICTIM, **fields: Any
) -> pb.CreateSessionResponse:
    """Open a session."""
    answer: pb.CreateSessionResponse = await stub.CreateSession(
        loose.CreateSessionRequest(subject=subject, client=client, **fields)
    )
    return answer


async def login(
    stub: AsyncStub, token: str, subject: str = "ada", client: pb.ClientContext = VICTIM, **fields: Any
) -> pb.AuthenticateSessionResponse:
    """Authenticate the subject on a session."""
    answer: pb.AuthenticateSessionResponse = await stub.AuthenticateSession(
        loose.AuthenticateSessionRequest(token=token, subject=subject, client=client, **fields)
    )
    return answer


async def roll(stub: AsyncStub, token: str, client: pb.ClientContext = VICTIM) -> pb.RollSessionResponse:
    """Roll at a privilege change."""
    answer = await stub.RollSession(pb.RollSessionRequest(token=token, client=client, reason="password"))
    assert answer.verdict == pb.VERDICT_VALID
    return answer


async def validate(
    stub: AsyncStub, token: str, client: pb.ClientContext = VICTIM, **fields: Any
) -> pb.ValidateSessionResponse:
    """Validate a token, by the route that the test is run with."""
    request = loose.ValidateSessionRequest(token=token, client=client, **fields)
    if not on_stream:
        return await stub.ValidateSession(request)
    async with batches(stub) as stream:
        answer: pb.ValidateSessionResponse = (await stream.ask(1, request))[0]
    assert isinstance(answer, pb.ValidateSessionResponse), answer
    return answer


def fresh_id() -> str:
    """A request id."""
    return str(uuid.uuid4())


# What is told


async def story_of(stub: AsyncStub, *tokens: str) -> list[pb.Event]:
    """The whole event stream up to now; none of the given secrets is in it."""
    head = (await stub.GetAuthority(pb.GetAuthorityRequest())).revision
    stream = subscribe(stub)
    items = [await read(stream)]
    while position(items[-1]) < head:
        items.append(await read(stream))
    stream.cancel()
    events = [item.event for item in items if item.HasField("event")]
    assert [event.revision for event in events] == list(range(1, head + 1))
    canary = Canary()
    for token in tokens:
        canary.know_token(token)
    assert not canary.found_in("an event", *(part for e in events for part in (e.SerializeToString(), str(e))))
    return events


def kinds(events: Iterable[pb.Event]) -> list[str]:
    """The kinds of the events, in their order."""
    return [pb.EventType.Name(event.type).removeprefix("EVENT_TYPE_") for event in events]


def hijacks(events: Iterable[pb.Event]) -> list[pb.Event]:
    """The alarms among the events."""
    return [event for event in events if event.type == pb.EVENT_TYPE_HIJACK_SUSPECTED]


def signal_types(message: pb.Event | pb.ValidateSessionResponse) -> list[str]:
    """The kinds of the signals."""
    return [pb.SignalType.Name(signal.type).removeprefix("SIGNAL_TYPE_") for signal in message.signals]


def unmet_kinds(answer: pb.ValidateSessionResponse) -> list[str]:
    """The kinds of the requirements that are not met."""
    return [pb.RequirementKind.Name(one.kind).removeprefix("REQUIREMENT_KIND_") for one in answer.unmet]


def millis(field: Timestamp) -> int:
    """A point of time in milliseconds."""
    return field.seconds * 1000 + field.nanos // 1_000_000
