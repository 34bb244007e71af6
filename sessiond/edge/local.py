"""A client of the authority in the same process: the calls of the contract without a connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from sessiond.domain.call import Caller
from sessiond.domain.immutable import immutable
from sessiond_client import calls
from sessiond_client.rpc import Call

__all__ = ["Answered", "LocalClient", "Repeatable", "Respond"]

_PAGES = {"list_page": "list_sessions", "activity_page": "activity"}
"""The calls of methods that are not named as their calls."""


class Repeatable(Protocol):
    """A question that was answered, and can be asked again at little cost."""

    def is_same_again(self) -> bool:
        """Ask the question again; return whether the answer differs in nothing but times.

        If so, it must count like the question itself. If not, nothing has been asked.
        """


@immutable
class Answered:
    """A response. `repeatable` asks for it again; None: only the call does."""

    response: Any
    repeatable: Repeatable | None = None


Respond = Callable[[str, Any, Caller], Awaitable[Answered]]
"""Responds to a request of the contract, by the name of its RPC. Raises `SessiondError`, as a client does."""


class LocalClient:
    """Makes the calls that the gateway's steps ask for, as `run_async` expects of a client, for one caller.

    Used for one web request. `repeatable` is the one question that was asked about it, if it can be asked again.
    """

    def __init__(self, application: str, caller: Caller, respond: Respond) -> None:
        self._application = application
        self._caller = caller
        self._respond = respond
        self._asked = 0
        self.repeatable: Repeatable | None = None

    def __getattr__(self, method: str) -> Callable[..., Awaitable[Any]]:
        async def ask(*args: Any, **kwargs: Any) -> Any:
            call: Call[Any] = getattr(calls, _PAGES.get(method, method))(self._application, *args, **kwargs)
            self._asked += 1
            self.repeatable = None
            answered = await self._respond(call.rpc.name, call.request, self._caller)
            if self._asked == 1:
                self.repeatable = answered.repeatable
            return call.read(answered.response)

        return ask
