"""Settings are checked once, with the name of what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from sessiond_client.gateway import GatewaySettings, TrustedProxies
from sessiond_client.gateway.settings import matches


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"login_path": "login"}, "login_path"),
        ({"login_path": ""}, "login_path"),
        ({"login_path": "//sso.example/login"}, "login_path"),
        ({"login_path": "/\\sso.example"}, "login_path"),
        ({"login_path": "https://sso.example/login"}, "login_path"),
        ({"login_path": "/login?x=1"}, "login_path"),
        ({"login_path": "/login#top"}, "login_path"),
        ({"login_path": "/login\r\nX: y"}, "login_path"),
        ({"login_path": 5}, "login_path"),
        ({"trusted_proxies": "10.0.0.0/8"}, "trusted_proxies"),
        ({"trusted_proxies": 1}, "trusted_proxies"),
        ({"trusted_origins": "https://app.example"}, "trusted_origins"),
        ({"trusted_origins": ["app.example"]}, "trusted_origins"),
        ({"trusted_origins": ["https://app.example/"]}, "trusted_origins"),
        ({"trusted_origins": ["https://app.example/path"]}, "trusted_origins"),
        ({"trusted_origins": ["https://user@app.example"]}, "trusted_origins"),
        ({"trusted_origins": ["https://*.app.example"]}, "trusted_origins"),
        ({"trusted_origins": ["https://app.example:port"]}, "trusted_origins"),
        ({"trusted_origins": ["null"]}, "trusted_origins"),
        ({"trusted_origins": ["*"]}, "trusted_origins"),
        ({"trusted_origins": [b"https://app.example"]}, "trusted_origins"),
        ({"trusted_origins": None}, "trusted_origins"),
        ({"csrf_header": ""}, "csrf_header"),
        ({"csrf_header": "X CSRF"}, "csrf_header"),
        ({"csrf_header": "X-CSRF\r\n"}, "csrf_header"),
        ({"csrf_header": None}, "csrf_header"),
        ({"csrf_field": ""}, "csrf_field"),
        ({"csrf_field": 1}, "csrf_field"),
        ({"csrf_exempt": "/hook"}, "csrf_exempt"),
        ({"csrf_exempt": ["hook"]}, "csrf_exempt"),
        ({"ignored_paths": [""]}, "ignored_paths"),
        ({"ignored_paths": 5}, "ignored_paths"),
        ({"passive_paths": ["*"]}, "passive_paths"),
        ({"public_paths": [None]}, "public_paths"),
        ({"late_after": 0}, "late_after"),
        ({"late_after": -1}, "late_after"),
        ({"late_after": float("nan")}, "late_after"),
        ({"late_after": "5"}, "late_after"),
        ({"late_after": None}, "late_after"),
        ({"cookie_names": ("id", "id")}, "cookie_names"),
        ({"cookie_names": "id"}, "cookie_names"),
        ({"cache_control": "no-store\r\nX: y"}, "cache_control"),
        ({"cache_control": None}, "cache_control"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], problem: str) -> None:
    """A wrong setting is refused at once, and the error names it and says what to write."""
    with pytest.raises(ValueError, match=f"^{problem}: ") as error:
        GatewaySettings(**settings)
    assert len(str(error.value)) > len(problem) + 10


def test_right_settings() -> None:
    """Lists may be of any kind, and origins count as browsers write them."""
    settings = GatewaySettings(
        login_path="/account/sign in",
        trusted_proxies=TrustedProxies(hops=1),
        trusted_origins=["https://App.Example:443", "http://localhost:5173", "https://[2001:DB8::1]"],
        ignored_paths=iter(["/static/"]),  # type: ignore[arg-type]  # not everyone checks types
        late_after=1,
        cache_control="",
    )
    assert settings.trusted_origins == ("https://app.example", "http://localhost:5173", "https://[2001:db8::1]")
    assert settings.ignored_paths == ("/static/",)
    assert GatewaySettings(login_path=None).login_path is None
    assert "trusted_origins" in GatewaySettings.names()


@pytest.mark.parametrize(
    ("path", "contained"),
    [
        ("/hooks/stripe", True),
        ("/hooks/", True),
        ("/ping", True),
        ("/hooks", False),
        ("/ping/", False),
        ("/pingpong", False),
        ("/Ping", False),
        ("/hooks/../transfer", False),
        ("/hooks/a/..", False),
        ("/hooks/..", False),
        ("/x/hooks/", False),
        ("", False),
    ],
)
def test_path_lists(path: str, contained: bool) -> None:
    """An entry that ends in a slash means what is below it, and no path climbs out of it."""
    assert matches(path, ("/hooks/", "/ping")) is contained
