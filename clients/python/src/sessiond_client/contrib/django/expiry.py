"""When a session ends: what `set_expiry` asked for, but no more than the authority allows."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django.utils import timezone

from sessiond_client.values import Session

__all__ = ["BoundedExpiry"]


class BoundedExpiry(SessionBase):  # type: ignore[misc]  # Django has no types
    """Django's methods about expiry, bounded by the deadlines of the session as it was last seen."""

    @property
    def _known(self) -> Session | None:
        """The session as it was last seen; None if there is none, or if it was not opened yet."""
        raise NotImplementedError

    def get_expiry_age(self, **kwargs: Any) -> Any:
        """In how many seconds the session ends without activity: never more than the authority allows it."""
        age = super().get_expiry_age(**kwargs)
        return age if kwargs else self._bounded_age(age)

    async def aget_expiry_age(self, **kwargs: Any) -> Any:
        """As `get_expiry_age`."""
        age = await super().aget_expiry_age(**kwargs)
        return age if kwargs else self._bounded_age(age)

    def get_expiry_date(self, **kwargs: Any) -> datetime:
        """When the session ends without activity: never later than the authority allows it."""
        date: datetime = super().get_expiry_date(**kwargs)
        return date if kwargs else self._bounded_date(date)

    async def aget_expiry_date(self, **kwargs: Any) -> datetime:
        """As `get_expiry_date`."""
        date: datetime = await super().aget_expiry_date(**kwargs)
        return date if kwargs else self._bounded_date(date)

    def get_expire_at_browser_close(self) -> bool:
        """Whether the cookie ends with the browser's own session."""
        closes: bool = super().get_expire_at_browser_close()
        session = self._known
        return closes if session is None else not session.persistent

    async def aget_expire_at_browser_close(self) -> bool:
        """As `get_expire_at_browser_close`."""
        closes: bool = await super().aget_expire_at_browser_close()
        session = self._known
        return closes if session is None else not session.persistent

    def _bounded_age(self, age: Any) -> Any:
        deadline = self._deadline()
        return age if deadline is None else min(age, int((deadline - timezone.now()).total_seconds()))

    def _bounded_date(self, date: datetime) -> datetime:
        deadline = self._deadline()
        return date if deadline is None else min(date, deadline)

    def _deadline(self) -> datetime | None:
        """When the session ends by what is known, in the form of `timezone.now()`."""
        session = self._known
        known = (session.idle_expire_time, session.absolute_expire_time) if session is not None else ()
        ends = [end for end in known if end is not None]
        if not ends:
            return None
        return min(ends) if settings.USE_TZ else timezone.make_naive(min(ends))
