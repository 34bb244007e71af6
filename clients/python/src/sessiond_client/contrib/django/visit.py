"""A request's use of its session: an exchange that is opened when something first needs it."""

from __future__ import annotations

import base64
import secrets
from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.core.exceptions import DisallowedHost
from django.http import UnreadablePostError

from sessiond_client.contrib.django.configuration import Project
from sessiond_client.gateway import SAFE_METHODS, Action, Exchange, Steps, WebRequest, routes, run, run_async
from sessiond_client.tokens import Token

__all__ = ["USER_KEYS", "Visit", "by_key", "masked", "of_request"]

T = TypeVar("T")

USER_KEYS = (SESSION_KEY, BACKEND_SESSION_KEY, HASH_SESSION_KEY)
"""The keys in which Django's login keeps the user."""

_MASKED_LENGTH = 115
"""A CSRF token has 43 characters; with a mask of the same length 86, in base64 115."""


class Visit:
    """One exchange, carried out by the client that fits the caller: with or without `await`."""

    def __init__(self, project: Project, exchange: Exchange, request: Any = None) -> None:
        self.project = project
        self.exchange = exchange
        self.opened = False
        self.is_refused = False
        """Whether the response is a refusal. What handles the response further sees a guest."""
        self._request = request

    @property
    def csrf_field(self) -> str:
        """The form field of the CSRF token."""
        return self.exchange.gateway.settings.csrf_field

    @property
    def has_csrf_header(self) -> bool:
        """Whether the request has the header of the CSRF token."""
        return bool(self.exchange.request.headers(self.exchange.gateway.settings.csrf_header.lower()))

    def open(self, *, csrf: bool | None = False) -> None:
        """Ask about the session, unless that was done. `csrf` as for `Exchange.open`."""
        if not self.opened:
            run(self.project.clients.get(), self._opening(csrf))

    async def aopen(self, *, csrf: bool | None = False) -> None:
        """As `open`. A form is read in a thread."""
        if not self.opened:
            await self._read_form(csrf)
            await run_async(self.project.async_clients.get(), self._opening(csrf))

    def run(self, steps: Steps[T]) -> T:
        """Carry out steps, after opening the session."""
        self.open()
        return run(self.project.clients.get(), steps)

    async def arun(self, steps: Steps[T]) -> T:
        """As `run`."""
        await self.aopen()
        return await run_async(self.project.async_clients.get(), steps)

    def guard(self, *, csrf: bool | None) -> Action:
        """Whether a view may run. `csrf` as for `Exchange.open`."""
        if self.opened and csrf is None:
            return run(self.project.clients.get(), routes.check_csrf(self.exchange))
        self.open(csrf=csrf)
        return self.exchange.gate()

    async def aguard(self, *, csrf: bool | None) -> Action:
        """As `guard`."""
        if self.opened and csrf is None:
            await self._read_form(csrf)
            return await run_async(self.project.async_clients.get(), routes.check_csrf(self.exchange))
        await self.aopen(csrf=csrf)
        return self.exchange.gate()

    def admit(self) -> None:
        """Raise `Refused` if the session was opened and nothing may be served."""
        if not self.is_refused and self.opened:
            action = self.exchange.gate()
            if action is not Action.PROCEED:
                if self._request is None and self.exchange.failure is not None:
                    raise self.exchange.failure
                raise self.exchange.refuse(action)

    def _opening(self, csrf: bool | None) -> Steps[None]:
        yield from self.exchange.open(csrf=csrf)
        self.opened = True
        values, session = self.exchange.values, self.exchange.session
        if session is not None and values.get(SESSION_KEY, session.subject) != session.subject:
            for key in USER_KEYS:  # not written by a login: nobody is logged in as another user than the session's
                values.pop(key, None)

    async def _read_form(self, csrf: bool | None) -> None:
        if csrf is not False and self._request is not None and self._request.method == "POST":
            await sync_to_async(form_token, thread_sensitive=True)(self._request, self.csrf_field)


def of_request(project: Project, request: Any) -> Visit:
    """The visit of a request."""
    settings = project.gateway.settings
    csrf_header = settings.csrf_header.lower()

    def headers(name: str) -> tuple[str, ...]:
        value = request.META.get("HTTP_" + name.upper().replace("-", "_"))
        if value is None:
            return ()
        return (unmasked(value),) if name == csrf_header else (value,)

    seen = WebRequest(
        method=request.method,
        path=request.path,
        query=request.META.get("QUERY_STRING", ""),
        host="" if request.method in SAFE_METHODS else _host(request),
        peer=request.META.get("REMOTE_ADDR") or "",
        headers=headers,
        form_token=lambda: form_token(request, settings.csrf_field),
    )
    return Visit(project, Exchange(project.gateway, seen), request)


def by_key(project: Project, key: str | None) -> Visit:
    """The visit of nobody: a session that is opened by its key, without a request."""
    token = Token(key) if key else None
    seen = WebRequest(method="POST", path="/", headers=lambda _: (), token=token)
    return Visit(project, Exchange(project.gateway_by_key, seen))


def form_token(request: Any, field: str) -> str | None:
    """The CSRF token in a form; None if there is none."""
    if request.method != "POST":
        return None
    try:
        value = request.POST.get(field)
    except UnreadablePostError:
        return None  # the client went away
    return unmasked(value) if value else None


def masked(token: Token) -> str:
    """The token in a form that differs each time, so that a compressed page does not reveal it (BREACH)."""
    text = token.reveal().encode()
    mask = secrets.token_bytes(len(text))
    return base64.urlsafe_b64encode(mask + _xor(text, mask)).rstrip(b"=").decode()


def unmasked(text: str) -> str:
    """The token in what `masked` returned. Any other text comes back as it is."""
    if len(text) != _MASKED_LENGTH or not text.isascii():
        return text
    try:
        both = base64.b64decode(text + "=", altchars=b"-_", validate=True)
        return _xor(both[: len(both) // 2], both[len(both) // 2 :]).decode("ascii")
    except ValueError:
        return text


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def _host(request: Any) -> str:
    try:
        host: str = request.get_host()
    except DisallowedHost:
        return ""  # no origin equals it, so a page's request is refused
    return host
