"""Programs that tests start beside themselves.

uvloop starts a program by a fork whose child runs Python's own handlers before it becomes the program. In a process
with threads of gRPC that child crashes now and then, before it has written a word. `subprocess` needs no such child.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import IO

__all__ = ["Program", "start_program"]


class Output:
    """What a program writes; as `asyncio.StreamReader`."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe

    async def read(self) -> bytes:
        """All that is left, up to the end."""
        return await asyncio.to_thread(self._pipe.read)

    async def readline(self) -> bytes:
        """The next line; empty at the end."""
        return await asyncio.to_thread(self._pipe.readline)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while line := await self.readline():
            yield line


class Input:
    """What a program reads; as `asyncio.StreamWriter`."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe

    def write(self, said: bytes) -> None:
        """Write something. It must fit into the pipe, or the program must read it meanwhile."""
        self._pipe.write(said)
        self._pipe.flush()

    async def drain(self) -> None:
        """Wait for nothing: everything is written."""

    def close(self) -> None:
        """Write no more."""
        self._pipe.close()


class Program:
    """A program that runs; as `asyncio.subprocess.Process`. Its pipes are closed once it was waited for."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.pid = process.pid
        self.stdin = None if process.stdin is None else Input(process.stdin)
        self.stdout = None if process.stdout is None else Output(process.stdout)
        self.stderr = None if process.stderr is None else Output(process.stderr)
        self.send_signal, self.terminate, self.kill = process.send_signal, process.terminate, process.kill

    @property
    def returncode(self) -> int | None:
        """How it has ended; None: it runs."""
        return self._process.poll()

    async def wait(self) -> int:
        """Wait until it has ended."""
        code = await asyncio.to_thread(self._process.wait)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        return code

    async def communicate(self, said: bytes = b"") -> tuple[bytes, bytes]:
        """Say something to it, and return all that it writes until its end."""
        if self.stdin is not None:
            self.stdin.write(said)
            self.stdin.close()
        written = await asyncio.gather(_all_of(self.stdout), _all_of(self.stderr))
        await self.wait()
        return written[0], written[1]


async def start_program(
    *command: str | Path,
    stdin: int | None = None,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Program:
    """Start a program; as `asyncio.create_subprocess_exec`."""
    return Program(
        subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, env=env, cwd=cwd)  # noqa: ASYNC220
    )


async def _all_of(stream: Output | None) -> bytes:
    return b"" if stream is None else await stream.read()
