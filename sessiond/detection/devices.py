"""Describing a user agent to people: the browser or program, its platform, and the kind of device."""

from __future__ import annotations

import re
from functools import lru_cache

import ua_parser

from sessiond.domain.device import UNKNOWN_DEVICE, Device, DeviceType

__all__ = ["describe"]

_MAX_AGENT = 1024
_MAX_NAME = 64
_SHORT_NUMBER = re.compile(r"[0-9]{1,5}")  # longer numbers are dates or build numbers

# ua-parser distinguishes between builds of one browser. Users do not.
_BUILD = re.compile(r"^Mobile | Mobile\b| iOS\b")
_BROWSER_NAMES = {
    "Amazon Silk": "Silk",
    "Apple Mail": "WebKit",  # its name for every program with a web view on a Mac
    "HeadlessChrome": "Headless Chrome",
    "IE": "Internet Explorer",
    "Safari UI/WKWebView": "Safari WebView",
}
_SYSTEM_NAMES = {"Chrome OS": "ChromeOS", "Mac OS X": "macOS"}
_PERSONAL_SYSTEMS = frozenset({"ChromeOS", "Windows", "macOS"})
_UNIX_SYSTEMS = re.compile(r"Linux|Ubuntu|Debian|Fedora|Red Hat|CentOS|SUSE|Gentoo|Slackware|Mandriva|BSD|Solaris")
_PHONE_SYSTEMS = frozenset({"BlackBerry OS", "Firefox OS", "KaiOS", "Symbian OS", "iOS"})

# Devices that a user agent can name. The first match counts: a Windows Phone also contains "Android" and "like iPhone",
# and many televisions contain "Android". Type None: the rest of the user agent decides. Clients choose the text, so no
# pattern may contain `.*`, which makes the search time grow with the square of the length.
_DEVICES: tuple[tuple[re.Pattern[str], str, DeviceType | None], ...] = tuple(
    (re.compile(pattern), name, kind)
    for pattern, name, kind in (
        (r"Windows Phone", "Windows Phone", DeviceType.PHONE),
        (r"\biPad", "iPad", DeviceType.TABLET),
        (r"\biPod", "iPod touch", DeviceType.PHONE),
        (r"\biPhone", "iPhone", DeviceType.PHONE),
        (r"\bApple ?TV|\btvOS\b", "Apple TV", DeviceType.TV),
        (r"\bXbox\b", "Xbox", DeviceType.TV),
        (r"\bPlayStation\b", "PlayStation", DeviceType.TV),
        (r"\bNintendo Switch\b", "Nintendo Switch", DeviceType.TV),
        (r"\bCrKey/|\bChromecast\b", "Chromecast", DeviceType.TV),
        (r"\bRoku\b", "Roku", DeviceType.TV),
        (r"\bAFT[A-Z]+\d*(?: Build/|\))", "Fire TV", DeviceType.TV),
        (r"\bKF[A-Z]+(?: Build/|\))", "Fire tablet", DeviceType.TABLET),
        (r"\bWeb0S\b|\bNetCast\b", "LG TV", DeviceType.TV),
        (r"\(SMART-TV; |\bTV Safari/", "Samsung TV", DeviceType.TV),
        (r"\bBRAVIA\b", "Sony TV", DeviceType.TV),
        (r"\bAndroid TV\b|\bGoogle ?TV\b", "Android TV", DeviceType.TV),
        (r"(?i:\bsmart-?tv\b|\bhbbtv\b)", "TV", DeviceType.TV),
        (r"\bOculusBrowser/", "Meta Quest", DeviceType.UNSPECIFIED),
        (r"\b(?:OpenHarmony|HarmonyOS)\b", "HarmonyOS", None),
    )
)
# Libraries, command-line tools, monitors and crawlers, by their product names.
_PROGRAMS = re.compile(
    r"bot\b|spider\b|crawl|\bprobe\b|health-?check|uptime|http-?client|^headless"
    r"|^(?:aiohttp|apachebench|axios|bun\b|curl|deno\b|faraday|got\b|grpc|guzzle|httpie|hyper\b|insomnia|java\b|jmeter"
    r"|k6\b|libwww|lwp|node\b|node-fetch|perl\b|php\b|postman|pycurl|python|reqwest|restsharp|ruby\b|undici|wget)",
    re.IGNORECASE,
)
_COMPATIBLE = re.compile(r"\(compatible; ([^();/]+)(?:/v?(\d+))?")
_VERSION = re.compile(r"v?(\d+)")
_NAME_AND_VERSION = re.compile(r"(.+?) v?(\d+)(?:[. ].*)?")


def describe(user_agent: str) -> Device:
    """Return a readable description of the client that sends this user agent. The same input has the same result.

    The description is one short line without control characters, safe to show as plain text. It may be false: an
    unknown program is shown under the name that it claims.
    """
    return _describe(user_agent[:_MAX_AGENT])  # cut first, so that the cache's keys are bounded


# The cache is bounded because an attacker can send any number of user agents.
@lru_cache(maxsize=4096)
def _describe(agent: str) -> Device:
    agent = agent.strip()
    if not agent:
        return UNKNOWN_DEVICE
    found = ua_parser.parse(agent)
    # A browser, or a program that pretends to be one.
    like_browser = agent.startswith(("Mozilla/", "Opera/"))
    if found.user_agent is not None:
        name, version = _BUILD.sub("", found.user_agent.family), found.user_agent.major or ""
        name = _BROWSER_NAMES.get(name, name)
    else:
        name, version = _compatible(agent) if like_browser else _product(agent)
    name = _clean(name)
    client = f"{name} {version}" if name and _SHORT_NUMBER.fullmatch(version) else name
    if _PROGRAMS.search(name) or (found.device is not None and found.device.brand == "Spider"):
        # No platform: crawlers name one only to get the same pages as its users.
        return Device(client or "Unknown program", DeviceType.BOT)
    system = "" if found.os is None else _clean(_SYSTEM_NAMES.get(found.os.family, found.os.family))
    platform, kind = _platform(agent, system, like_browser)
    client = client or ("Unknown browser" if like_browser else "Unknown program")
    return Device(f"{client} on {platform}" if platform not in ("", name) else client, kind)


def _compatible(agent: str) -> tuple[str, str]:
    """Return name and version of an unknown browser or crawler: `Mozilla/5.0 (compatible; NAME/1.0)`."""
    found = _COMPATIBLE.search(agent)
    return (found[1], found[2] or "") if found else ("", "")


def _product(agent: str) -> tuple[str, str]:
    """Return name and version of a program: `NAME/1.0 (comment)` (RFC 9110 section 10.1.5), `NAME v1.0` or `NAME`."""
    product = re.split(r"[(;]", agent, maxsplit=1)[0].strip()
    name, slash, rest = product.partition("/")
    if slash:
        version = _VERSION.match(rest)
        return name, version[1] if version else ""
    both = _NAME_AND_VERSION.fullmatch(product)
    return (both[1], both[2]) if both else (name, "")


def _platform(agent: str, system: str, like_browser: bool) -> tuple[str, DeviceType]:
    """Return the common name of the client's platform, and the kind of device."""
    for pattern, name, kind in _DEVICES:
        if pattern.search(agent):
            return name, _handheld(agent) if kind is None else kind
    if system in _PERSONAL_SYSTEMS:
        return system, DeviceType.DESKTOP
    kind = _handheld(agent)
    if kind is not DeviceType.UNSPECIFIED:
        return system, kind
    if system == "Android":
        # Android browsers send "Mobile" only on phones. Apps and Opera Mini never do, and run mostly on phones.
        return system, DeviceType.TABLET if agent.startswith("Mozilla/") else DeviceType.PHONE
    if system in _PHONE_SYSTEMS:
        return system, DeviceType.PHONE
    # Linux without a browser may be a server.
    return system, DeviceType.DESKTOP if like_browser and _UNIX_SYSTEMS.search(system) else DeviceType.UNSPECIFIED


def _handheld(agent: str) -> DeviceType:
    if re.search(r"\bTablet\b", agent):
        return DeviceType.TABLET
    return DeviceType.PHONE if re.search(r"\bMobile\b", agent) else DeviceType.UNSPECIFIED


def _clean(name: str) -> str:
    """Return a name as one line, without control, text-direction and invisible characters."""
    kept = "".join(character for character in name.replace("%20", " ") if character.isprintable())
    return " ".join(kept.split())[:_MAX_NAME].strip()
