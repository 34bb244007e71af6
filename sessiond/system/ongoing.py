"""The call that is being answered: the id by which logs and errors name it, and its span if calls are traced.

It is a context variable, so that whatever works for a call can find it, and new tasks inherit it. A call that needs
neither, such as a validation that is answered from memory, never has one.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import Context, ContextVar
from typing import Any, Protocol

__all__ = [
    "CALL_ID",
    "Metadata",
    "TRACE_HEADERS",
    "OngoingCall",
    "Span",
    "Tracer",
    "begin_call",
    "call_id",
    "calling",
    "end_call",
    "ending_call",
    "new_call_id",
    "note",
    "outside_calls",
    "sent_call_id",
    "started_outside_calls",
    "step",
    "this_call",
]

CALL_ID = "x-request-id"
"""The metadata, or header of HTTP, in which a caller may send the id of its call."""
TRACE_HEADERS = frozenset({"traceparent", "tracestate"})
"""The metadata, or headers of HTTP, by which a call becomes a part of a trace (W3C Trace Context)."""
Metadata = Iterable[tuple[str, str | bytes]]
_FORM = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_COULD_BE_A_TOKEN = re.compile(r"[A-Za-z0-9_-]{40}")  # see `access.audit`: the shortest token has 43 such characters
_NO_STEP = nullcontext()
_NO_HEADERS: AbstractContextManager[Metadata] = nullcontext(())


class Span(Protocol):
    """What a trace says about a call. See `system.tracing`."""

    def note(self, facts: Mapping[str, Any]) -> None:
        """Add facts: texts, numbers and truth values by name."""

    def step(self, name: str) -> AbstractContextManager[object]:
        """Return a block that is a span of its own within this one."""

    def calling(self, path: str) -> AbstractContextManager[Metadata]:
        """Return a block in which a method of another server is called, with the metadata to send there."""

    def headers(self) -> Metadata:
        """Return the metadata that makes a further call a part of this span."""

    def end(self, code: str | int) -> None:
        """End the span with the name of a status code of gRPC, or the status of HTTP."""


class Tracer(Protocol):
    """Begins spans. See `system.tracing`."""

    def rpc(self, service: str, method: str, metadata: Metadata | None) -> Span:
        """Begin the span of a call that a client makes."""

    def http(self, method: str, route: str, headers: Iterable[tuple[bytes, bytes]]) -> Span:
        """Begin the span of a request over HTTP."""


class OngoingCall:
    """One call. `sent` is the id that its caller has sent, as `sent_call_id` returns it."""

    __slots__ = ("_failures", "_id", "is_named", "span")

    def __init__(self, sent: str = "", span: Span | None = None) -> None:
        self._id = sent
        self.is_named = bool(sent)
        """Whether the caller has given the call its id."""
        self._failures = 0
        self.span = span

    @property
    def id(self) -> str:
        """The id of the call. It is made now if there is none yet."""
        if not self._id:
            self._id = new_call_id()
        return self._id

    def adopt(self, sent: str) -> None:
        """Take the id that came in another way, unless there is one already."""
        if sent and not self._id:
            self._id, self.is_named = sent, True

    def failure_id(self) -> str:
        """Return an id for the next failure of ours in this call: its own, and after the first with a number."""
        self._failures += 1
        return self.id if self._failures == 1 else f"{self.id}.{self._failures}"


_ongoing: ContextVar[OngoingCall | None] = ContextVar("ongoing", default=None)


def new_call_id() -> str:
    """Return an id that no other call has."""
    return os.urandom(8).hex()


def sent_call_id(values: Iterable[str | bytes]) -> str:
    """Return the id among what a caller has sent as `CALL_ID`; empty if it is not there once, or not in good form.

    It has 1 to 64 letters, digits, `-`, `_`, `.` and `:`. A text that could be a token is none, because ids are logged.
    """
    found = list(values)
    if len(found) != 1 or not isinstance(value := found[0], str):
        return ""
    return value if _FORM.fullmatch(value) and not _COULD_BE_A_TOKEN.search(value) else ""


def begin_call(call: OngoingCall) -> None:
    """Make a call the ongoing one, here and in the tasks that are created from here."""
    _ongoing.set(call)


def end_call() -> None:
    """Forget the ongoing call. Only for code that serves one call after another; a task ends with its call."""
    _ongoing.set(None)


def this_call(metadata: Metadata | None = ()) -> OngoingCall:
    """Return the ongoing call. If there is none yet, begin one whose caller has sent this metadata."""
    call = ending_call(metadata)
    _ongoing.set(call)
    return call


def ending_call(metadata: Metadata | None = ()) -> OngoingCall:
    """As `this_call`, for an error that ends the call: one that has not begun is not begun any more."""
    call = _ongoing.get()
    if call is None:
        call = OngoingCall(sent_call_id(value for key, value in metadata or () if key == CALL_ID))
    return call


def call_id() -> str:
    """Return the id of the ongoing call; empty if there is no call."""
    call = _ongoing.get()
    return "" if call is None else call.id


def note(**facts: Any) -> None:
    """Add facts to the span of the ongoing call, if it is traced. Never a token, a subject, or an address."""
    call = _ongoing.get()
    if call is not None and call.span is not None:
        call.span.note(facts)


def step(name: str) -> AbstractContextManager[object]:
    """Return a block that is a step of the ongoing call in its trace, if it is traced."""
    call = _ongoing.get()
    return _NO_STEP if call is None or call.span is None else call.span.step(name)


def calling(path: str) -> AbstractContextManager[Metadata]:
    """Return a block in which the ongoing call calls another server, with the metadata of its trace to send there."""
    call = _ongoing.get()
    return _NO_HEADERS if call is None or call.span is None else call.span.calling(path)


async def started_outside_calls(starting: Coroutine[Any, Any, None]) -> None:
    """Start a server, whose calls inherit nothing from what starts it."""
    await asyncio.get_running_loop().create_task(starting, context=Context())


def outside_calls(
    call_later: Callable[..., object],
) -> Callable[[float, Callable[[], None]], object]:
    """Return `call_later` of an event loop, for functions that do not belong to the call that schedules them."""

    def later(seconds: float, function: Callable[[], None]) -> object:
        return call_later(seconds, function, context=Context())

    return later
