"""Small files that a running server writes for other programs on its machine."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["write_report"]


def write_report(path: Path, report: Mapping[str, Any]) -> None:
    """Replace a file atomically with a JSON object. Only the owner may read it.

    Raises OSError if it cannot be written; the old file is then unchanged.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    try:
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(json.dumps(report) + "\n")
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
