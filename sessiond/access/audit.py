"""The audit log: one line for each administrative action, and a bounded number for calls that were refused."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Protocol

import structlog

from sessiond.domain.audit import FIELDS, AuditRecord
from sessiond.domain.values import Instant

__all__ = ["NO_AUDIT", "Audit", "Write"]

Write = Callable[[Mapping[str, Any]], None]
"""Writes one line. Raises OSError, or ValueError if the log is closed, if the line may be lost."""

_WINDOW = 60.0
_MAX_REFUSED = 60
_MAX_REFUSED_OF_ONE = 10
_MAX_SOURCES = 10_000
_MAX_TEXT = 256
_RUN = re.compile(r"[A-Za-z0-9_-]{40,}")  # the shortest token has 43 such characters, a session id 36
_log = structlog.get_logger(__name__)


class File(Protocol):
    """A file of lines; see `AuditFile`."""

    def write(self, line: Mapping[str, Any]) -> None:
        """Append a line. Raises OSError if it may be lost."""

    def reopen(self) -> None:
        """Go on with the file that has the path now. Raises OSError; lines then go on to the old file."""

    def close(self) -> None:
        """Close the file."""


class Audit:
    """Writes audit lines to the standard log (`to_log`) or, if there is one, to a file of its own.

    `now` is the authority's clock. `call_later` schedules a function after a number of seconds, like `call_later` of an
    event loop; it is called only after a refused call.
    """

    def __init__(
        self,
        to_log: Write,
        file: File | None,
        now: Callable[[], Instant],
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._to_log = to_log
        self._file = file
        self._now = now
        self._call_later = call_later
        self._is_failing = False
        self.not_written = 0
        """How many lines could not be written to the file, since the start."""
        self._refused: Counter[str] = Counter()
        self._refused_of: Counter[tuple[str, str]] = Counter()
        self._left_out: Counter[str] = Counter()

    def record(self, record: AuditRecord) -> bool:
        """Write a line. Never raises. Return whether what it is about may be shown.

        If the file cannot be written, the line goes to the standard log, and this is False. Without a file the standard
        log is all there is, and nothing depends on it.
        """
        line = self._line(record)
        if self._file is None:
            self._write_to_log(line)
            return True
        try:
            self._file.write(line)
        except (OSError, ValueError) as error:
            if not self._is_failing:
                _log.error(
                    "audit file not written",
                    error=str(error),
                    effect="audit lines go to this log; calls that read other people's data are refused",
                )
            self._is_failing = True
            self.not_written += 1
            self._write_to_log(line)
            return False
        if self._is_failing:
            self._is_failing = False
            _log.warning("audit file written again", effect="the lines between are in this log")
        return True

    def refused(self, record: AuditRecord, source: str) -> None:
        """Write a line about a call that was refused, unless there were many. Never raises.

        `source` is who is counted: the caller or, if it is not known, the address without its port. In one minute there
        are at most 10 lines of one source and 60 in all for each outcome, and at the end one with the number left out.
        """
        if not self._refused and not self._left_out:
            self._call_later(_WINDOW, self.end_window)
        key = (record.outcome, source)
        if (
            self._refused[record.outcome] >= _MAX_REFUSED
            or self._refused_of[key] >= _MAX_REFUSED_OF_ONE
            or len(self._refused_of) >= _MAX_SOURCES
        ):
            self._left_out[record.outcome] += 1
            return
        self._refused[record.outcome] += 1
        self._refused_of[key] += 1
        self.record(record)

    def end_window(self) -> None:
        """Write how many refused calls had no line, and start a new window."""
        for outcome, count in self._left_out.items():
            self.record(AuditRecord(target="refused calls without a line", count=count, outcome=outcome))
        for counter in (self._refused, self._refused_of, self._left_out):
            counter.clear()

    def reopen(self) -> None:
        """Go on with a new file, if the old one was renamed. Never raises."""
        try:
            if self._file is not None:
                self._file.reopen()
        except OSError as error:
            _log.error("audit file not opened again", error=str(error), effect="lines go on to the old file")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _line(self, record: AuditRecord) -> dict[str, Any]:
        time = datetime.fromtimestamp(self._now() / 1000, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"log": "audit", "time": time.replace("+00:00", "Z")}
        for field in fields(AuditRecord):
            value = getattr(record, field.name)
            line[FIELDS[field.name]] = _harmless(value) if isinstance(value, str) else value
        return line

    def _write_to_log(self, line: Mapping[str, Any]) -> None:
        try:
            self._to_log(line)
        except (OSError, ValueError):
            return  # standard error is gone, or its disk is full


def _harmless(text: str) -> str:
    """Return a text that shows no token that somebody has put into the wrong field, and is not long."""
    hidden = _RUN.sub(lambda run: _digest_of(run[0]), text)
    return hidden if len(hidden) <= _MAX_TEXT else hidden[: _MAX_TEXT - 3] + "..."


def _digest_of(run: str) -> str:
    # Enough to find a long name again, and nothing from which a secret could be computed.
    return f"({len(run)} characters, SHA-256 {sha256(run.encode()).hexdigest()[:16]})"


NO_AUDIT = Audit(lambda _: None, None, lambda: Instant(0), lambda _, __: None)
"""Writes nothing; for servers that are parts of tests."""
