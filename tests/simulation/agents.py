"""The user agent strings of browsers, and how an update changes them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["APPS", "DESKTOP_SITE", "DESKTOPS", "IN_APP", "PHONES", "RELATED", "Agent"]


@dataclass(frozen=True, slots=True)
class Agent:
    """A browser: its user agent strings in the order of its updates."""

    name: str
    versions: tuple[str, ...]
    native: str = ""  # of a hybrid app: the user agent of its native part


_WINDOWS = "Mozilla/5.0 (Windows NT 10.0; Win64; x64)"
_MAC = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)"
_ANDROID = "Mozilla/5.0 (Linux; Android 10; K)"
_KHTML = "AppleWebKit/537.36 (KHTML, like Gecko)"
_WEBKIT = "AppleWebKit/605.1.15 (KHTML, like Gecko)"


def _iphone(system: str, rest: str) -> str:
    return f"Mozilla/5.0 (iPhone; CPU iPhone OS {system} like Mac OS X) {_WEBKIT} {rest}"


def _webview(build: str, chrome: str) -> str:
    platform = f"Linux; Android 14; Pixel 8 Build/{build}; wv"
    return f"Mozilla/5.0 ({platform}) {_KHTML} Version/4.0 Chrome/{chrome} Mobile Safari/537.36"


DESKTOPS = (
    Agent("Chrome on Windows", tuple(f"{_WINDOWS} {_KHTML} Chrome/{n}.0.0.0 Safari/537.36" for n in (126, 127, 128))),
    Agent(
        "Edge on Windows",
        tuple(f"{_WINDOWS} {_KHTML} Chrome/{n}.0.0.0 Safari/537.36 Edg/{n}.0.0.0" for n in (126, 127)),
    ),
    Agent(
        "Firefox on Windows",
        tuple(f"Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:{n}.0) Gecko/20100101 Firefox/{n}.0" for n in (127, 128)),
    ),
    Agent("Safari on macOS", tuple(f"{_MAC} {_WEBKIT} Version/{v} Safari/605.1.15" for v in ("17.4", "17.5", "18.0"))),
    Agent("Chrome on macOS", tuple(f"{_MAC} {_KHTML} Chrome/{n}.0.0.0 Safari/537.36" for n in (126, 127))),
    Agent(
        "Chrome on Linux",
        tuple(f"Mozilla/5.0 (X11; Linux x86_64) {_KHTML} Chrome/{n}.0.0.0 Safari/537.36" for n in (126, 127)),
    ),
)
PHONES = (
    Agent("Chrome on Android", tuple(f"{_ANDROID} {_KHTML} Chrome/{n}.0.0.0 Mobile Safari/537.36" for n in (126, 127))),
    Agent(
        "Safari on iOS",
        (
            _iphone("17_5_1", "Version/17.5 Mobile/15E148 Safari/604.1"),
            _iphone("17_6", "Version/17.6 Mobile/15E148 Safari/604.1"),
            _iphone("18_6", "Version/26.0 Mobile/15E148 Safari/604.1"),
        ),
    ),
    Agent(
        "Android WebView",
        (_webview("AP2A.240705.005", "126.0.6478.122"), _webview("AP2A.240805.005", "127.0.6533.64")),
    ),
    Agent(
        "Firefox on Android",
        tuple(f"Mozilla/5.0 (Android 14; Mobile; rv:{n}.0) Gecko/{n}.0 Firefox/{n}.0" for n in (127, 128)),
    ),
    Agent(
        "Samsung Internet",
        tuple(
            f"{_ANDROID} {_KHTML} SamsungBrowser/{own}.0 Chrome/{n}.0.0.0 Mobile Safari/537.36"
            for own, n in ((25, 121), (26, 122))
        ),
    ),
    Agent(
        "Chrome on iOS",
        tuple(_iphone("17_5", f"CriOS/{n}.0.6478.35 Mobile/15E148 Safari/604.1") for n in (126, 127)),
    ),
)
APPS = (
    Agent(
        "Shop App on iOS",
        tuple(_iphone(system, "Mobile/15E148") for system in ("17_5_1", "17_6")),
        "ShopApp/45 CFNetwork/1496.0.7 Darwin/23.5.0",
    ),
    Agent(
        "Shop App on Android",
        (_webview("AP2A.240705.005", "126.0.6478.122"), _webview("AP2A.240805.005", "127.0.6533.64")),
        "okhttp/4.12.0",
    ),
)
RELATED = (
    ("ShopApp on iOS", "Mobile Safari UI/WKWebView on iOS"),
    ("okhttp", "Chrome Mobile WebView on Android"),
)
"""What the application lists as `related_agents`: each app's native part and its web view."""
DESKTOP_SITE = f"{_MAC} {_WEBKIT} Version/17.5 Safari/605.1.15"
"""The user agent of a phone's browser when its user asks for desktop sites."""
IN_APP = _iphone("17_5_1", "Mobile/15E148 Instagram 334.0.4.32.98")
"""The user agent of a browser within another app."""
