"""Who asks over HTTP: the proxy's key, its limits, and what it is not allowed to do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import structlog
from starlette.requests import HTTPConnection

from sessiond.access.callers import Callers
from sessiond.access.limits import CallLimiter
from sessiond.domain.call import Caller
from sessiond.domain.errors import AuthorityError, InvalidField
from sessiond.rpc.auditing import AuditedCalls

__all__ = ["KEY_HEADER", "Door"]

KEY_HEADER = "x-session-key"
"""In which the proxy sends its own key, as `Bearer KEY`. `Authorization` is the client's."""
_CALL = "Check"
"""As which call a question counts, for roles and in the audit log: it is Envoy's in another form."""
_AUTHORIZATION = "authorization"
_WINDOW, _MOST_WARNINGS = 60.0, 100
"""Seconds in which no reason is logged twice, and how many reasons at most."""
_log = structlog.get_logger(__name__)


class Door:
    """Identifies proxies. `limiter` counts the calls of each caller, over gRPC too."""

    def __init__(self, callers: Callers, limiter: CallLimiter | None = None) -> None:
        self._callers = callers
        self._limiter = limiter or CallLimiter()
        self._audited = AuditedCalls(callers.audit)
        self._warned: set[str] = set()

    def identify(self, connection: HTTPConnection, keys: Sequence[str]) -> Caller:
        """Return who asks. `keys`: the values of the header with the key. Raises `AuthorityError`."""
        client = connection.client
        peer = "unix:" if client is None else _peer(client.host, client.port)
        return self._audited.identify(_CALL, self._callers, peer, [(_AUTHORIZATION, key) for key in keys])

    @contextmanager
    def asking(self, caller: Caller, application: str) -> Iterator[None]:
        """Count one question of a caller about an application. Raises `AuthorityError` if it may not ask."""
        account = self._limiter.begin(caller)
        try:
            self._audited.authorize_for(_CALL, application, caller)
            yield
        finally:
            account.end()

    def warn(self, error: AuthorityError) -> None:
        """Log why a proxy cannot ask."""
        self.warn_of(f"{error.field}: {error.remedy}" if isinstance(error, InvalidField) else error.public)

    def warn_of(self, reason: str) -> None:
        """Log why a proxy cannot ask, once a minute for each reason: it asks about every request."""
        if reason in self._warned or len(self._warned) >= _MOST_WARNINGS:
            return
        if not self._warned:
            asyncio.get_running_loop().call_later(_WINDOW, self._warned.clear)
        self._warned.add(reason)
        _log.warning("proxy refused", reason=reason, effect="it lets no request pass")


def _peer(host: str, port: int) -> str:
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"
