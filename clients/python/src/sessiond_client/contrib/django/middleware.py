"""The middleware: in `MIDDLEWARE`, in the place of Django's `SessionMiddleware`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.sessions.backends.base import UpdateError
from django.contrib.sessions.exceptions import SessionInterrupted
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.exceptions import ImproperlyConfigured
from django.utils.cache import patch_cache_control, patch_vary_headers
from django.views.debug import get_default_exception_reporter_filter

from sessiond_client.contrib.django.backend import SessionStore
from sessiond_client.contrib.django.configuration import APP, BACKEND, project
from sessiond_client.contrib.django.csrf import is_enforced
from sessiond_client.contrib.django.refusals import refusal_for, respond
from sessiond_client.contrib.django.secrets import HidesTokens, add_cookie
from sessiond_client.contrib.django.visit import Visit, of_request
from sessiond_client.contrib.streams import EVENT_STREAM, guarded, guarded_async
from sessiond_client.errors import SessiondError
from sessiond_client.gateway import Action, Refused, Steps

__all__ = ["SessiondMiddleware"]

# In the words of Django's own middleware, which applications may know.
_INTERRUPTED = (
    "The request's session was deleted before the request completed. "
    "The user may have logged out in a concurrent request, for example."
)


class SessiondMiddleware(SessionMiddleware):  # type: ignore[misc]  # Django has no types
    """Gives requests their session, checks requests that may have side effects before any view, and stores changes.

    A request with a safe method whose view uses neither the session, nor the user, nor a CSRF token costs nothing.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Any) -> None:
        """Raises `ImproperlyConfigured` if the settings are wrong. `manage.py check` says more."""
        super().__init__(get_response)
        if not apps.is_installed(APP):
            raise ImproperlyConfigured(f"SessiondMiddleware: add {APP!r} to INSTALLED_APPS")
        if not issubclass(import_module(settings.SESSION_ENGINE).SessionStore, SessionStore):
            raise ImproperlyConfigured(f"SessiondMiddleware: set SESSION_ENGINE = {BACKEND!r}")
        self._store = import_module(settings.SESSION_ENGINE).SessionStore
        self._filter = _reporter_filter()
        project()
        if self.async_mode:
            self.process_view = self.aprocess_view  # type: ignore[method-assign]  # Django asks the instance for it

    async def __acall__(self, request: Any) -> Any:
        self.process_request(request)
        return await self.aprocess_response(request, await self.get_response(request))

    def process_request(self, request: Any) -> None:
        """Give the request its session. Nothing is asked yet."""
        request.sessiond = of_request(project(), request)
        request.session = self._store(visit=request.sessiond)
        request.exception_reporter_filter = self._filter

    def process_view(self, request: Any, callback: Any, callback_args: Any, callback_kwargs: Any) -> Any:
        """Check a request that may have side effects, before the view runs."""
        visit: Visit = request.sessiond
        if visit.exchange.request.is_safe:
            return None
        csrf = is_enforced(request, callback)
        action = visit.guard(csrf=csrf)
        is_checked = csrf is None or (visit.has_csrf_header and visit.guard(csrf=None) is Action.PROCEED)
        return self._checked(request, action, is_checked=is_checked)

    async def aprocess_view(self, request: Any, callback: Any, callback_args: Any, callback_kwargs: Any) -> Any:
        """As `process_view`."""
        visit: Visit = request.sessiond
        if visit.exchange.request.is_safe:
            return None
        csrf = is_enforced(request, callback)
        action = await visit.aguard(csrf=csrf)
        is_checked = csrf is None or (visit.has_csrf_header and await visit.aguard(csrf=None) is Action.PROCEED)
        return self._checked(request, action, is_checked=is_checked)

    def process_exception(self, request: Any, exception: BaseException) -> Any:
        """Answer a view that was refused, or that could not reach the authority. Other errors are Django's."""
        refusal = refusal_for(request, exception)
        return None if refusal is None else respond(request, refusal)

    def process_response(self, request: Any, response: Any) -> Any:
        """Store what was changed, and add the headers."""
        session = _session_of(request)
        if session is None or not session.state.visit.opened:
            return response
        response = self._instead_of_error(request, response)
        if not _is_over(request):
            try:
                session.state.visit.run(_finish(session, response))
            except (SessiondError, Refused, UpdateError) as error:
                response = self._failed(request, error)
        return self._with_headers(session.state.visit, response)

    async def aprocess_response(self, request: Any, response: Any) -> Any:
        """As `process_response`."""
        session = _session_of(request)
        if session is None or not session.state.visit.opened:
            return response
        response = self._instead_of_error(request, response)
        if not _is_over(request):
            try:
                await session.state.visit.arun(_finish(session, response))
            except (SessiondError, Refused, UpdateError) as error:
                response = self._failed(request, error)
        return self._with_headers(session.state.visit, response)

    def _checked(self, request: Any, action: Action, *, is_checked: bool) -> Any:
        if action is not Action.PROCEED:
            return respond(request, request.sessiond.exchange.refusal(action))
        if is_checked:
            # For Django's own middleware and decorators, and for exempt views that make Django's check themselves, as
            # those of Django REST framework do.
            request.csrf_processing_done = True
        return None

    def _instead_of_error(self, request: Any, response: Any) -> Any:
        """The refusal, if another middleware used a session that must not be used: Django made an error 500 of that."""
        exchange = request.sessiond.exchange
        if response.status_code != 500 or request.sessiond.is_refused or exchange.gate() is Action.PROCEED:
            return response
        return respond(request, exchange.refusal(exchange.gate()))

    def _failed(self, request: Any, error: BaseException) -> Any:
        if isinstance(error, UpdateError):
            raise SessionInterrupted(_INTERRUPTED) from None
        refusal = refusal_for(request, error)
        if refusal is None:
            raise error
        return respond(request, refusal)

    def _with_headers(self, visit: Visit, response: Any) -> Any:
        sets_cookie = False
        for name, value in visit.exchange.headers(has_cache_control=response.has_header("Cache-Control")):
            if name == "Set-Cookie":
                add_cookie(response.cookies, value)
                sets_cookie = True
            elif name == "Vary":
                patch_vary_headers(response, (value,))
            else:
                response.headers[name] = value
        if sets_cookie:
            patch_cache_control(response, private=True)  # Django's cache looks at this and not at `no-store`
        live, content_type = visit.exchange.session, str(response.headers.get("Content-Type", ""))
        if live is not None and response.streaming and content_type.startswith(EVENT_STREAM):
            chunks, project = response.streaming_content, visit.project
            response.streaming_content = (
                guarded_async(chunks, project.async_clients.guard, live)
                if response.is_async
                else guarded(chunks, project.clients.guard, live)
            )
        return response


def _session_of(request: Any) -> SessionStore | None:
    """The session at the end of a request. A view may have replaced it."""
    session = getattr(request, "session", None)
    return session if isinstance(session, SessionStore) else None


def _finish(session: SessionStore, response: Any) -> Steps[None]:
    """What remains to be done. As with Django's sessions, data is not stored after an error of the server."""
    return session.state.finish(data=response.status_code < 500, modified=session.modified)


def _is_over(request: Any) -> bool:
    """Whether nothing more is to be asked, because the authority does not answer."""
    return request.sessiond.exchange.failure is not None


def _reporter_filter() -> HidesTokens:
    """The project's filter for error reports, which hides secrets too."""
    of_project = type(get_default_exception_reporter_filter())
    if issubclass(of_project, HidesTokens):
        return get_default_exception_reporter_filter()  # type: ignore[no-any-return]
    if issubclass(HidesTokens, of_project):
        return HidesTokens()
    combined: HidesTokens = type("HidesTokens", (HidesTokens, of_project), {})()
    return combined
