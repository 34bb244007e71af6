"""Taking over a terminal for a while: its whole screen, single keys, and giving it back as it was."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["FullScreen", "Terminated"]

_ENTER = "\x1b[?1049h\x1b[?25l"
"""The alternate screen, which leaves the ordinary one alone, and no cursor."""
_LEAVE = "\x1b[?25h\x1b[?1049l"
_HOME, _ERASE_LINE, _ERASE_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
_BEGIN_FRAME, _END_FRAME = "\x1b[?2026h", "\x1b[?2026l"
"""Synchronized output: a terminal that knows it shows a frame at once, and others ignore it."""
_MOST_KEYS = 32


class Terminated(BaseException):
    """The process was asked to end by the signal `number`, such as SIGTERM. Not an `Exception`: nothing handles it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    def end(self) -> None:
        """End the process by that signal, so that whoever started it learns the reason."""
        signal.signal(self.number, signal.SIG_DFL)
        os.kill(os.getpid(), self.number)


class FullScreen:
    """The terminal of standard output, and the keys of standard input if that is a terminal too.

    A context manager of the main thread. However the block ends, also by a signal, the terminal is as it was. SIGTERM
    and SIGHUP raise `Terminated`. Ctrl-Z gives the terminal back until the process continues.
    """

    def __init__(self) -> None:
        self._keys = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._modes: list[Any] | None = None
        self._handlers: dict[signal.Signals, Any] = {}
        self._wake, self._signal = os.pipe()
        self._signal_before = -1

    def __enter__(self) -> Self:
        for end in (self._wake, self._signal):
            os.set_blocking(end, False)
        self._signal_before = signal.set_wakeup_fd(self._signal, warn_on_full_buffer=False)
        handled = {
            signal.SIGTERM: self._terminate,
            signal.SIGHUP: self._terminate,
            signal.SIGTSTP: self._suspend,
            signal.SIGWINCH: _do_nothing,  # without a handler, the signal would not end the wait for a key
        }
        for number, handler in handled.items():
            self._handlers[number] = signal.signal(number, handler)
        self._take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_back()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._signal_before)
        for end in (self._wake, self._signal):
            os.close(end)

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines, of which none is wider than the screen, in place of what is there."""
        # Erased before, not after: at the end of a full line, some terminals would erase the last column.
        *upper, last = lines or [""]
        text = "".join(f"{_ERASE_LINE}{line}\n" for line in upper)
        _write(f"{_BEGIN_FRAME}{_HOME}{text}{_ERASE_BELOW}{last}{_END_FRAME}")

    def key(self, seconds: float) -> str:
        """Wait for a key, and return it; empty if none came in this time, or if the screen must be drawn again."""
        watched = [self._wake] if self._keys is None else [self._wake, self._keys]
        ready, _, _ = select.select(watched, [], [], max(0.0, seconds))
        if self._wake in ready:
            with suppress(BlockingIOError):
                os.read(self._wake, 4096)
            return ""
        if self._keys is None or self._keys not in ready:
            return ""
        try:
            typed = os.read(self._keys, _MOST_KEYS)
        except OSError:
            typed = b""
        if not typed:  # the terminal was hung up; do not ask it again and again
            self._keys = None
        # An arrow or a function key sends a sequence, whose letters are not meant.
        return "" if typed.startswith(b"\x1b") else typed[:1].decode("ascii", "ignore")

    def _take(self) -> None:
        if self._keys is not None:
            self._modes = termios.tcgetattr(self._keys)
            tty.setcbreak(self._keys, termios.TCSADRAIN)
        _write(_ENTER)

    def _give_back(self) -> None:
        with suppress(OSError):  # the terminal may be gone
            _write(_LEAVE)
        if self._keys is not None and self._modes is not None:
            with suppress(termios.error):
                termios.tcsetattr(self._keys, termios.TCSADRAIN, self._modes)

    def _terminate(self, number: int, _: FrameType | None) -> None:
        raise Terminated(number)

    def _suspend(self, number: int, _: FrameType | None) -> None:
        self._give_back()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        time.sleep(0)  # the process stops here, and continues here
        signal.signal(number, self._suspend)
        self._take()


def _do_nothing(_: int, __: FrameType | None) -> None:
    pass


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
