"""What `flask.session` is, and how a request of WSGI is seen by the gateway."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from flask import session
from flask.sessions import SessionMixin
from flask.wrappers import Request
from werkzeug.exceptions import HTTPException

from sessiond_client.contrib.clients import ClientPerProcess
from sessiond_client.gateway import Action, Exchange, Gateway, SessionValues, Steps, WebRequest, run

__all__ = ["SessiondSession", "here"]

T = TypeVar("T")


class SessiondSession(SessionMixin):
    """What `flask.session` is. Changes inside of a value count without `session.modified = True`."""

    def __init__(self, gateway: Gateway, clients: ClientPerProcess, request: Request) -> None:
        self._gateway = gateway
        self._clients = clients
        self._request = request
        self._is_open = self._is_saved = self._is_modified = False
        self.unreadable: HTTPException | None = None
        """Why the form of the request could not be read, such as `RequestEntityTooLarge`."""
        self.exchange = self._begin()
        """The request and its response, as the gateway sees them. Call `open` first."""

    def open(self, *, csrf: bool | None = None) -> None:
        """Ask about the session, once.

        `csrf`: whether the CSRF token is required. None: as method and settings say. If the token turned out to be
        missing, but none is required, this asks again: a URL converter that reads the session opens it before the view
        is known.
        """
        if self._is_open and (csrf is not False or self.exchange.gate() is not Action.CSRF_ERROR):
            return
        if self._is_open:
            self.exchange = self._begin()
        self._is_open = True
        self.run(self.exchange.open(csrf=csrf))

    def save(self) -> None:
        """Store what was changed. Does nothing the second time: Flask calls it again for the page of an error."""
        if not self._is_saved:
            self._is_saved = True
            self.run(self.exchange.save())

    def run(self, steps: Steps[T]) -> T:
        """Carry out steps of the gateway."""
        return run(self._clients.get(), steps)

    @property
    def new(self) -> bool:  # type: ignore[override]
        """Whether the request came without a live session."""
        answer = self._opened().validation
        return answer is None or not answer.valid

    @property
    def modified(self) -> bool:
        """Whether something was assigned, deleted or changed. What is written is found by comparing instead."""
        return self._is_modified or bool(self._data.changes())

    @modified.setter
    def modified(self, value: bool) -> None:
        self._is_modified = value

    @property
    def accessed(self) -> bool:
        """Whether the response depends on the session."""
        return self.exchange.accessed or self.exchange.values.accessed

    @accessed.setter
    def accessed(self, value: bool) -> None:
        self.exchange.accessed = value

    def clear(self) -> None:
        """Remove all values. This is no logout: use `logout`."""
        self._is_modified = True
        self._data.clear()

    def __getitem__(self, key: str) -> Any:
        return self._data[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._is_modified = True
        self._data[key] = value

    def __delitem__(self, key: str) -> None:
        del self._data[key]
        self._is_modified = True

    def __contains__(self, key: object) -> bool:
        return key in self._data

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"  # what the data says is the user's business, not a log's

    @property
    def _data(self) -> SessionValues:
        return self._opened().values

    def _opened(self) -> Exchange:
        self.open()
        return self.exchange

    def _begin(self) -> Exchange:
        return Exchange(self._gateway, _web_request(self._request, self._form_token))

    def _form_token(self) -> str | None:
        try:
            return self._request.form.get(self._gateway.settings.csrf_field)
        except HTTPException as error:
            self.unreadable = error
            return None


def _web_request(request: Request, form_token: Callable[[], str | None]) -> WebRequest:
    environ = request.environ

    def headers(name: str) -> Sequence[str]:
        # A server joins headers of one name by commas, as the gateway expects it.
        value = environ.get(_environ_name(name))
        return () if value is None else (value,)

    peer = environ.get("REMOTE_ADDR", "")  # waitress says localhost if the connection is a Unix socket's
    return WebRequest(
        method=request.method,
        path=request.root_path + request.path,
        query=environ.get("QUERY_STRING", ""),
        host=environ.get("HTTP_HOST", ""),
        peer="" if peer == "localhost" else peer,
        headers=headers,
        form_token=form_token,
    )


@lru_cache(maxsize=64)
def _environ_name(header: str) -> str:
    return "HTTP_" + header.upper().replace("-", "_")


def here() -> SessiondSession:
    """The session of this request, opened."""
    found: Any = session._get_current_object()  # type: ignore[attr-defined]
    if not isinstance(found, SessiondSession):
        raise RuntimeError("this application has no sessions of sessiond; set it up with Sessiond(app)")
    found.open()
    return found
