"""A description of the machine, so that results can be interpreted later."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = ["machine"]

_PACKAGES = ("sessiond", "grpcio", "protobuf", "aiosqlite", "cryptography")
_SYNCS = 200


def machine(folder: Path, h2load: str) -> dict[str, Any]:
    """Return processor, cores, memory, load, versions, and the time of a disk sync in `folder`."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load_before": os.getloadavg(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "h2load": h2load,
        "packages": {name: version(name) for name in _PACKAGES},
        "fdatasync_us": _sync_us(folder),
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _sync_us(folder: Path) -> float:
    """Return the median time, in microseconds, of syncing 4 KiB that were appended to a file."""
    path = folder / "sync"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        taken = []
        for _ in range(_SYNCS):
            os.write(handle, bytes(4096))
            began = time.perf_counter()
            os.fdatasync(handle)
            taken.append(time.perf_counter() - began)
    finally:
        os.close(handle)
        path.unlink()
    return statistics.median(taken) * 1e6
