"""What the pages need of sessions. Each form of the shop has its own way to get it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

__all__ = ["ADMIN_AGE", "ADMIN_LEVEL", "PURPOSE", "Sessions", "Visitor"]

PURPOSE = "profile"
"""The purpose of the companion token that the page for changing the profile needs."""
ADMIN_LEVEL, ADMIN_AGE = 2, timedelta(minutes=15)
"""What the admin's page needs: a second factor, and a login that is not older than this."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks for a page. `subject`: empty for a guest."""

    subject: str
    level: int = 0


class Sessions(Protocol):
    """Who is there, and what a login changes. Each method that raises ends the request with an answer of its own."""

    async def visitor(self, connection: HTTPConnection) -> Visitor:
        """Who asks."""
        ...

    async def csrf_token(self, request: Request) -> str:
        """What each form of a page must have in the field `csrf_token`; empty: forms need none."""
        ...

    async def require_login(self, connection: HTTPConnection) -> str:
        """The user who is logged in. Must raise for a guest."""
        ...

    async def require_admin(self, request: Request) -> str:
        """The same, for a login of `ADMIN_LEVEL` not older than `ADMIN_AGE`."""
        ...

    async def require_confirmation(self, request: Request) -> str:
        """The same, for a user who has just confirmed the password (see `confirm`)."""
        ...

    async def log_in(
        self, request: Request, response: Response, subject: str, level: int, methods: Sequence[str]
    ) -> None:
        """Log in a user whom the page has authenticated, or note a further authentication. The cart stays."""
        ...

    async def prepare_login(self, request: Request, response: Response) -> None:
        """Called for each login page, so that two clicks on its button lead to one login."""
        ...

    async def confirm(self, request: Request, response: Response) -> None:
        """Give the user's browser the companion cookie for `PURPOSE`."""
        ...

    async def cart(self, request: Request) -> list[str]:
        """The articles in the visitor's cart."""
        ...

    async def keep_cart(self, request: Request, response: Response, items: list[str]) -> None:
        """Replace what is in the visitor's cart."""
        ...
