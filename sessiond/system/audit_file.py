"""Where audit lines go: the standard log, or a file of their own."""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

__all__ = ["AuditFile", "BadAuditFile", "write_to_log"]

# The setting `log.level` must not hide audit lines.
_log = structlog.wrap_logger(None, wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET))


class BadAuditFile(OSError):
    """The audit file cannot be opened, or others than its owner may write to it."""


def write_to_log(line: Mapping[str, Any]) -> None:
    """Write an audit line to the standard log, whatever its level. Raises OSError or ValueError."""
    _log.info("audit", **line)


class AuditFile:
    """A file to which lines of JSON are appended. Opened at once; raises `BadAuditFile`.

    A new file has the mode 0600. Each line is written by one call of the system, so it is there after a crash of this
    process, and of the lines of two processes none is torn.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_torn = False
        self._handle = self._open()

    def write(self, line: Mapping[str, Any]) -> None:
        """Append a line. Raises OSError if it is not in the file, or only a part of it."""
        raw = json.dumps(line).encode() + b"\n"
        if self._is_torn:
            raw = b"\n" + raw  # so that what is left of a line does not spoil this one too
        written = os.write(self._handle, raw)
        self._is_torn = written != len(raw) and (written > 0 or self._is_torn)
        if written != len(raw):
            raise OSError(f"only {written} of {len(raw)} bytes could be written")

    def reopen(self) -> None:
        """Open the file again under its path: a new one, if the old one was renamed.

        Raises `BadAuditFile`. Lines then go on to the old file.
        """
        handle, self._handle = self._handle, self._open()
        self._is_torn = False
        with suppress(OSError):
            os.close(handle)

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            handle = os.open(self._path, flags, 0o600)
        except OSError as error:
            raise BadAuditFile(
                f"log.audit_file: {self._path} cannot be opened: {error.strerror}; name a file, not a link, in a "
                "folder that the server may write to"
            ) from error
        found = os.fstat(handle)
        problem = ""
        if not stat.S_ISREG(found.st_mode):
            problem = "is not a regular file; name another one"
        elif found.st_mode & 0o022:
            problem = "may be written by others than its owner, who could change the past; run: chmod go-w"
        if problem:
            os.close(handle)
            raise BadAuditFile(f"log.audit_file: {self._path} {problem}")
        return handle
