"""Callers: who calls, and what of that may be seen."""

from __future__ import annotations

import pytest

from sessiond.access.callers import Callers
from sessiond.domain.call import Call, Caller
from sessiond.domain.policy import PRESETS
from sessiond.domain.values import NOBODY, Cause, CauseKind
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import create, story_of
from tests.support.server import AsyncStub

METADATA = (("authorization", "Bearer s3cret"), ("trace-bin", b"\0\1"))


@pytest.mark.parametrize("peer", ["ipv4:192.0.2.1:5000", "unix:/run/app.sock", ""])
def test_everybody_is_the_same_caller(peer: str) -> None:
    """Whoever calls is identified as one caller, with the peer and the metadata of this call."""
    caller = Callers().identify(peer, METADATA)
    assert (caller.name, caller.peer, caller.metadata) == ("caller", peer, METADATA)


def test_a_call_without_metadata() -> None:
    """A transport that gives no metadata is a call with none."""
    assert Callers().identify("", None).metadata == ()


def test_credentials_do_not_show() -> None:
    """Metadata may hold credentials: they are in no repr, neither of the caller nor of its call."""
    caller = Callers().identify("ipv4:192.0.2.1:5000", METADATA)
    call = Call("default", PRESETS["owasp-low"], caller, NOBODY)
    assert "caller" in repr(call)
    assert "s3cret" not in repr(caller) + repr(call)


@pytest.mark.parametrize("name", ["shop", "spiffe://example.org/shop"])
def test_the_caller_is_the_actor(name: str) -> None:
    """What a call does is caused by its caller, for the reason that it gave."""
    call = Call("default", PRESETS["owasp-low"], Caller(name), NOBODY, "logout")
    assert call.cause == Cause(CauseKind.REQUEST, name, "logout")


async def test_events_name_the_caller(stub: AsyncStub) -> None:
    """An event that a call caused bears the caller's name as its actor."""
    mine = await create(stub)
    (event,) = await story_of(stub, mine.token)
    assert (event.cause.actor, event.cause.kind) == ("caller", pb.CAUSE_KIND_REQUEST)
