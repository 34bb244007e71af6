"""How a call ends for its caller. Exceptions lose the client's own frames, because those hold requests and tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, ParamSpec, TypeVar

from sessiond_client.errors import SessiondError

__all__ = ["Outcome", "attempt", "failure"]

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True)  # not frozen: each call makes two, and that would triple their cost
class Outcome(Generic[T]):
    """A value, or an exception to raise later, when no frame on the stack holds a secret."""

    value: Any = field(default=None, repr=False)
    error: BaseException | None = None

    def get(self) -> T:
        """The value. Raises the exception."""
        if self.error is not None:
            raise self.error
        value: T = self.value
        return value


def attempt(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Outcome[T]:
    """Call a function and return its outcome. Never raises: `Outcome.get` does."""
    try:
        return Outcome(function(*args, **kwargs))
    except BaseException as error:  # noqa: BLE001 - raised again by `get`
        return failure(error)


def failure(error: BaseException) -> Outcome[Any]:
    """The outcome of a call that ended in this exception, without its frames, cause and context.

    Error trackers, `rich` and `pytest -l` show the variables of every frame of a traceback, and those of its causes. An
    exception from outside this package gets a note that says where it was raised.
    """
    if not isinstance(error, SessiondError) and isinstance(error, Exception) and error.__traceback__ is not None:
        last = error.__traceback__
        while last.tb_next is not None:
            last = last.tb_next
        code = last.tb_frame.f_code
        error.add_note(f"raised in {code.co_qualname} ({code.co_filename}, line {last.tb_lineno})")
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return Outcome(error=error)
