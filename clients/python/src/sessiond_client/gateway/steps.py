"""The gateway without I/O: a step asks one question of the authority, and an adapter asks it in its own way."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from sessiond_client.errors import SessiondError
from sessiond_client.gateway.outages import outage_log

if TYPE_CHECKING:
    from sessiond_client.aio import AsyncClient
    from sessiond_client.sync import Client

__all__ = ["Ask", "Steps", "run", "run_async"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ask:
    """Call this method of the client, and send back its answer or throw in its `SessiondError`."""

    method: str
    args: tuple[Any, ...] = field(default=(), repr=False)
    kwargs: Mapping[str, Any] = field(default_factory=dict, repr=False)


Steps = Generator[Ask, Any, T]


def run(client: Client, steps: Steps[T]) -> T:
    """Carry out the steps with a `Client`. Returns what they return, and raises what they raise."""
    try:
        ask = next(steps)
        while True:
            try:
                answer = getattr(client, ask.method)(*ask.args, **ask.kwargs)
            except SessiondError as error:
                outage_log.note(client.target, error)
                ask = steps.throw(error)
            else:
                ask = steps.send(answer)
    except StopIteration as done:
        result: T = done.value
        return result


async def run_async(client: AsyncClient, steps: Steps[T]) -> T:
    """Carry out the steps with an `AsyncClient`. Returns what they return, and raises what they raise."""
    try:
        ask = next(steps)
        while True:
            try:
                answer = await getattr(client, ask.method)(*ask.args, **ask.kwargs)
            except SessiondError as error:
                outage_log.note(client.target, error)
                ask = steps.throw(error)
            else:
                ask = steps.send(answer)
    except StopIteration as done:
        result: T = done.value
        return result
