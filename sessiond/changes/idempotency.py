"""Safe retries: a unit that is carried out once, however often it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from sessiond.domain.errors import InvalidField
from sessiond.domain.values import Instant
from sessiond.eventlog.journal import Done, Needs, Unit, Work
from sessiond.store.contract import KeptAnswer

__all__ = ["KEEP_FOR", "Once", "Recall", "Repeated"]

T = TypeVar("T")

KEEP_FOR = 24 * 3_600_000
"""How long the first answer is kept, in milliseconds."""


@dataclass(frozen=True, slots=True)
class Repeated:
    """The call was made before: its first answer, still sealed."""

    sealed: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Recall:
    """Look for the first answer to a call before anything of it is judged: its token may be worth less by now."""

    key: bytes
    parameters: bytes

    def needs(self) -> Needs:
        """The first answer."""
        return Needs(answers=(self.key,))

    def apply(self, work: Work) -> Repeated | None:
        """Raises `InvalidField` where the id was used for another call."""
        kept = work.answer(self.key)
        if kept is None:
            return None
        if kept.parameters != self.parameters:
            raise InvalidField("request_id", "was used for another call; take a fresh UUIDv4 for each call")
        return Repeated(kept.sealed)


@dataclass(frozen=True, slots=True)
class Once(Generic[T]):
    """A unit that leaves its answer for repeats. `key`, `parameters`: as in `KeptAnswer`. `seal` makes the answer.

    A unit that refuses or changes nothing leaves nothing, unless `always`: asked again, it decides again.
    """

    unit: Unit[T]
    key: bytes
    parameters: bytes
    seal: Callable[[Done[T]], bytes]
    always: bool = False

    def needs(self) -> Needs:
        """What the unit needs, and the first answer."""
        needs = self.unit.needs()
        return replace(needs, answers=(*needs.answers, self.key))

    def apply(self, work: Work) -> T | Repeated:
        """Raises `InvalidField` where the id was used for another call."""
        if (repeated := Recall(self.key, self.parameters).apply(work)) is not None:
            return repeated
        result = self.unit.apply(work)
        if work.untouched and not self.always:
            return result  # a dead token, say: asked again it is as dead, and nobody fills the store with it
        sealed = self.seal(Done(result, work.revision))
        work.keep_answer(KeptAnswer(self.key, self.parameters, sealed, Instant(work.now + KEEP_FOR)))
        return result
