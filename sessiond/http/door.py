"""Who asks over HTTP: the proxy's key, its limits, and what it is not allowed to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import Scope

from sessiond.access.callers import Callers
from sessiond.access.limits import CallLimiter
from sessiond.domain.call import Caller
from sessiond.http.forward_auth import CALL, KEY_HEADER
from sessiond.http.questions import Headers
from sessiond.rpc.auditing import AuditedCalls

__all__ = ["Door"]


class Door:
    """Identifies proxies by their keys. `limiter` counts the calls of each caller, over gRPC too."""

    def __init__(self, callers: Callers, limiter: CallLimiter | None = None) -> None:
        self._callers = callers
        self._limiter = limiter or CallLimiter()
        self._audited = AuditedCalls(callers.audit)

    @contextmanager
    def asking(self, scope: Scope, headers: Headers) -> Iterator[Caller]:
        """Count one question, and return who asks. Raises `AuthorityError`."""
        keys = [("authorization", key) for key in headers.get(KEY_HEADER)]
        caller = self._audited.identify(CALL, self._callers, _peer(scope), keys)
        account = self._limiter.begin(caller)
        try:
            yield caller
        finally:
            account.end()

    def authorize(self, application: str, caller: Caller) -> None:
        """Raise `NotPermitted` if the caller may not ask about an application."""
        self._audited.authorize_for(CALL, application, caller)


def _peer(scope: Scope) -> str:
    client = scope["client"]
    if client is None:
        return "unix:"
    host, port = client
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"
