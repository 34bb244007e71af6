"""Answers to proxies that cannot ask, and warnings about it that do not fill the log: they ask about every request."""

from __future__ import annotations

import asyncio

import structlog

from sessiond.domain.errors import AuthorityError, InvalidField, Overloaded, Unavailable
from sessiond.http.answers import Answer, misconfigured, try_again

__all__ = ["LoggedRefusals"]

_WINDOW, _MOST_REASONS = 60.0, 100
"""Seconds in which no reason is logged twice, and how many reasons at most."""
_log = structlog.get_logger(__name__)


class LoggedRefusals:
    """Refuses questions, and logs each reason once a minute."""

    def __init__(self) -> None:
        self._reasons: set[str] = set()

    def after(self, error: AuthorityError) -> Answer:
        """Return the answer to a question that failed with this error."""
        if isinstance(error, (Unavailable, Overloaded)):
            return try_again()
        return self.because(f"{error.field}: {error.remedy}" if isinstance(error, InvalidField) else error.public)

    def because(self, reason: str) -> Answer:
        """Return the answer to a question that the proxy is not set up to ask. The log has the reason."""
        if self._is_new(reason):
            _log.warning("proxy refused", reason=reason, effect="it lets no request pass")
        return misconfigured()

    def _is_new(self, reason: str) -> bool:
        if reason in self._reasons or len(self._reasons) >= _MOST_REASONS:
            return False
        if not self._reasons:
            asyncio.get_running_loop().call_later(_WINDOW, self._reasons.clear)
        self._reasons.add(reason)
        return True
