"""Programs that tests start beside themselves.

uvloop starts a program by a fork whose child runs Python's own handlers before it becomes the program. In a process
with threads of gRPC that child crashes now and then, before it has written a word. `subprocess` needs no such child.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

__all__ = ["Program", "start_program"]

_LIMIT = 2**16


class Program:
    """A program that runs; as `asyncio.subprocess.Process`."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        stdin: asyncio.StreamWriter | None,
        stdout: asyncio.StreamReader | None,
        stderr: asyncio.StreamReader | None,
    ) -> None:
        self._process = process
        self.pid = process.pid
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr
        self.send_signal, self.terminate, self.kill = process.send_signal, process.terminate, process.kill

    @property
    def returncode(self) -> int | None:
        """How it has ended; None: it runs."""
        return self._process.poll()

    async def wait(self) -> int:
        """Wait until it has ended."""
        return await asyncio.to_thread(self._process.wait)

    async def communicate(self, said: bytes = b"") -> tuple[bytes, bytes]:
        """Say something to it, and return all that it writes until its end."""
        if self.stdin is not None:
            self.stdin.write(said)
            self.stdin.close()
        written = await asyncio.gather(*(_all_of(stream) for stream in (self.stdout, self.stderr)))
        await self.wait()
        return written[0], written[1]


async def start_program(
    *command: str | Path,
    stdin: int | None = None,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    limit: int = _LIMIT,
) -> Program:
    """Start a program; as `asyncio.create_subprocess_exec`."""
    process = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, env=env, cwd=cwd)  # noqa: ASYNC220
    reading = [await _reader(pipe, limit) for pipe in (process.stdout, process.stderr)]
    return Program(process, await _writer(process.stdin), *reading)


async def _reader(pipe: IO[bytes] | None, limit: int) -> asyncio.StreamReader | None:
    if pipe is None:
        return None
    reader = asyncio.StreamReader(limit)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    return reader


async def _writer(pipe: IO[bytes] | None) -> asyncio.StreamWriter | None:
    if pipe is None:
        return None
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, pipe)
    return asyncio.StreamWriter(transport, protocol, None, loop)


async def _all_of(stream: asyncio.StreamReader | None) -> bytes:
    read: Any = b"" if stream is None else await stream.read()
    return bytes(read)
