"""What the kernel reports about a server process: memory and CPU time."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

__all__ = ["resident_bytes", "until_idle"]


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process, in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _processor_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(") ")[2].split()
    return int(fields[11]) + int(fields[12])


async def until_idle(pid: int) -> None:
    """Wait until a process has used almost no CPU time for a quarter of a second."""
    while True:
        before = _processor_ticks(pid)
        await asyncio.sleep(0.25)
        if _processor_ticks(pid) - before <= 1:
            return
