"""Every call of a client, made with secrets that a test can look for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from sessiond_client import (
    Authentication,
    ClientContext,
    DataRequest,
    Grant,
    Lifetimes,
    Question,
    Requirements,
    Role,
)
from tests.clients.either import Either

__all__ = ["CALLS", "DATA", "REQUEST_ID", "TOKEN", "ending_of"]

TOKEN = "kQ3vX0canary0token0canary0token0canary0token0canary0token0canary0token"
REQUEST_ID = "7d9b0c6e-ca9a-4ca9-8ca9-0123456789ab"
DATA = b"canary-data"

_SEEN = ClientContext(ip_address="192.0.2.1", user_agent="Firefox")
_NEEDS = Requirements(companion=("pay", TOKEN), csrf=TOKEN)
_CHANGE = {"client": _SEEN, "request_id": REQUEST_ID}


def _login(client: Any, **more: Any) -> Any:
    return client.authenticate(
        TOKEN, "ada", authentication=Authentication(level=1), lifetimes=Lifetimes(), ticket=TOKEN, **_CHANGE, **more
    )


CALLS: dict[str, Callable[..., Any]] = {
    "create": lambda client, **more: client.create(data={"k": DATA}, ticket=TOKEN, **_CHANGE, **more),
    "validate": lambda client, **more: client.validate(TOKEN, client=_SEEN, requirements=_NEEDS, **more),
    "validate_many": lambda client, **more: client.validate_many([TOKEN, Question(TOKEN, requirements=_NEEDS)], **more),
    "authenticate": _login,
    "roll": lambda client, **more: client.roll(TOKEN, **_CHANGE, **more),
    "refresh": lambda client, **more: client.refresh(TOKEN, **_CHANGE, **more),
    "revoke": lambda client, **more: client.revoke(token=TOKEN, **_CHANGE, **more),
    "revoke_all": lambda client, **more: client.revoke_all(subject="ada", request_id=REQUEST_ID, **more),
    "get": lambda client, **more: client.get(token=TOKEN, **more),
    "list": lambda client, **more: client.list(labels={"tenant": "acme"}, **more),
    "list_page": lambda client, **more: client.list_page(subject="ada", **more),
    "activity": lambda client, **more: client.activity("ada", **more),
    "activity_page": lambda client, **more: client.activity_page("ada", **more),
    "get_data": lambda client, **more: client.get_data(token=TOKEN, keys=["k"], **more),
    "update_data": lambda client, **more: client.update_data(
        token=TOKEN, set={"k": DATA}, return_data=DataRequest(keys=("k",)), request_id=REQUEST_ID, **more
    ),
    "issue_companion_token": lambda client, **more: client.issue_companion_token(TOKEN, "pay", client=_SEEN, **more),
    "report_signal": lambda client, **more: client.report_signal(token=TOKEN, **_CHANGE, **more),
    "list_source_locks": lambda client, **more: client.list_source_locks(**more),
    "list_source_locks_page": lambda client, **more: client.list_source_locks_page(**more),
    "clear_source_lock": lambda client, **more: client.clear_source_lock("192.0.2.1/32", request_id=REQUEST_ID, **more),
    "create_caller": lambda client, **more: client.create_caller(
        "shop", [Grant(role=Role.ADMIN)], request_id=REQUEST_ID, **more
    ),
    "list_callers": lambda client, **more: client.list_callers(**more),
    "rotate_caller": lambda client, **more: client.rotate_caller("shop", request_id=REQUEST_ID, **more),
    "revoke_caller": lambda client, **more: client.revoke_caller("shop", request_id=REQUEST_ID, **more),
    "update_caller_certificates": lambda client, **more: client.update_caller_certificates(
        "shop", add=["spiffe://example.org/shop"], request_id=REQUEST_ID, **more
    ),
    "key_ring": lambda client, **more: client.key_ring(**more),
    "add_sealing_key": lambda client, **more: client.add_sealing_key(request_id=REQUEST_ID, **more),
    "promote_sealing_key": lambda client, **more: client.promote_sealing_key("5aedb482", request_id=REQUEST_ID, **more),
    "retire_sealing_key": lambda client, **more: client.retire_sealing_key("5aedb482", request_id=REQUEST_ID, **more),
    "authority": lambda client, **more: client.authority(**more),
}
"""By the name of the method. `more` goes to the method as it is."""


async def ending_of(either: Either, call: Callable[[Any], Any]) -> Any:
    """What a call of either client returns or raises; of a listing, its items."""

    def end() -> Any:
        try:
            answer = call(either.client)
            return list(answer) if hasattr(answer, "__next__") else answer
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            return error

    async def end_async() -> Any:
        try:
            answer = call(either.client)
            if hasattr(answer, "__anext__"):
                return [item async for item in answer]
            return await answer if isinstance(answer, Awaitable) else answer
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            return error

    return await (end_async() if either.is_async else asyncio.to_thread(end))
