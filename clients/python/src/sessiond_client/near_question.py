"""How `validate` uses a near cache: what may be answered from it, and what may be kept. Shared by both clients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from sessiond_client import reading
from sessiond_client.answers import Validation
from sessiond_client.arguments import check_value
from sessiond_client.errors import InvalidArgument, OutOfRange
from sessiond_client.near_cache import Fill, NearCache, network_of
from sessiond_client.outcome import Outcome, attempt
from sessiond_client.questions import Question
from sessiond_client.rpc import Call, Rpc
from sessiond_client.tokens import Token

__all__ = ["Answered", "Miss", "NearQuestions"]


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
    question: Any = field(repr=False)
    address: str = ""
    fill: Fill | None = None
    may_keep: bool = True

    @property
    def key(self) -> Any:
        """Equal for questions of which one can wait for the answer to the other."""
        return (self.digest, self.question)


class NearQuestions:
    """The near cache of one client, as `validate` sees it."""

    def __init__(self, cache: NearCache[Validation]) -> None:
        self.cache = cache
        self.start: Callable[[], None] = lambda: None
        """Begins to follow the authority, if that was not begun yet."""

    def known(self, token: Any, question: tuple[Any, ...]) -> Validation | None:
        """The answer, if the cache has it. The hot path: a wrong argument is left to the ordinary path."""
        try:
            digest = self.cache.digest(token if type(token) is str else token.reveal())
        except (AttributeError, UnicodeEncodeError):
            return None
        return self.cache.get(digest, question)

    def missed(self, prepared: Outcome[Call[Validation]], token: Any, question: tuple[Any, ...]) -> Miss | None:
        """What to ask the authority; None: nothing that concerns the cache, so ask the ordinary way."""
        if prepared.error is not None:
            return None
        call = prepared.get()
        if call.request.requirements.HasField("companion") or call.request.requirements.HasField("csrf"):
            return None
        # Normalized and immutable, whatever the caller does to its own objects later.
        client, passive, requirements, with_csrf_token, data = question
        asked = check_value(Question, Question(token, client, passive, "", requirements, with_csrf_token, data))
        normalized = (asked.client, asked.passive, asked.requirements, asked.with_csrf_token, asked.data)
        digest = self.cache.digest(Token(token).reveal())
        return Miss(_SIZED.call(call.request, call.timeout), digest, normalized, call.request.client.ip_address)

    def again(self, miss: Miss) -> Validation | None:
        """The answer, if the cache has it now."""
        return self.cache.get(miss.digest, miss.question)

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
        if session is None or period is None:
            return answer
        network: Outcome[str] = attempt(network_of, miss.address)
        if network.error is None:
            self.cache.keep(
                fill,
                _frozen(answer),
                session=session.session_id,
                application=session.application,
                network=network.get(),
                ms=int(period.total_seconds() * 1000),
                size=answered.size,
            )
        return answer


def _plain(outcome: Outcome[Answered]) -> Outcome[Validation]:
    return Outcome(error=outcome.error) if outcome.error is not None else Outcome(outcome.get().validation)


def _frozen(answer: Validation) -> Validation:
    """The same answer, which no caller can change for the others."""
    data = None if answer.data is None else replace(answer.data, values=MappingProxyType(dict(answer.data.values)))
    session = answer.session
    if session is not None:
        session = replace(session, labels=MappingProxyType(dict(session.labels)))
    return replace(answer, data=data, session=session)
