"""An event loop in virtual time: a wait ends at once, and the loop's clock moves by what was waited for."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class _Waiting(selectors.BaseSelector):
    """Moves the clock instead of waiting. Nothing from outside ever becomes ready."""

    def __init__(self) -> None:
        self.now = 0.0
        self._real = selectors.SelectSelector()

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("the loop would wait for ever: nothing is scheduled")
        self.now += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time moves only by waiting, or by `block`."""

    def __init__(self) -> None:
        self._waiting = _Waiting()
        super().__init__(self._waiting)

    def time(self) -> float:
        return self._waiting.now

    def block(self, seconds: float) -> None:
        """Let time pass while nothing else can run, as code that does not await does."""
        self._waiting.now += seconds


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in virtual time, from time 0."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
