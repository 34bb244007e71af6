"""The endpoints for pages, for applications behind a proxy: `/browser/APPLICATION/...`.

The proxy passes a folder of the application's site on to it, by default `/session/`. What they do is in
`sessiond_client.browser`, as for applications that serve them by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any

import structlog
from starlette.types import Receive, Scope, Send

from sessiond.domain.call import Caller
from sessiond.domain.errors import AuthorityError
from sessiond.http.answers import misconfigured
from sessiond.http.asgi import send_answer
from sessiond.http.calls import IdentifyingSend, begin_request, end_request
from sessiond.http.door import Door
from sessiond.http.questions import Headers, passed_request
from sessiond.http.refusals import LoggedRefusals
from sessiond.system.failures import log_failure
from sessiond.system.ongoing import Tracer
from sessiond_client.browser import EVENTS, BrowserEndpoints, Site
from sessiond_client.errors import SessiondError

__all__ = ["PAGES", "BrowserPages"]

PAGES = "/browser/{application}/{path:path}"
"""The paths of the endpoints, in Starlette's form."""
_log = structlog.get_logger(__name__)


class BrowserPages:
    """Serves the endpoints of all applications.

    `site_of`: the sessions of an application, asked about on behalf of a caller. Raises `InvalidField` if there is no
    such application. `tracer` begins the spans of requests; None: they are not traced.
    """

    def __init__(
        self,
        endpoints: BrowserEndpoints,
        site_of: Callable[[str, Caller], Site],
        door: Door,
        tracer: Tracer | None = None,
    ) -> None:
        self._endpoints = endpoints
        self._site_of = site_of
        self._door = door
        self._refusals = LoggedRefusals()
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request of a client, which a proxy passes on."""
        call = begin_request(scope, PAGES, self._tracer)
        identifying = IdentifyingSend(send, call)
        try:
            await self._serve(scope, receive, identifying)
        finally:
            end_request(call, identifying.status)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = _Begun(send)
        application, path = scope["path_params"]["application"], scope["path_params"]["path"]
        headers = Headers(scope["headers"])
        try:
            with self._door.asking(scope, headers) as caller:
                self._door.authorize(application, caller)
                site = self._site_of(application, caller)
                request = passed_request(headers, scope["method"], scope["path"], scope["query_string"])
                if path != EVENTS:
                    await self._endpoints.serve(site, request, path, receive, begun)
                    return
            # A stream is open for minutes, and so does not count as a call under way. It has bounds of its own.
            await self._endpoints.serve(site, request, path, receive, begun)
            return
        except AuthorityError as error:
            answer = self._refusals.after(error)
        except SessiondError as error:  # such as a role that the proxy's key does not have
            answer = self._refusals.because(str(error))
        except Exception:  # noqa: BLE001 - the last place to turn an exception into a status
            log_failure(_log, "call failed", rpc="browser")
            answer = misconfigured()
        if not begun.has_begun:
            await send_answer(answer, send)

    def close(self) -> None:
        """End all event streams, because the server stops."""
        self._endpoints.close()


class _Begun:
    """`send`, with a note of whether the response has begun."""

    def __init__(self, send: Send) -> None:
        self.has_begun = False
        self._send = send

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        self.has_begun = True
        await self._send(message)
