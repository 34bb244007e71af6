"""A client of the authority in the same process: the calls of the contract without a connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from sessiond.domain.call import Caller
from sessiond_client import calls
from sessiond_client.rpc import Call

__all__ = ["LocalClient", "Respond"]

_PAGES = {"list_page": "list_sessions", "activity_page": "activity"}
"""The calls of methods that are not named as their calls."""

Respond = Callable[[str, Any, Caller], Awaitable[Any]]
"""Responds to a request of the contract, by the name of its RPC. Raises `SessiondError`, as a client does."""


class LocalClient:
    """Makes the calls that the gateway's steps ask for, as `run_async` expects of a client, for one caller."""

    def __init__(self, application: str, caller: Caller, respond: Respond) -> None:
        self._application = application
        self._caller = caller
        self._respond = respond

    def __getattr__(self, method: str) -> Callable[..., Awaitable[Any]]:
        async def ask(*args: Any, **kwargs: Any) -> Any:
            call: Call[Any] = getattr(calls, _PAGES.get(method, method))(self._application, *args, **kwargs)
            return call.read(await self._respond(call.rpc.name, call.request, self._caller))

        return ask
