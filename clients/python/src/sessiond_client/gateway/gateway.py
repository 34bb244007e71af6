"""What all requests of one application share: its settings, the names of its cookies, and its latest changes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from sessiond_client.answers import Authority
from sessiond_client.errors import SessiondError
from sessiond_client.gateway.cookies import CookieNames
from sessiond_client.gateway.recent import IN_FLIGHT_SECONDS, RecentChanges
from sessiond_client.gateway.settings import GatewaySettings
from sessiond_client.gateway.steps import Ask, Steps
from sessiond_client.gateway.values import JSON, Codec

__all__ = ["Gateway", "PolicyFacts"]

_REREAD_SECONDS = 300.0
"""How long the names of the cookies are used before they are read again."""


@dataclass(frozen=True, slots=True)
class PolicyFacts:
    """What the gateway must know of the application's policy."""

    cookies: CookieNames
    lock_seconds: int
    """How long a locked network stays locked."""


class Gateway:
    """One application's use of sessions. Safe to share between threads and tasks; makes no calls itself."""

    def __init__(
        self,
        application: str = "",
        settings: GatewaySettings | None = None,
        *,
        codec: Codec = JSON,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` returns seconds of a monotonic clock."""
        self.settings = settings or GatewaySettings()
        self.codec = codec
        self.clock = clock
        self.recent = RecentChanges(clock)
        self.replaced = RecentChanges(clock, IN_FLIGHT_SECONDS)
        """Tokens in whose place clients have just got other ones."""
        self._application = application or "default"
        self._facts: PolicyFacts | None = None
        self._reread_at = 0.0

    @property
    def lock_seconds(self) -> int:
        """How long a locked network stays locked; 0 if that is not known yet."""
        return self._facts.lock_seconds if self._facts is not None else 0

    @property
    def cookie_names(self) -> CookieNames | None:
        """The names of the session cookies; None if no request has needed them yet."""
        return self.settings.cookie_names or (self._facts.cookies if self._facts is not None else None)

    def facts(self) -> Steps[PolicyFacts]:
        """Read the policy, now and then. If that fails later, what is known stays; at first it raises."""
        if self.settings.cookie_names is not None:
            return PolicyFacts(self.settings.cookie_names, 0)
        known, now = self._facts, self.clock()
        if known is not None and now < self._reread_at:
            return known
        if known is not None:
            self._reread_at = now + _REREAD_SECONDS  # one request reads it; the others go on with what is known
        try:
            answer: Authority = yield Ask("authority")
        except SessiondError:
            if known is None:
                raise
            return known
        self._reread_at = now + _REREAD_SECONDS
        self._facts = self._facts_in(answer)
        return self._facts

    def _facts_in(self, answer: Authority) -> PolicyFacts:
        for application in answer.applications:
            if application.name == self._application:
                policy = application.policy
                names = CookieNames(policy.cookie.browser_name, policy.cookie.browser_anonymous_name)
                return PolicyFacts(names, int(policy.guessing.lock_time.total_seconds()))
        known = ", ".join(application.name for application in answer.applications)
        raise ValueError(f"unknown application {self._application!r} (configured: {known})")
