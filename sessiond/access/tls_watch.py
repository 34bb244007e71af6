"""Watching TLS files: new ones are used as soon as they are whole, and bad ones never."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import structlog

from sessiond.access.tls import BadTls, TlsFiles, TlsMaterial, load_tls
from sessiond.domain.values import Instant
from sessiond.system.clock import Clock

__all__ = ["LOOK_EVERY", "TlsWatch"]

_log = structlog.get_logger(__name__)
LOOK_EVERY = 1.0
"""Seconds between two looks at the files."""
_DAY = 86_400_000
_WARN = 14 * _DAY
_RETRY = 60_000
"""Milliseconds after which files that were refused are tried again: a certificate may become valid by itself."""

_Signature = Sequence[tuple[int, ...] | None]


class TlsWatch:
    """The TLS files of one side, read again when they change. `current` is always a whole, valid set.

    A changed set is read once it has not changed for one look, because certificate and key are often written one after
    the other. A certificate is reported when it is loaded, and then every day from 14 days before its end, or from the
    last third of its time if that is shorter.
    """

    def __init__(self, files: TlsFiles, clock: Clock) -> None:
        """Read the files. Raise `BadTls`."""
        self._files = files
        self._clock = clock
        now = clock.now()
        self._tried = self._signature()
        self._lock = threading.Lock()
        self._pending: _Signature | None = None
        self._refused: tuple[str, Instant] | None = None
        self.current = load_tls(files, now)
        self._loaded(now)

    async def run(self, on_change: Callable[[], None] = lambda: None) -> None:
        """Watch until the task is cancelled. `on_change` is called after each change, on this event loop."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            # In a thread, because the files may be on a slow file system.
            if await asyncio.to_thread(self.look, self._clock.now()):
                on_change()

    def look(self, now: Instant, *, at_once: bool = False) -> bool:
        """Look at the files; return whether new ones are in use. `at_once`: also if they changed since the last look.

        If they cannot be used, the log says why, and the set before stays. May be called from any thread.
        """
        with self._lock:
            return self._look(now, at_once=at_once)

    def _look(self, now: Instant, *, at_once: bool) -> bool:
        signature = self._signature()
        changed = signature != self._tried
        retries = self._refused is not None and now - self._refused[1] >= _RETRY
        if changed and not at_once and signature != self._pending:
            self._pending = signature
            return False
        if not changed and not retries and not at_once:
            self._pending = None
            self._remind(now)
            return False
        self._tried, self._pending = signature, None
        try:
            found = load_tls(self._files, now)
        except BadTls as error:
            self._refuse(str(error), now)
            return False
        self._refused = None
        if found == self.current:
            return False
        self.current = found
        self._loaded(now)
        return True

    def look_now(self) -> bool:
        """Look at the files at once; see `look`."""
        return self.look(self._clock.now(), at_once=True)

    def _signature(self) -> _Signature:
        return [_state(os.fspath(path)) for path in self._files.paths()]

    def _refuse(self, problem: str, now: Instant) -> None:
        is_new = self._refused is None or self._refused[0] != problem
        self._refused = (problem, now)
        if is_new:
            _log.error("certificate refused", problem=problem, effect="the files read before stay in use")

    def _loaded(self, now: Instant) -> None:
        self._reminded: Instant | None = None
        self._said_expired = False
        found = self.current
        if found.not_after is not None:
            _log.info("certificate loaded", **_facts(self._files, found), names=list(found.names))
        elif self._files.authorities is not None:
            _log.info("authorities loaded", file=str(self._files.authorities.path))
        self._remind(now)

    def _remind(self, now: Instant) -> None:
        found = self.current
        if found.not_after is None or found.not_before is None:
            return
        facts = _facts(self._files, found)
        if now >= found.not_after:
            if not self._said_expired:
                self._said_expired = True
                _log.error("certificate expired", **facts, remedy="replace the file; no restart is needed")
        elif now >= found.not_after - min(_WARN, (found.not_after - found.not_before) // 3) and (
            self._reminded is None or now - self._reminded >= _DAY
        ):
            self._reminded = now
            _log.warning("certificate expires soon", **facts, remedy="replace the file; no restart is needed")


def _facts(files: TlsFiles, found: TlsMaterial) -> dict[str, Any]:
    assert files.certificate is not None and found.not_after is not None  # noqa: S101, PT018 - for the type checker
    end = datetime.fromtimestamp(found.not_after / 1000, UTC)
    return {"file": str(files.certificate.path), "not_after": end.strftime("%Y-%m-%dT%H:%M:%SZ")}


def _state(path: str) -> tuple[int, ...] | None:
    """Return what changes when a file is replaced, written or opened to others; None if there is none."""
    try:
        found = os.stat(path)  # follows symbolic links
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode)
