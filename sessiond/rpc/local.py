"""Calls of the contract from within the process, for what the server itself asks on behalf of a caller."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sessiond.access.limits import CallLimiter
from sessiond.domain.call import Caller
from sessiond.domain.errors import AuthorityError
from sessiond.edge.local import Answered, Repeatable
from sessiond.rpc.authorization import authorize
from sessiond.rpc.handlers import counted
from sessiond.rpc.status import status_message
from sessiond_client.errors import from_failure
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["LocalCalls", "RepeatableAnswers"]

RepeatableAnswers = Callable[[Caller, bytes], tuple[Any, Repeatable | None] | None]
"""Answers a repeated ValidateSession; None: the service must answer. See `ValidationService.repeatable`."""


class LocalCalls:
    """Responds to requests with the methods of the services.

    The same callers may make the same calls as over gRPC, and the limits of applications hold; those of the caller are
    for whoever it asks through.
    """

    def __init__(
        self,
        services: Sequence[object],
        repeatable: RepeatableAnswers | None = None,
        limiter: CallLimiter | None = None,
    ) -> None:
        self._services = services
        self._repeatable = repeatable
        self._limiter = limiter

    async def respond(self, name: str, request: Any, caller: Caller) -> Answered:
        """Return the response to a request. Raise the `SessiondError` that a client of this caller would raise."""
        try:
            authorize(name, request, caller)
            if name == "ValidateSession" and self._repeatable is not None:
                known = self._repeatable(caller, request.SerializeToString())
                if known is not None:
                    return Answered(*known)
            method = next(getattr(one, name) for one in self._services if hasattr(one, name))
            with counted(name, request, caller, self._limiter):
                response = await method(request, caller)
        except AuthorityError as error:
            status = status_message(error)
            failure = pb.ValidationFailure(code=status.code, message=status.message, details=status.details)
            raise from_failure(failure) from None
        return Answered(response)
