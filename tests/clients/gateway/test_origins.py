"""Cross-site requests are recognized by what browsers say, and redirects stay on this site."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond_client.gateway import safe_path
from sessiond_client.gateway.origins import is_cross_site

_HOST = "shop.example"


def _crosses(*, site: str | None = None, origin: str | None = None, host: str = _HOST, trusted: str = "") -> bool:
    given_site, given_origin = [site] if site is not None else [], [origin] if origin is not None else []
    return is_cross_site(given_site, given_origin, host, [trusted] if trusted else [])


def test_what_browsers_say_of_the_site() -> None:
    """Only the own origin and the user may send a request: a sibling host is another site here."""
    assert not _crosses(site="same-origin")
    assert not _crosses(site="none")
    for site in ("same-site", "cross-site", "", "Same-Origin", "same-origin, cross-site", "other"):
        assert _crosses(site=site), site


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://shop.example", "shop.example"),
        ("https://shop.example", "SHOP.example"),
        ("https://SHOP.EXAMPLE", "shop.example"),
        ("https://shop.example", "shop.example:443"),
        ("http://shop.example", "shop.example:80"),
        ("https://shop.example:443", "shop.example"),
        ("https://shop.example:8443", "shop.example:8443"),
        ("http://localhost:5000", "localhost:5000"),
        ("http://[::1]:5000", "[::1]:5000"),
        ("http://[::1]", "[::1]"),
        ("https://[2001:DB8::1]", "[2001:db8::1]:443"),
        ("https://shop.example.", "shop.example."),
    ],
)
def test_the_own_origin(origin: str, host: str) -> None:
    """A page of the same host and port is the own one: case and the scheme's default port do not count."""
    assert not _crosses(origin=origin, host=host)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("null", _HOST),
        ("", _HOST),
        ("https://evil.example", _HOST),
        ("https://shop.example.evil.example", _HOST),
        ("https://evilshop.example", _HOST),
        ("https://admin.shop.example", _HOST),
        ("https://shop.example:8443", _HOST),
        ("https://shop.example", "shop.example:8443"),
        ("https://shop.example", "shop.example:80"),
        ("https://shop.example.", _HOST),
        ("https://shop.example@evil.example", _HOST),
        ("https://evil.example https://shop.example", _HOST),
        ("https://shop.example https://evil.example", _HOST),
        ("https://shop.example, https://evil.example", _HOST),
        ("https://evil.example#shop.example", _HOST),
        ("http://[::1", "[::1"),
        ("http://[::1]", "[::2]"),
        ("https://shop.example:nonsense", "shop.example:nonsense"),
        ("https://shop.example:99999", "shop.example:99999"),
        ("shop.example", _HOST),
        ("app://shop.example", _HOST),
        ("capacitor://localhost", "localhost"),
        ("ftp://shop.example", _HOST),
        ("file://", _HOST),
        ("https://", ""),
        ("https://shop.example", ""),
    ],
)
def test_other_origins(origin: str, host: str) -> None:
    """An opaque, unreadable, double or different origin is another site."""
    assert _crosses(origin=origin, host=host)


def test_both_headers() -> None:
    """`Sec-Fetch-Site` decides: a strict referrer policy makes the origin of an own form `null`."""
    assert not _crosses(site="same-origin", origin="null")
    assert not _crosses(site="same-origin", origin="https://shop.example", host="internal:8000")
    assert _crosses(site="cross-site", origin="https://shop.example")
    assert _crosses(site="same-site", origin="https://shop.example")


def test_neither_header() -> None:
    """A request without both headers was not sent by a page of a browser in use."""
    assert not _crosses()


def test_headers_that_come_twice() -> None:
    """Two headers of one name are refused: nobody can tell which one the browser sent."""
    assert is_cross_site(["same-origin", "same-origin"], [], _HOST, [])
    assert is_cross_site(["same-origin"], ["https://shop.example", "https://shop.example"], _HOST, [])


def test_trusted_origins() -> None:
    """A trusted origin may send requests; its siblings and other schemes may not."""
    trusted = "https://app.example"
    assert not _crosses(site="cross-site", origin="https://app.example", trusted=trusted)
    assert _crosses(site="cross-site", origin="http://app.example", trusted=trusted)
    assert _crosses(site="cross-site", origin="https://app.example:8443", trusted=trusted)
    assert _crosses(site="cross-site", origin="https://app.example.evil.example", trusted=trusted)
    assert _crosses(site="cross-site", trusted=trusted)


@given(st.text(), st.text())
def test_any_origin(origin: str, host: str) -> None:
    """Whatever is sent as origin, there is an answer."""
    assert _crosses(origin=origin, host=host) in (True, False)


_ELSEWHERE = [
    "//evil.example",
    "///evil.example",
    "////evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "\\/evil.example",
    "/\\/evil.example",
    "/a\\..\\..\\evil.example",
    "http://evil.example",
    "https:evil.example",
    "https:/evil.example",
    "https:\\\\evil.example",
    "HTTPS://evil.example",
    "evil.example",
    "@evil.example",
    ".evil.example",
    "?next=//evil.example",
    "#//evil.example",
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    "data:text/html,hi",
    "vbscript:x",
    " //evil.example",
    "\t//evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "/\r/evil.example",
    "/\r\nSet-Cookie: id=planted",
    "/\r\n\r\n<script>",
    "/\x00/evil.example",
    "/\x0b/evil.example",
    "/ /evil.example",
    "/\x7f/evil.example",
    "/\u2028/evil.example",
    "/\uff0fevil.example",
    "\uff0f\uff0fevil.example",
    "/\u3002evil.example",
    "/\xad/evil.example",
    "/caf\xe9",
    "/\ud800",
    "",
]


@pytest.mark.parametrize("target", _ELSEWHERE)
def test_open_redirects(target: str) -> None:
    """What leads elsewhere, or could be read as if it did, is replaced by the fallback."""
    assert safe_path(target, "/account") == "/account"


def test_no_target() -> None:
    """Without a target the fallback counts, which is the front page by default."""
    assert safe_path(None) == "/"
    assert safe_path("") == "/"


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/cart",
        "/cart?item=1&n=2#top",
        "/a//b",
        "/.//evil.example",
        "/..//evil.example",
        "/@evil.example",
        "/;@evil.example",
        "/%2F%2Fevil.example",
        "/%5Cevil.example",
        "/%0d%0aSet-Cookie:x",
        "/?u=https://evil.example",
    ],
)
def test_own_paths(target: str) -> None:
    """A path of this site is kept as it is."""
    assert safe_path(target, "/account") == target


@given(st.text(st.characters() | st.sampled_from("/\\:@?#.\t\r\n%e"), max_size=20))
def test_any_target(target: str) -> None:
    """Whatever is asked for, the redirect stays on this site and cannot end the header."""
    path = safe_path(target)
    there = urlsplit(urljoin("https://shop.example/login", path))
    assert (there.scheme, there.netloc) == ("https", "shop.example")
    assert path.isprintable()
    assert path.startswith("/")
