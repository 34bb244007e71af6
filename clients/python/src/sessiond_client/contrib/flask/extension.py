"""Setting up an application: opening, checking and saving the session of each request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flask import Flask, Response, current_app, request
from flask.sessions import SessionInterface, SessionMixin
from flask.signals import request_started
from flask.wrappers import Request

from sessiond_client.contrib.clients import ClientPerProcess, split_options
from sessiond_client.contrib.flask.codec import TAGGED_JSON
from sessiond_client.contrib.flask.session import SessiondSession, here
from sessiond_client.contrib.flask.views import EXEMPT, csrf_token, current_subject
from sessiond_client.contrib.streams import EVENT_STREAM, guarded
from sessiond_client.errors import SessiondError
from sessiond_client.gateway import OUTAGES, Action, Gateway, Refused
from sessiond_client.sync import Client

__all__ = ["Sessiond", "SessiondInterface"]

DEFAULT_TARGET = "127.0.0.1:7443"
"""Where `sessiond serve` listens unless it is configured otherwise."""

_PREFIX = "SESSIOND_"
_EXTENSION = "sessiond"
_ENVIRON = "sessiond.session"


class Sessiond:
    """The extension. `Sessiond(app)`, or `Sessiond()` and later `init_app(app)` for each application.

    - `target`: the authority's address, such as `127.0.0.1:7443` or `unix:/run/sessiond/sessiond.sock`.
    - `options`: those of `GatewaySettings` and of `ClientOptions`, such as `login_path="/sign-in"` or
      `application="shop"`. The near cache is on unless `near_cache=False`.

    Each of them can also be in `app.config`, as `SESSIOND_TARGET`, `SESSIOND_LOGIN_PATH` and so on. A keyword argument
    takes precedence.
    """

    def __init__(self, app: Flask | None = None, target: str | None = None, **options: Any) -> None:
        self._options = options if target is None else {"target": target, **options}
        self._interfaces: list[SessiondInterface] = []
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Set up an application. Nothing is asked of the authority before the first request.

        Raises `TypeError` for an unknown option, `ValueError` for a wrong one, and `RuntimeError` if the application
        has been set up before.
        """
        if _EXTENSION in app.extensions:
            raise RuntimeError("Sessiond is already set up for this application; call init_app once")
        options = {"target": DEFAULT_TARGET, **_configured(app.config), **self._options}
        target = options.pop("target")
        try:
            settings, of_client = split_options(options)
        except (TypeError, ValueError) as error:
            error.add_note("Options come from keyword arguments of Sessiond and from SESSIOND_* in app.config.")
            raise
        gateway = Gateway(of_client.get("application", ""), settings, codec=TAGGED_JSON)
        interface = SessiondInterface(gateway, ClientPerProcess(target, of_client))
        self._interfaces.append(interface)
        app.extensions[_EXTENSION] = app.session_interface = interface
        # Sent before everything else that may run for a request, whatever was registered earlier.
        request_started.connect(interface.check, sender=app, weak=False)
        # An application's own handler stays, whether it was registered earlier or will be later.
        handlers = app.error_handler_spec[None][None]
        handlers.setdefault(Refused, interface.refused)
        for outage in OUTAGES:
            handlers.setdefault(outage, interface.unavailable)

    def close(self) -> None:
        """Close this process's connections to the authority. The next request opens new ones."""
        for interface in self._interfaces:
            interface.close()


def _configured(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(_PREFIX).lower(): value for name, value in config.items() if name.startswith(_PREFIX)}


class SessiondInterface(SessionInterface):
    """What Flask asks for sessions. `app.extensions["sessiond"]` is the one of an application."""

    def __init__(self, gateway: Gateway, clients: ClientPerProcess) -> None:
        self.gateway = gateway
        self._clients = clients
        self._has_globals = False

    @property
    def client(self) -> Client:
        """The client of this process, for calls that this module has no function for."""
        return self._clients.get()

    def close(self) -> None:
        """Close the client of this process. The next request creates another one."""
        self._clients.close()

    def open_session(self, app: Flask, request: Request) -> SessiondSession:
        """The session of a request. Nothing is asked yet: Flask calls this before it knows the view."""
        if not self._has_globals:  # not earlier: it makes the template environment, which ends its configuration
            self._has_globals = True
            app.jinja_env.globals.update(csrf_token=csrf_token, current_subject=current_subject)
        opened = SessiondSession(self.gateway, self._clients, request)
        request.environ[_ENVIRON] = opened
        return opened

    def check(self, app: Flask, **_: Any) -> None:
        """Ask about the request before anything of the application runs. Raises `Refused` if nothing may run."""
        seen = request._get_current_object()  # type: ignore[attr-defined]
        asked: SessiondSession | None = seen.environ.get(_ENVIRON)
        if asked is None:
            raise RuntimeError("app.session_interface was replaced after Sessiond.init_app; set up Sessiond last")
        view = app.view_functions.get(seen.endpoint) if seen.url_rule is not None else None
        asked.open(csrf=False if getattr(view, EXEMPT, False) else None)
        if asked.unreadable is not None:
            raise asked.unreadable
        action = asked.exchange.gate()
        if action is not Action.PROCEED:
            raise asked.exchange.refuse(action)

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Store what was changed, and add the headers."""
        assert isinstance(session, SessiondSession)  # noqa: S101 - for the type checker; `open_session` makes no other
        try:
            session.save()
        except OUTAGES as error:
            _replace(response, app.make_response(self.unavailable(error)))
        except Refused as refused:
            _replace(response, app.make_response(current_app.handle_user_exception(refused)))
        present = {name.lower() for name, _ in response.headers}
        for name, value in session.exchange.headers(has_cache_control="cache-control" in present):
            if name == "Set-Cookie" or name.lower() not in present:
                response.headers.add(name, value)
            elif name == "Vary":
                response.vary.add(value)
            else:
                response.headers[name] = value
        live = session.exchange.session
        if live is not None and response.is_streamed and response.mimetype == EVENT_STREAM:
            chunks: Iterable[Any] = response.response
            response.response = guarded(chunks, self._clients.guard, live)

    def refused(self, error: Refused) -> Response:
        """The response to a request that is not served, unless the application has a handler for `Refused`."""
        refusal, exchange = error.refusal, here().exchange
        content_type, body = refusal.body(page=exchange.request.is_page)
        response = current_app.response_class(body, refusal.status, content_type=content_type)
        response.headers.extend(refusal.headers)
        return response

    def unavailable(self, error: SessiondError) -> Any:
        """The response if the authority cannot answer: that of the handler for `Refused`."""
        exchange = here().exchange
        return current_app.handle_user_exception(exchange.refuse(exchange.failed(error)))


def _replace(response: Response, other: Response) -> None:
    """Make a response the same as another one. Flask sends the object that it has, whatever happened since."""
    close = getattr(response.response, "close", None)
    if close is not None:
        close()
    response.direct_passthrough = False
    response.response, response.status, response.headers = other.response, other.status, other.headers
