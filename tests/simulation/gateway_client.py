"""The authority in this process, asked as the gateway asks: with the client's own calls and answers, and outages."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from sessiond.domain import errors as refused
from sessiond_client import calls
from sessiond_client import errors as raised
from sessiond_client.answers import Created, DataUpdated, Revoked, Rolled, Validation
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.simulation.bounds import DAY, HOUR, MINUTE, SECOND
from tests.simulation.gateway_records import Records
from tests.simulation.service import Service
from tests.simulation.site import Request
from tests.simulation.tally import Tally
from tests.simulation.wheel import Wheel

__all__ = ["AuthorityClient", "Outages"]

_NAMES = {"list_page": "list_sessions"}
_LOST = 0.002
_RAISED: dict[type[refused.AuthorityError], type[raised.SessiondError]] = {
    refused.InvalidField: raised.InvalidArgument,
    refused.SessionNotFound: raised.NotFound,
    refused.SubjectMismatch: raised.FailedPrecondition,
    refused.VersionMismatch: raised.Conflict,
    refused.PositionOutOfRange: raised.OutOfRange,
    refused.Overloaded: raised.ResourceExhausted,
    refused.Unavailable: raised.Unavailable,
}


class Outages:
    """When the authority is out of reach: some seconds or minutes, twice or three times a day."""

    def __init__(self, start: int, days: int, random: Random) -> None:
        self.windows: list[tuple[int, int]] = []
        for day in range(days):
            for long in (False, random.random() < 0.5, True):
                begin = start + day * DAY + 7 * HOUR + random.randrange(14 * HOUR)
                takes = random.randrange(MINUTE, 6 * MINUTE) if long else random.randrange(3 * SECOND, 40 * SECOND)
                self.windows.append((begin, begin + takes))

    def at(self, now: int) -> bool:
        """Whether the authority is out of reach at this time."""
        return any(begin <= now < end for begin, end in self.windows)


@dataclass(frozen=True)
class _CallsFor:
    """The calls that are made for one request of a browser."""

    ask: Callable[..., Any]
    request: Request

    def __getattr__(self, method: str) -> Callable[..., Any]:
        return functools.partial(self.ask, self.request, method)


class AuthorityClient:
    """An `AsyncClient` without a connection. Changes carry a `request_id`, as those of the real one do.

    In an outage every call fails. Besides, the answer of a write of session data is lost now and then although it took
    effect. Answers to logins are lost on the way to the browser instead, which `Browser` does.
    """

    def __init__(
        self, service: Service, wheel: Wheel, tally: Tally, random: Random, records: Records, outages: Outages
    ) -> None:
        self._service = service
        self._wheel = wheel
        self._tally = tally
        self._random = random
        self._records = records
        self._outages = outages

    def calls_for(self, request: Request) -> Any:
        """What `run_async` needs as a client, for one request."""
        return _CallsFor(self._ask, request)

    async def _ask(self, request: Request, method: str, *args: Any, **kwargs: Any) -> Any:
        if self._outages.at(self._wheel.now):
            self._tally.traffic["calls in an outage"] += 1
            raise raised.Unavailable("the authority is out of reach", status="UNAVAILABLE")
        self._tally.note(self._wheel.now, request.client, request.lives, elsewhere=request.elsewhere)
        self._tally.traffic[f"asked: {method}"] += 1
        call = getattr(calls, _NAMES.get(method, method))("", *args, **kwargs)
        if call.rpc.changes:
            call.request.request_id = str(uuid.UUID(bytes=self._random.randbytes(16), version=4))
        began = self._records.now()
        answer = call.read(await self._response_to(call))
        self._record(request, method, args, kwargs, answer, began)
        if method in ("create", "update_data") and self._random.random() < _LOST:
            self._tally.traffic["answers of writes lost"] += 1
            raise raised.Unavailable("the answer was lost", status="UNAVAILABLE")
        return answer

    async def _response_to(self, call: Any) -> Any:
        response = None
        if isinstance(call.request, pb.ValidateSessionRequest):
            response = self._service.fast_path(call.request)
        if response is None:
            try:
                response = await self._service.ask(call.rpc.name, call.request)
            except refused.AuthorityError as error:
                kind = next(_RAISED[kind] for kind in type(error).__mro__ if kind in _RAISED)
                raise kind(error.public) from None
        return response

    def _record(
        self, request: Request, method: str, args: tuple[Any, ...], kwargs: Any, answer: Any, began: int
    ) -> None:
        now = self._wheel.now
        if isinstance(answer, Validation):
            self._count(request, answer)
            self._records.validated(answer, args[0].reveal(), request.client.device_id, now, began)
        elif isinstance(answer, Created):
            self._records.issued(answer, now)
            self._records.wrote(answer.session.session_id, answer.session.data_version, kwargs.get("data") or {}, ())
        elif isinstance(answer, Rolled | Revoked):
            self._records.issued(answer, now)
        elif isinstance(answer, DataUpdated) and answer.verdict.name == "VALID":
            session_id = kwargs.get("session_id") or self._records.session_of(kwargs["token"])
            self._records.wrote(session_id, answer.version, kwargs["set"], kwargs["delete"])
        if method != "validate" and getattr(answer, "verdict", None) is not None:
            replayed = answer.verdict.name == "REPLAYED" and request.lives
            self._tally.verdicts["OLD" if replayed else answer.verdict.name] += 1

    def _count(self, request: Request, answer: Validation) -> None:
        name = answer.verdict.name
        if name == "REPLAYED":
            # As in `Site`: if normal use explains an old token, the event shows what followed.
            name = name if answer.signals and not request.lives else "OLD" if answer.signals else "MISSED"
        self._tally.verdicts[name] += 1
