"""One call of a gRPC server, as its handler sees it."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, TypeVar

from sessiond_client.gateway import Exchange, RouteRequirements, SessionValues, Steps, account, run, run_async
from sessiond_client.tokens import Token
from sessiond_client.values import Session

__all__ = ["CURRENT", "SessionCall", "current_call", "requires"]

T = TypeVar("T")


class SessionCall:
    """One call and its session. The methods that change the session exist twice, for both kinds of server."""

    def __init__(self, exchange: Exchange, client: Any) -> None:
        self.exchange = exchange
        self._client = client

    @property
    def session(self) -> Session | None:
        """The session; None for a guest."""
        return self.exchange.session

    @property
    def subject(self) -> str:
        """The user who is logged in; empty for a guest."""
        return self.exchange.subject

    @property
    def values(self) -> SessionValues:
        """The session data. Changes are stored when a handler of a single response returns."""
        return self.exchange.values

    def run(self, steps: Steps[T]) -> T:
        """Carry out steps of `sessiond_client.gateway.account`, in a server with threads."""
        return run(self._client, steps)

    async def run_async(self, steps: Steps[T]) -> T:
        """Carry out steps of `sessiond_client.gateway.account`, in an asyncio server."""
        return await run_async(self._client, steps)

    def login(self, subject: str, **options: Any) -> Token:
        """Log in a user; the options are those of `account.login`. Returns the new token, which is sent too."""
        self.run(account.login(self.exchange, subject, **options))
        return self._new_token()

    async def login_async(self, subject: str, **options: Any) -> Token:
        """The same in an asyncio server."""
        await self.run_async(account.login(self.exchange, subject, **options))
        return self._new_token()

    def logout(self) -> None:
        """End the session."""
        self.run(account.logout(self.exchange))

    async def logout_async(self) -> None:
        """The same in an asyncio server."""
        await self.run_async(account.logout(self.exchange))

    def _new_token(self) -> Token:
        token = self.exchange.token
        assert token is not None  # noqa: S101 - a login that returns has one
        return token


CURRENT: ContextVar[SessionCall] = ContextVar("sessiond_call")


def current_call() -> SessionCall:
    """The call that runs. Raises `LookupError` outside of a handler behind an interceptor."""
    return CURRENT.get()


def requires(
    *, level: int = 0, max_age: timedelta | None = None, guests: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a handler that needs more than a user who is logged in. See `RouteRequirements`."""
    requirements = RouteRequirements(level=level, max_age=max_age, guests=guests)

    def decorate(handler: Callable[..., Any]) -> Callable[..., Any]:
        handler.sessiond_requirements = requirements  # type: ignore[attr-defined]  # read by the interceptor
        return handler

    return decorate
