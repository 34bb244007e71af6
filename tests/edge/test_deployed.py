"""The configurations of proxies that operators copy name what sessiond says. That of Traefik is not run by any test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sessiond.edge.check import CSRF_HEADER, IDENTITY_HEADERS
from sessiond.http.answers import MOST_COOKIES
from sessiond.http.forward_auth import KEY_HEADER
from sessiond.http.questions import route_in

DEPLOYED = Path(__file__).parents[2] / "deploy"
FILES = ("nginx/nginx.conf", "caddy/Caddyfile", "traefik/sessiond.yaml")


def text_of(file: str) -> str:
    """A configuration without its comments."""
    lines = (DEPLOYED / file).read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith("#"))


@pytest.mark.parametrize("file", FILES)
def test_every_header_is_handed_on(file: str) -> None:
    """Each header in which applications trust, the cookies and the key are named by each configuration."""
    text = text_of(file).lower()
    for name in (*IDENTITY_HEADERS, CSRF_HEADER, KEY_HEADER, "cookie", "strict-transport-security"):
        alternative = "stsseconds" if name.startswith("strict") else name
        assert name in text or alternative in text, name


@pytest.mark.parametrize("file", FILES)
def test_every_requirement_is_understood(file: str) -> None:
    """What the routes of a configuration require is what this server reads, and differs as their comments say."""
    text = text_of(file)
    found = {
        "nginx/nginx.conf": re.findall(r'session_require "(.*)";', text),
        "caddy/Caddyfile": [f"application=default{one}" for one in re.findall(r'import session "(.*)"', text)],
        "traefik/sessiond.yaml": re.findall(r"/check\?(.*)\"", text),
    }[file]
    routes = {route_in(query) for query in found}
    assert sorted((route.level, route.guests, route.max_age is not None) for route in routes) == [
        (0, False, False),
        (0, True, False),
        (2, False, True),
    ]


@pytest.mark.parametrize("file", [*FILES, "envoy/envoy.yaml"])
def test_pages_are_passed_on(file: str) -> None:
    """Each configuration passes the same path on to the endpoints of an application, with a key that is its own."""
    text = text_of(file)
    assert "/session/" in text
    assert "/browser/default" in text
    key = text.lower().count(KEY_HEADER)
    assert key >= (1 if file.startswith("envoy") else 2)


def test_nginx_takes_every_cookie() -> None:
    """The configuration of nginx reads and sends as many cookies as an answer may have."""
    text = text_of("nginx/nginx.conf")
    for number in range(1, MOST_COOKIES + 1):
        assert f"$upstream_http_x_session_set_cookie_{number};" in text
        assert f"add_header Set-Cookie $session_set_cookie_{number} always;" in text
    assert f"set_cookie_{MOST_COOKIES + 1}" not in text
