"""How a call ends for its caller. No exception carries the client's own frames, which hold requests and tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, ParamSpec, TypeVar

from sessiond_client.errors import SessiondError

__all__ = ["Outcome", "attempt", "failure"]

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """A value, or an exception that is raised where no frame holds a secret any more."""

    value: Any = field(default=None, repr=False)
    error: BaseException | None = None

    def get(self) -> T:
        """The value. Raises the exception."""
        if self.error is not None:
            raise self.error
        value: T = self.value
        return value


def attempt(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Outcome[T]:
    """The outcome of a function. Raises nothing; whoever takes the outcome does."""
    try:
        return Outcome(function(*args, **kwargs))
    except BaseException as error:  # noqa: BLE001 - raised again by `get`
        return failure(error)


def failure(error: BaseException) -> Outcome[Any]:
    """The outcome of a call that ended in this exception.

    Error trackers, `rich` and `pytest -l` show the variables of every frame of a traceback, and those of the exceptions
    that an exception came from. The frames are dropped; a note tells where an exception that is not ours was raised.
    """
    if not isinstance(error, SessiondError) and isinstance(error, Exception) and error.__traceback__ is not None:
        last = error.__traceback__
        while last.tb_next is not None:
            last = last.tb_next
        code = last.tb_frame.f_code
        error.add_note(f"raised in {code.co_qualname} ({code.co_filename}, line {last.tb_lineno})")
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return Outcome(error=error)
