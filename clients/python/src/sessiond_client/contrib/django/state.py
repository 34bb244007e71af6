"""What Django does to a session, as steps of the gateway: without I/O, so that both kinds of views share it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.backends.base import UpdateError
from django.utils import timezone

from sessiond_client.answers import Data, Found, Revoked
from sessiond_client.contrib.django.visit import USER_KEYS, Visit
from sessiond_client.enums import Verdict
from sessiond_client.errors import SessiondError
from sessiond_client.gateway import Ask, Exchange, Refused, SessionValues, Steps, account
from sessiond_client.values import Lifetimes

__all__ = ["SessionState"]

EXPIRY_KEY = "_session_expiry"
"""The key in which Django's `set_expiry` keeps what it was given."""

_REASON = "ended by the application"


class SessionState:
    """The session of a visit, and what must still be done about it.

    In a request, `flush` and the `cycle_key` of a guest wait until the response, or until a login, which replaces the
    token in any case. So a login is one call, and two clicks that send the same cookie lead to one session.
    """

    def __init__(self, visit: Visit, *, waits: bool) -> None:
        self.visit = visit
        self.login_options: Mapping[str, Any] = {}
        """For the login under way: how the user was authenticated, as for `account.login`."""
        self.has_new_user = False
        """Whether a user was assigned who is not the session's subject yet."""
        self.was_deleted = False
        self._waits = waits
        self._flush_waits = False
        self._cycle_waits = False
        self._expiry: Any = None
        self._opened = False

    @property
    def exchange(self) -> Exchange:
        """The exchange of the visit."""
        return self.visit.exchange

    @property
    def values(self) -> SessionValues:
        """The session data, of a visit that was opened."""
        if not self._opened:
            self._opened = True
            self._expiry = self.exchange.values.get(EXPIRY_KEY)
        return self.exchange.values

    @property
    def has_session(self) -> bool:
        """Whether there is a session, of a visit that was opened."""
        return self.exchange.session is not None and not self._flush_waits

    def save(self, *, must_create: bool) -> Steps[None]:
        """Store everything now. Raises `UpdateError` if the session has ended."""
        if self.was_deleted:
            raise UpdateError
        yield from self.settle()
        yield from self._set_user()
        if must_create or self.exchange.session is None:
            yield from self.create()
        elif not (yield from self.exchange.save()):
            raise UpdateError
        yield from self._set_expiry()

    def finish(self, *, data: bool, modified: bool) -> Steps[None]:
        """Do what waits for the response, and store what was changed if `data` is true.

        Raises `UpdateError` if the session has ended, or if it was deleted after it was modified.
        """
        yield from self.settle()
        if not data:
            return
        if self.was_deleted and modified:
            raise UpdateError
        yield from self._set_user()
        if not (yield from self.exchange.save()) and self.exchange.session is not None:
            raise UpdateError
        yield from self._set_expiry()

    def settle(self) -> Steps[None]:
        """Do now what would wait for the response."""
        if self._flush_waits:
            kept = dict(self.values)
            yield from account.logout(self.exchange)
            self._flush_waits = False
            self.values.update(kept)
        if self._cycle_waits:
            self._cycle_waits = False
            with suppress(Refused):  # a guest's session that has ended: saving it reports that
                yield from self._roll()

    def create(self) -> Steps[None]:
        """Open a session with the present values. A session that there was stays as it is, and is left."""
        exchange, values = self.exchange, self.values
        seconds = self._seconds_left()
        if exchange.keeps_cookie or (seconds is not None and seconds <= 0):
            return
        if exchange.session is not None:
            values.as_unstored()
        changes = values.changes()
        created = yield Ask("create", kwargs={"client": exchange.client, "data": changes.set})
        exchange.adopt(created)
        values.written(changes)
        self.was_deleted = False
        self._expiry = None

    def flush(self) -> Steps[None]:
        """Remove all values, and end the session: also one that cannot be used now, because it is under suspicion."""
        self.values.clear()
        self.has_new_user = self._cycle_waits = False
        if self.exchange.token is None:
            self.values.forget_all()
        elif self._waits:
            self._flush_waits = True
        else:
            yield from self._revoke()
            self.exchange.leave()

    def cycle(self) -> Steps[None]:
        """Replace the token."""
        session = self.exchange.session
        if session is None or self._flush_waits:
            return
        if self._waits and not session.subject:
            self._cycle_waits = True
        else:
            yield from self._roll()

    def delete(self, key: str | None) -> Steps[None]:
        """End the session with this key; None: this one."""
        own = self.exchange.token.reveal() if self.exchange.session is not None and self.exchange.token else None
        if key is None or key == own:
            if own is not None and not self.was_deleted:
                yield from self._revoke()
        else:
            yield Ask("revoke", kwargs={"token": key, "reason": _REASON, "wait_for_caches": True})

    def exists(self, key: str | None) -> Steps[bool]:
        """Whether there is a live session with this key."""
        if not key:
            return False
        found: Found = yield Ask("get", kwargs={"token": key})
        return found.verdict is Verdict.VALID

    def read_again(self) -> Steps[dict[str, Any]]:
        """What is stored now. Empty if the session has ended."""
        if self.exchange.session is None:
            return {}
        answer: Data = yield Ask("get_data", kwargs={"token": self.exchange.token})
        stored = answer.data if answer.verdict is Verdict.VALID else {}
        return dict(SessionValues(stored, self.exchange.gateway.codec))

    def log_in(self) -> Steps[None]:
        """Make the user of Django's login the subject of the session, in one call. If it fails, nobody is logged in."""
        exchange, values = self.exchange, self.values
        subject: str = values[SESSION_KEY]
        # What was assigned after a flush is the new session's. Of a session of another user only the login is kept.
        kept = {key: values[key] for key in (list(values) if self._flush_waits else USER_KEYS) if key in values}
        try:
            yield from account.login(exchange, subject, **self.login_options)
        except (Refused, SessiondError):
            self.has_new_user = False
            if exchange.session is None or exchange.session.subject != subject or self._flush_waits:
                for key in USER_KEYS:
                    values.pop(key, None)
            raise
        values.update({key: value for key, value in kept.items() if key not in values})
        self.has_new_user = self._flush_waits = self._cycle_waits = self.was_deleted = False
        self._expiry = None

    def _set_user(self) -> Steps[None]:
        """Log in a user that something else than Django's login has put into the session."""
        subject = self.exchange.session.subject if self.exchange.session is not None else ""
        if SESSION_KEY in self.values and (self.has_new_user or self.values[SESSION_KEY] != subject):
            yield from self.log_in()

    def _roll(self) -> Steps[None]:
        if self.exchange.session is not None:
            yield from account.roll(self.exchange, "cycle_key")

    def _revoke(self) -> Steps[None]:
        kwargs = {"token": self.exchange.token, "reason": _REASON, "wait_for_caches": True}
        answer: Revoked = yield Ask("revoke", kwargs=kwargs)
        self.exchange.take_cookies(answer)
        self.was_deleted = True

    def _set_expiry(self) -> Steps[None]:
        """Shorten the session's timeouts as `set_expiry` said."""
        expiry = self.values.get(EXPIRY_KEY)
        if self.exchange.session is None or expiry == self._expiry:
            return
        seconds = self._seconds_left()
        if seconds is not None and seconds <= 0:
            yield from self._revoke()
            self.exchange.leave()
            self.was_deleted = False
            return
        span = timedelta(seconds=max(seconds, 1)) if seconds is not None else None
        lifetimes = Lifetimes(absolute_timeout=span) if isinstance(expiry, str) else Lifetimes(idle_timeout=span)
        kwargs = {"client": self.exchange.client, "lifetimes": lifetimes}
        answer = yield Ask("refresh", (self.exchange.token,), kwargs)
        self._expiry = expiry
        if answer.session is not None:
            self.exchange.session = answer.session

    def _seconds_left(self) -> float | None:
        """How long the session may live by `set_expiry`; None: as the policy says."""
        expiry = self.values.get(EXPIRY_KEY)
        if not expiry:  # None, or 0: until the browser is closed
            return None
        if isinstance(expiry, str):
            return (_aware(datetime.fromisoformat(expiry)) - _aware(timezone.now())).total_seconds()
        return float(expiry)


def _aware(time: datetime) -> datetime:
    return timezone.make_aware(time) if timezone.is_naive(time) else time.astimezone(UTC)
