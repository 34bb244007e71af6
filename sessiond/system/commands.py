"""Running a command of the operator, with limits of time and output, and without passing on what it writes."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

__all__ = ["CommandFailed", "output_of"]

_PART = 4096


class CommandFailed(Exception):
    """The command did not yield what was asked for. The text gives the reason, and nothing of what it wrote."""


def output_of(command: Sequence[str], environment: Mapping[str, str], seconds: float, most_bytes: int) -> bytes:
    """Run a command, and return its standard output. This blocks.

    It gets exactly this environment, no standard input, and `/` as its folder. What it writes to standard error is
    dropped. Raise `CommandFailed` if it cannot be started, ends with another code than 0, writes more than `most_bytes`
    or takes longer than `seconds`. It is then killed with the processes that it started.
    """
    try:
        process = subprocess.Popen(  # noqa: S603 - the operator's own command, from the configuration
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=dict(environment),
            start_new_session=True,
        )
    except OSError as error:
        raise CommandFailed(f"cannot be started: {error.strerror}") from error
    try:
        content = _read(process, time.monotonic() + seconds, seconds, most_bytes)
    finally:
        # It, and what it has started, may be running still.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None  # noqa: S101 - for the type checker
        process.stdout.close()
    return content


def _read(process: subprocess.Popen[bytes], end: float, seconds: float, most_bytes: int) -> bytes:
    assert process.stdout is not None  # noqa: S101 - for the type checker
    content = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0.0, end - time.monotonic())):
                raise CommandFailed(f"took longer than {seconds:g} seconds")
            part = os.read(process.stdout.fileno(), _PART)
            if not part:
                break
            content += part
            if len(content) > most_bytes:
                raise CommandFailed(f"wrote more than {most_bytes} bytes")
    try:
        code = process.wait(max(0.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise CommandFailed(f"took longer than {seconds:g} seconds") from None
    if code:
        raise CommandFailed(f"ended with {f'signal {-code}' if code < 0 else f'code {code}'}")
    return content
