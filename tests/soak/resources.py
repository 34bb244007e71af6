"""What a process takes from its machine, as Linux shows it."""

from __future__ import annotations

from pathlib import Path

__all__ = ["resources"]


def resources(process: int | str) -> dict[str, int]:
    """Resident bytes, threads and open descriptors of a process, by its id; `self`: this one."""
    folder = Path(f"/proc/{process}")
    status = dict(line.split(":", 1) for line in (folder / "status").read_text(encoding="ascii").splitlines())
    return {
        "resident": int(status["VmRSS"].split()[0]) * 1024,
        "threads": int(status["Threads"]),
        "descriptors": len(list((folder / "fd").iterdir())),
    }
