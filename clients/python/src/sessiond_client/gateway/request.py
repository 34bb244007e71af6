"""A web request, as far as sessions are concerned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from sessiond_client.gateway.addresses import TrustedProxies, client_address
from sessiond_client.gateway.origins import SAFE_METHODS
from sessiond_client.tokens import Token
from sessiond_client.values import ClientContext

__all__ = ["Headers", "WebRequest"]

_IN_PATHS = "/:@!$&'()*+,;=~"

Headers = Callable[[str], Sequence[str]]
"""All values of the header with this name, in lower case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebRequest:
    """What the gateway must know of a request. An adapter fills it."""

    method: str
    path: str
    """Without query, decoded."""
    query: str = field(default="", repr=False)
    """Without question mark; for the way back after a login."""
    host: str = ""
    """The host, and the port if there is one, that the client asked for."""
    peer: str = ""
    """The IP address at the other end of the connection; empty if it has none."""
    headers: Headers = field(repr=False)
    """All values of a header, whose name is in lower case; empty if there is none."""
    form_token: Callable[[], str | None] = field(default=lambda: None, repr=False)
    """The CSRF token in the form, if there is one. Only called for methods that are not safe."""
    token: Token | None = None
    """A session token that came in another way than in a cookie, such as `Authorization: Bearer`. Cookies are then not
    read, and no CSRF token is required: no browser sends such a token by itself."""
    is_handshake: bool = False
    """Whether it opens a WebSocket. Any site's page may do that with the user's cookies, so its origin is checked
    although its method is safe; but no page can send a CSRF token with it."""
    is_passive: bool = False
    """Whether it does not count as activity, whatever its path."""
    certificate_thumbprint: bytes = b""
    """SHA-256 of the client's certificate, if the server or a trusted proxy has checked one."""

    @property
    def is_safe(self) -> bool:
        """Whether the method must not have side effects."""
        return self.method in SAFE_METHODS

    @property
    def is_page(self) -> bool:
        """Whether a browser shows the response, instead of a script reading it."""
        mode = self.headers("sec-fetch-mode")
        return mode[0] == "navigate" if mode else any("text/html" in accepted for accepted in self.headers("accept"))

    @property
    def own_path(self) -> str:
        """Path and query, as in a URL, to come back to after a login; empty if a GET would not be the same request."""
        if self.method != "GET":
            return ""
        path = quote(self.path, safe=_IN_PATHS, errors="replace")
        return f"{path}?{self.query}" if self.query else path

    def client(self, proxies: TrustedProxies) -> ClientContext:
        """What is known of the user's client."""
        forwarded = self.headers(proxies.header) if proxies.hops or proxies.networks else ()
        agents = self.headers("user-agent")
        return ClientContext(
            ip_address=client_address(self.peer, forwarded, proxies),
            user_agent=agents[0].replace("\0", "") if agents else "",  # which the authority refuses
            certificate_thumbprint=self.certificate_thumbprint,
        )
