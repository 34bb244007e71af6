"""What every call has in common."""

from __future__ import annotations

import pytest

from sessiond.app import App
from sessiond.domain.call import Call, Caller
from sessiond.domain.errors import InvalidField
from sessiond.domain.policy import PRESETS
from sessiond.domain.values import NOBODY, Cause, CauseKind, ClientContext

CALLER = Caller("shop")
CLIENT = ClientContext("192.0.2.10")


@pytest.mark.parametrize("client", [None, NOBODY, CLIENT])
def test_a_call_with_a_reason(app: App, client: ClientContext | None) -> None:
    """A call has its application's policy, its caller, its reason and its client, and knows whether it names one."""
    call = app.authority.call("default", CALLER, client, "lost phone")
    policy = PRESETS["owasp-low"]
    assert call == Call("default", policy, CALLER, client or NOBODY, "lost phone", tells_client=client is not None)
    assert call.cause == Cause(CauseKind.REQUEST, "shop", "lost phone")


def test_a_call_without_a_reason(app: App) -> None:
    """A call that names no reason is a cause without one."""
    assert app.authority.call("default", CALLER, CLIENT).cause == Cause(CauseKind.REQUEST, "shop", "")


def test_a_call_for_an_application_that_does_not_exist(app: App) -> None:
    """An unknown application is refused with the names of those that are configured."""
    with pytest.raises(InvalidField, match=r'unknown application "shop" \(configured: default\)') as refused:
        app.authority.call("shop", CALLER, CLIENT)
    assert refused.value.field == "application"
