"""A command on a terminal of its own."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["Run", "on_terminal"]


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
