"""What every call has in common."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from sessiond.app import App
from sessiond.domain.call import Call, Caller
from sessiond.domain.errors import InvalidField
from sessiond.domain.policy import PRESETS, Policy
from sessiond.domain.values import NOBODY, Cause, CauseKind, ClientContext
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import story_of
from tests.support.server import AsyncStub

LOW = PRESETS["owasp-low"]
CALLER = Caller("shop")
CLIENT = ClientContext("192.0.2.10")


@pytest.mark.parametrize("client", [None, NOBODY, CLIENT])
def test_a_call_with_a_reason(app: App, client: ClientContext | None) -> None:
    """A call has its application's policy, its caller, its reason and its client, and knows whether it names one."""
    call = app.authority.call("default", CALLER, client, "lost phone")
    assert call == Call("default", LOW, CALLER, client or NOBODY, "lost phone", has_client_context=client is not None)
    assert call.cause == Cause(CauseKind.REQUEST, "shop", "lost phone")


def test_a_call_without_a_reason(app: App) -> None:
    """A call that names no reason is a cause without one."""
    assert app.authority.call("default", CALLER, CLIENT).cause == Cause(CauseKind.REQUEST, "shop", "")


async def test_the_reason_of_a_changed_policy(app: App, stub: AsyncStub) -> None:
    """A change of policy is recorded with what changed, cut to the 256 characters that a reason may have."""
    changes: dict[str, Any] = {
        field.name: value + 1
        for field in fields(Policy)
        if type(value := getattr(LOW, field.name)) is int and field.name != "remember_level"
    }
    told = await app.authority.change_policies({"default": replace(LOW, **changes)}, {})
    assert len(told["default"]) > 256
    (event,) = await story_of(stub)
    assert (event.type, event.application, event.cause.actor) == (pb.EVENT_TYPE_POLICY_CHANGED, "default", "authority")
    assert (event.cause.kind, event.cause.reason) == (pb.CAUSE_KIND_CONFIGURATION, told["default"][:256])


def test_a_call_for_an_application_that_does_not_exist(app: App) -> None:
    """An unknown application is refused with the names of those that are configured."""
    with pytest.raises(InvalidField, match=r'unknown application "shop" \(configured: default\)') as refused:
        app.authority.call("shop", CALLER, CLIENT)
    assert refused.value.field == "application"
