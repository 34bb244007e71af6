"""What the gateway takes from a request."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from sessiond_client.gateway import NO_PROXIES, TrustedProxies, WebRequest, safe_path
from tests.clients.gateway.visitor import request_of


def _asking(method: str = "GET", path: str = "/", query: str = "", **headers: Sequence[str]) -> WebRequest:
    given = {name.replace("_", "-"): values for name, values in headers.items()}
    return WebRequest(method=method, path=path, query=query, headers=lambda name: given.get(name, ()))


@pytest.mark.parametrize(
    ("path", "query", "own"),
    [
        ("/cart", "", "/cart"),
        ("/cart", "a=1&b=%20", "/cart?a=1&b=%20"),
        ("/caf\u00e9", "", "/caf%C3%A9"),
        ("/a b", "", "/a%20b"),
        ("/a?b", "c=1", "/a%3Fb?c=1"),
        ("/a#b", "", "/a%23b"),
        ("/100%", "", "/100%25"),
        ("/~ada/a:b@c;d,e", "", "/~ada/a:b@c;d,e"),
    ],
)
def test_the_way_back(path: str, query: str, own: str) -> None:
    """The path to return to after a login is that of the request, encoded again, and safe."""
    assert _asking(path=path, query=query).own_path == own
    assert safe_path(own) == own


@pytest.mark.parametrize("path", ["//evil.example", "/\\evil.example", "/\r\nX: y", "/\ud800"])
def test_no_way_out(path: str) -> None:
    """A strange path of a request leads nowhere else after a login."""
    assert "evil" not in safe_path(_asking(path=path).own_path).split("/")[0]
    assert not safe_path(_asking(path=path).own_path).startswith("//")
    assert _asking(path=path).own_path.isprintable()


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT", "DELETE", "OPTIONS", "get"])
def test_only_pages_are_returned_to(method: str) -> None:
    """A request that is not a GET is not repeated after a login."""
    assert _asking(method, "/cart").own_path == ""


@pytest.mark.parametrize(
    ("method", "safe"),
    [("GET", True), ("HEAD", True), ("OPTIONS", True), ("get", False), ("QUERY", False), ("", False)],
)
def test_safe_methods(method: str, safe: bool) -> None:
    """Only the methods of the standard, as they are written there, are safe."""
    assert _asking(method).is_safe is safe


def test_pages_and_programs() -> None:
    """A navigation is a page; without the browser's word, what accepts HTML is."""
    assert _asking(sec_fetch_mode=["navigate"], accept=["*/*"]).is_page
    assert not _asking(sec_fetch_mode=["cors"], accept=["text/html"]).is_page
    assert _asking(accept=["text/html,application/xhtml+xml"]).is_page
    assert not _asking(accept=["application/json"]).is_page
    assert not _asking().is_page


def test_the_client() -> None:
    """The client is its address, behind trusted proxies only, and its user agent without what no store can hold."""
    request = request_of(peer="10.0.0.1", x_forwarded_for="198.51.100.7", user_agent="Fire\0fox")
    assert request.client(NO_PROXIES).ip_address == "10.0.0.1"
    assert request.client(TrustedProxies(hops=1)).ip_address == "198.51.100.7"
    assert request.client(NO_PROXIES).user_agent == "Firefox"
    assert request_of(peer="").client(NO_PROXIES).ip_address == ""


def test_no_secrets_in_its_repr() -> None:
    """A request may be logged: neither headers nor query nor form token show."""
    request = request_of(form="form-secret", cookie="id=cookie-secret")
    assert "secret" not in repr(request)
    assert "secret" not in repr(_asking(query="code=secret"))
