"""A command on a terminal of its own."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import termios
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

__all__ = ["Run", "Terminal", "on_terminal"]

_PATIENCE = 60.0
"""Seconds after which a command that shows nothing is believed to hang."""
_CODES = re.compile(r"\x1b\[[0-9;]*[mKJ]")
_END = b"\x1b[?2026l"


@dataclass(frozen=True, slots=True)
class Run:
    """How a command ended, and everything that its terminal was sent."""

    exit_code: int
    output: bytes


def on_terminal(command: Sequence[str], watch: Callable[[int, bytes], None] = lambda pid, shown: None) -> Run:
    """Run a command whose standard output and error are a terminal.

    `watch` is given the process id and what has been shown so far, each time that something is.
    """
    ours, theirs = pty.openpty()
    try:
        # A test run that was started in the background ignores Ctrl-C, and so would its children.
        command = ["env", "--default-signal=INT", *command]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            shown = b""
            while part := _read(ours):
                shown += part
                watch(process.pid, shown)
        return Run(process.returncode, shown)
    finally:
        os.close(ours)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # nobody holds the other end any more
        return b""


class Terminal:
    """A command on a terminal that is its controlling one, with somebody in front of it. A context manager.

    Keys, Ctrl-C and Ctrl-Z reach the command as they do in a terminal window, and so does a change of its size.
    """

    def __init__(self, command: Sequence[str], rows: int = 24, columns: int = 80) -> None:
        self._ours, self._theirs = pty.openpty()
        self.resize(rows, columns)
        self._before = termios.tcgetattr(self._theirs)
        self.output = b""
        typed = ["setsid", "--ctty", "env", "--default-signal=INT,TSTP", *command]
        env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            typed, stdin=self._theirs, stdout=self._theirs, stderr=self._theirs, env=env | {"TERM": "xterm"}
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)

    def resize(self, rows: int, columns: int) -> None:
        """Change the size of the window. The kernel then sends SIGWINCH to the command."""
        termios.tcsetwinsize(self._ours, (rows, columns))

    def type(self, keys: str) -> None:
        """Press these keys."""
        os.write(self._ours, keys.encode("ascii"))

    def until(self, condition: Callable[[list[str]], bool]) -> list[str]:
        """Read until the lines of a whole frame meet the condition, and return them; no line has codes of colours."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            frames = self.output.split(b"\x1b[H")[1:]
            whole = [frame.partition(_END)[0] for frame in frames if _END in frame]
            lines = _CODES.sub("", whole[-1].decode()).split("\r\n") if whole else []
            if lines and condition(lines):
                return lines
            self._read_more(deadline)

    def end(self) -> int:
        """Read until the command has ended, and return its exit code; negative: the signal that ended it."""
        deadline = time.monotonic() + _PATIENCE
        while self.process.poll() is None:
            self._read_more(deadline, 0.1)
        self._read_more(deadline, 0.0)
        return self.process.returncode

    def is_as_before(self) -> bool:
        """Whether the terminal's modes are those from before the command."""
        return termios.tcgetattr(self._theirs) == self._before

    def _read_more(self, deadline: float, patience: float = 1.0) -> None:
        if time.monotonic() > deadline:
            raise AssertionError(f"nothing of the kind was shown; the end of what was: {self.output[-3000:]!r}")
        while select.select([self._ours], [], [], patience)[0]:
            part = _read(self._ours)
            if not part:
                return
            self.output += part
            patience = 0.0
