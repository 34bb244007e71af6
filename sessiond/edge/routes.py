"""What a route of a proxy requires, as the operator writes it in the proxy's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum

from sessiond.config import parse_duration
from sessiond.domain.errors import InvalidField, shown
from sessiond.domain.immutable import immutable

__all__ = ["CsrfCheck", "Route", "route_of"]


class CsrfCheck(StrEnum):
    """How requests that may have side effects are protected from pages of other sites."""

    ORIGIN = "origin"
    """By what the browser says about the page that sent it. Needs nothing of the application."""
    TOKEN = "token"  # noqa: S105 - a kind of check, not a secret
    """By the session's CSRF token too, which the application must put into its pages."""
    NONE = "none"
    """Not at all: for requests that other servers send."""


@immutable
class Route:
    """What a route requires.

    application  whose sessions it uses
    guests       whether guests are served too; the other requirements then hold for users who are logged in
    level        the least level of authentication, 1 to 3; 0: any
    max_age      the user's last authentication must be younger than this; None: any age
    companion    the purpose of the companion token that the client must present; empty: none
    csrf         how unsafe requests are checked
    """

    application: str = "default"
    guests: bool = False
    level: int = 0
    max_age: timedelta | None = None
    companion: str = ""
    csrf: CsrfCheck = CsrfCheck.ORIGIN


_BOOLEANS = {"true": True, "false": False}


def route_of(settings: Mapping[str, str]) -> Route:
    """Return the route that a proxy describes by these settings. Raise `InvalidField` that names the wrong one.

    The settings are `application`, `guests` (true or false), `level`, `max_age` (such as `15m`), `companion`, `csrf`.
    """
    found: dict[str, object] = {}
    for name, value in settings.items():
        if name not in _READERS:
            known = ", ".join(sorted(_READERS))
            raise InvalidField(name, f"no such setting of a route; the settings are {known}")
        try:
            found[name] = _READERS[name](value)
        except (ValueError, KeyError):
            raise InvalidField(name, f"must be {_EXPECTED[name]}, not {shown(value)}") from None
    return Route(**found)  # type: ignore[arg-type]


def _level(text: str) -> int:
    if text not in ("0", "1", "2", "3"):
        raise ValueError
    return int(text)


def _max_age(text: str) -> timedelta:
    return timedelta(milliseconds=parse_duration(text))


def _name(text: str) -> str:
    if not text:
        raise ValueError
    return text


_READERS = {
    "application": _name,
    "guests": _BOOLEANS.__getitem__,
    "level": _level,
    "max_age": _max_age,
    "companion": _name,
    "csrf": CsrfCheck,
}
_EXPECTED = {
    "application": "the name of an application of this server",
    "guests": "true or false",
    "level": "0, 1, 2 or 3",
    "max_age": "a duration such as 15m",
    "companion": "the purpose of a companion token, such as payment",
    "csrf": "origin, token or none",
}
