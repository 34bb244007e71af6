"""The session engine: `SESSION_ENGINE = "sessiond_client.contrib.django.backend"`."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.utils.module_loading import import_string

from sessiond_client.contrib.django.configuration import project
from sessiond_client.contrib.django.expiry import BoundedExpiry
from sessiond_client.contrib.django.secrets import SecretText
from sessiond_client.contrib.django.state import SessionState
from sessiond_client.contrib.django.visit import Visit, by_key
from sessiond_client.gateway import SessionValues
from sessiond_client.values import Session

__all__ = ["SessionStore"]


class SessionStore(BoundedExpiry):
    """Django's session, kept by sessiond. `request.session` is one; `SessionStore(key)` opens one outside of requests.

    `session_key` is the session's token: a secret, which changes at logins and renewals. To refer to a session, use
    `session_id`, which is public and stays. Values that were changed in place are stored too; `modified` need not be
    set.
    """

    def __init__(self, session_key: str | None = None, *, visit: Visit | None = None) -> None:
        """`visit`: that of the request to which this session belongs."""
        self.accessed = False
        self.modified = False
        self.serializer = import_string(settings.SESSION_SERIALIZER)
        if visit is None:
            self._session_key = session_key
        else:
            self._key: SecretText | None = None
            self._state = SessionState(visit, waits=True)

    @property
    def state(self) -> SessionState:
        """What is done to the session, as steps."""
        return self._state

    @property
    def session_id(self) -> str | None:
        """The public identifier of the session, for logs and administration; None if there is none."""
        self._open()
        session = self._state.exchange.session
        return session.session_id if session is not None and self._state.has_session else None

    @property
    def _known(self) -> Session | None:
        return self._state.exchange.session

    # The key

    @property
    def session_key(self) -> str | None:
        """The session's token, which is a secret; None if there is no session."""
        return self._get_key()

    @property
    def _session_key(self) -> str | None:
        return self._get_key()

    @_session_key.setter
    def _session_key(self, value: str | None) -> None:
        self._key = SecretText(value) if self._validate_session_key(value) and value is not None else None
        self._state = SessionState(by_key(project(), self._key), waits=False)

    def _get_key(self) -> str | None:
        visit = self._state.visit
        if self._key is not None and not visit.opened:
            return self._key  # as it was given
        if self._key is None and not visit.opened and not self._is_of_request:
            return None
        self._open()
        token = visit.exchange.token
        return SecretText(token.reveal()) if token is not None and self._state.has_session else None

    @property
    def _is_of_request(self) -> bool:
        return self._state.visit.exchange.gateway is not self._state.visit.project.gateway_by_key

    # The data

    def _open(self) -> None:
        self._state.visit.open()
        self._state.visit.admit()

    async def _aopen(self) -> None:
        await self._state.visit.aopen()
        self._state.visit.admit()

    def _get_session(self, no_load: bool = False) -> SessionValues:
        self.accessed = True
        self._open()
        return self._state.values

    async def _aget_session(self, no_load: bool = False) -> SessionValues:
        self.accessed = True
        await self._aopen()
        return self._state.values

    _session = property(_get_session)

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self._note(key)

    async def aset(self, key: str, value: Any) -> None:
        """Assign a value."""
        await super().aset(key, value)
        self._note(key)

    def _note(self, key: str) -> None:
        self._state.has_new_user = self._state.has_new_user or key == SESSION_KEY

    def clear(self) -> None:
        """Remove all values."""
        self._session.clear()
        self.modified = True

    def is_empty(self) -> bool:
        """Whether there is neither a session nor a value."""
        self._open()
        return not self._state.has_session and not self._state.values

    def load(self) -> dict[str, Any]:
        """What is stored now."""
        if not self._state.visit.opened:
            self._open()
            return dict(self._state.values)
        return self._state.visit.run(self._state.read_again())

    async def aload(self) -> dict[str, Any]:
        """As `load`."""
        if not self._state.visit.opened:
            await self._aopen()
            return dict(self._state.values)
        return await self._state.visit.arun(self._state.read_again())

    def save(self, must_create: bool = False) -> None:
        """Store everything now, and open a session if there is none. At the end of a request this happens by itself.

        Raises `UpdateError` if the session has ended.
        """
        self._open()
        self.modified = self.modified or not self._state.has_session
        self._state.visit.run(self._state.save(must_create=must_create))

    async def asave(self, must_create: bool = False) -> None:
        """As `save`."""
        await self._aopen()
        self.modified = self.modified or not self._state.has_session
        await self._state.visit.arun(self._state.save(must_create=must_create))

    # Beginning and end

    def exists(self, session_key: str | None) -> bool:
        """Whether there is a live session with this key."""
        return self._state.visit.run(self._state.exists(session_key))

    async def aexists(self, session_key: str | None) -> bool:
        """As `exists`."""
        return await self._state.visit.arun(self._state.exists(session_key))

    def create(self) -> None:
        """Open a session now, so that there is a `session_key`."""
        self._open()
        self.modified = True
        self._state.visit.run(self._state.create())

    async def acreate(self) -> None:
        """As `create`."""
        await self._aopen()
        self.modified = True
        await self._state.visit.arun(self._state.create())

    def delete(self, session_key: str | None = None) -> None:
        """End a session. When it returns, nothing accepts the key any more."""
        self._state.visit.run(self._state.delete(session_key))

    async def adelete(self, session_key: str | None = None) -> None:
        """As `delete`."""
        await self._state.visit.arun(self._state.delete(session_key))

    def flush(self) -> None:
        """Remove all values and end the session: in a request, before the response is sent."""
        self._open()
        self._flushed()
        self._state.visit.run(self._state.flush())
        self._forget_key()

    async def aflush(self) -> None:
        """As `flush`."""
        await self._aopen()
        self._flushed()
        await self._state.visit.arun(self._state.flush())
        self._forget_key()

    def _flushed(self) -> None:
        self.accessed = self.modified = True

    def _forget_key(self) -> None:
        if not self._is_of_request:
            self._session_key = None

    def cycle_key(self) -> None:
        """Replace the key, and keep the data."""
        self._open()
        self._state.visit.run(self._state.cycle())

    async def acycle_key(self) -> None:
        """As `cycle_key`."""
        await self._aopen()
        await self._state.visit.arun(self._state.cycle())

    @classmethod
    def clear_expired(cls) -> None:
        """Nothing to do: the authority ends sessions itself."""

    @classmethod
    async def aclear_expired(cls) -> None:
        """As `clear_expired`."""
