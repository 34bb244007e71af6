"""How `validate` uses a near cache: what may be answered from it, and what may be kept. Shared by both clients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn, TypeAlias, TypeVar

from sessiond_client import reading
from sessiond_client.answers import Validation
from sessiond_client.convert import span_or_none
from sessiond_client.enums import NextStep, Verdict
from sessiond_client.errors import InvalidArgument, OutOfRange
from sessiond_client.near_cache import Fill, NearCache, network_of
from sessiond_client.outcome import Outcome, attempt
from sessiond_client.questions import NOT_REQUIRED, DataRequest, Requirements
from sessiond_client.rpc import Call, Rpc
from sessiond_client.tokens import Token
from sessiond_client.values import ClientContext
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["Answered", "Key", "Miss", "NearQuestions", "key_of", "key_of_message"]

K = TypeVar("K")
V = TypeVar("V")

Key: TypeAlias = tuple[Any, ...]
"""What identifies a question beside its token. Immutable. Two questions with one key are the same request."""
_LONGEST_TIMEOUT = 10**9


def key_of(
    client: Any,
    passive: Any,
    requirements: Any,
    with_csrf_token: Any,
    data: Any,
) -> Key | None:
    """The key of the arguments of `validate`; None: not one that an answer may be kept under, or a wrong argument.

    1 equals True, and a bytearray equals bytes. So types are compared too: what `validate` refuses has no key.
    """
    seen: Key | None = None
    needed: Key | None = None
    wanted: Any = None
    if client is not None:
        if type(client) is not ClientContext or type(client.certificate_thumbprint) is not bytes:
            return None
        seen = (client.ip_address, client.user_agent, client.certificate_thumbprint, client.device_id)
    if (passive is not False and passive is not True) or (with_csrf_token is not False and with_csrf_token is not True):
        return None
    if requirements is not None:
        if type(requirements) is not Requirements or type(requirements.min_level) is not int:
            return None
        if requirements.companion is not None or requirements.csrf is not NOT_REQUIRED:
            return None
        needed = (requirements.min_level, requirements.max_authentication_age)
    if data is True:
        wanted = data
    elif data is not None and data is not False:
        if type(data) is DataRequest and type(data.keys) is tuple and type(data.newer_than) is int:
            wanted = (data.keys, data.newer_than) if data.keys or data.newer_than else True
        else:
            return None
    return (seen, passive, needed, with_csrf_token, wanted)


def key_of_message(request: pb.ValidateSessionRequest) -> Key | None:
    """The key of a request, as `key_of` makes it of the arguments; None: its answer may not be kept."""
    needed: Key | None = None
    if request.HasField("requirements"):
        requirements = request.requirements
        if requirements.HasField("companion") or requirements.HasField("csrf"):
            return None
        needed = (requirements.min_level, span_or_none(requirements, "max_authentication_age"))
    client, data = request.client, request.data
    seen = (client.ip_address, client.user_agent, client.certificate_thumbprint, client.device_id)
    wanted: Key | bool | None = None
    if request.HasField("data"):
        wanted = (tuple(data.keys), data.newer_than) if data.keys or data.newer_than else True
    return (
        seen if request.HasField("client") else None,
        request.passive,
        needed,
        request.with_csrf_token,
        wanted,
    )


@dataclass(frozen=True, slots=True)
class Answered:
    """A response, with what the near cache must know of it."""

    validation: Validation
    size: int


_SIZED: Rpc[Answered] = Rpc(
    "ValidateSession", lambda message: Answered(reading.validation(message), message.ByteSize())
)


@dataclass(slots=True)
class Miss:
    """A question that the near cache could not answer."""

    call: Call[Answered] = field(repr=False)
    digest: bytes = field(repr=False)
    question: Key = field(repr=False)
    address: str = field(default="", repr=False)
    fill: Fill | None = None
    may_keep: bool = True

    @property
    def key(self) -> Key:
        """Equal for questions of which one can wait for the answer to the other."""
        return (self.digest, self.question)

    def limit(self, seconds: float) -> None:
        """Let the call take only so long."""
        self.call = replace(self.call, timeout=max(0.0, seconds))


class NearQuestions:
    """The near cache of one client, as `validate` sees it."""

    def __init__(self, cache: NearCache[Validation]) -> None:
        self.cache = cache
        self.start: Callable[[], None] = lambda: None
        """Begins to follow the authority, if that was not begun yet."""

    def known(
        self,
        token: Any,
        client: Any,
        passive: Any,
        requirements: Any,
        with_csrf_token: Any,
        data: Any,
        timeout: Any,
    ) -> Validation | None:
        """The answer, if the cache has it. The hot path: a wrong argument is left to the ordinary path."""
        if timeout is not None and not (type(timeout) in (float, int) and 0 <= timeout <= _LONGEST_TIMEOUT):
            return None
        question = key_of(client, passive, requirements, with_csrf_token, data)
        if question is None:
            return None
        if type(token) is Token:
            token = token.reveal()
        elif not isinstance(token, str):
            return None
        try:
            return self.cache.find(token, question)
        except UnicodeEncodeError:
            return None

    def missed(self, prepared: Outcome[Call[Validation]]) -> Miss | None:
        """What to ask the authority; None: nothing that concerns the cache, so ask the ordinary way."""
        if prepared.error is not None:
            return None
        call = prepared.get()
        # Of the message, not of the arguments: that is what is asked, whatever the caller does to its own objects.
        question = key_of_message(call.request)
        if question is None:
            return None
        digest = self.cache.digest(call.request.token)
        return Miss(_SIZED.call(call.request, call.timeout), digest, question, call.request.client.ip_address)

    def again(self, miss: Miss) -> Validation | None:
        """The answer, if the cache has it now."""
        return self.cache.get(miss.digest, miss.question, counts=False)

    def begin(self, miss: Miss) -> None:
        """Begin the fill. If the cache is closed, the answer will not be kept."""
        miss.fill = self.cache.begin(miss.digest, miss.question) if miss.may_keep else None
        if miss.fill is not None:
            miss.call.request.at_least = miss.fill.at_least

    def end(self, miss: Miss, outcome: Outcome[Answered]) -> Outcome[Validation] | None:
        """Keep what may be kept. Returns the outcome for the caller; None: ask again, without the cache's position."""
        if miss.fill is None:
            return _plain(outcome)
        try:
            if isinstance(outcome.error, (OutOfRange, InvalidArgument)):
                miss.call.request.at_least = ""  # the server that was asked does not know the log that is followed
                miss.may_keep = False
                return None
            if outcome.error is None:
                return Outcome(self._kept(miss, miss.fill, outcome.get()))
            return _plain(outcome)
        finally:
            self.cache.end(miss.fill)
            miss.fill = None

    def _kept(self, miss: Miss, fill: Fill, answered: Answered) -> Validation:
        answer = answered.validation
        session, period = answer.session, answer.cacheable_for
        if session is None or period is None or not _may_be_kept(answer):
            return answer
        answer = _shared(answer)
        network: Outcome[str] = attempt(network_of, miss.address)
        if network.error is None:
            self.cache.keep(
                fill,
                answer,
                session=session.session_id,
                application=session.application,
                network=network.get(),
                ms=int(period.total_seconds() * 1000),
                size=answered.size,
            )
        return answer


def _plain(outcome: Outcome[Answered]) -> Outcome[Validation]:
    return Outcome(error=outcome.error) if outcome.error is not None else Outcome(outcome.get().validation)


def _may_be_kept(answer: Validation) -> bool:
    """Whether the answer says yes and nothing else. An authority marks no other, but this must not depend on it."""
    return (
        answer.verdict is Verdict.VALID
        and answer.next_step is NextStep.PROCEED
        and answer.renewed_token is None
        and not answer.signals
        and not answer.unmet
    )


def _shared(answer: Validation) -> Validation:
    """The same answer, which no caller can change for the others."""
    data = None if answer.data is None else replace(answer.data, values=_ReadOnly(answer.data.values))
    session = answer.session
    if session is not None:
        session = replace(session, labels=_ReadOnly(session.labels))
    return replace(answer, data=data, session=session)


class _ReadOnly(dict[K, V]):
    """A dict that cannot be changed. Unlike a `MappingProxyType` it can be copied, pickled and written as JSON."""

    __slots__ = ()

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("this mapping belongs to an answer that others get too; change a copy of it: dict(...)")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> Any:
        return dict, (dict(self),)

    def __copy__(self) -> dict[K, V]:
        return dict(self)

    def __deepcopy__(self, memo: Any) -> dict[K, V]:
        return dict(self)  # the values are immutable
