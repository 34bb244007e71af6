"""Texts that are secrets, in the forms in which Django handles them."""

from __future__ import annotations

from collections.abc import Container
from http.cookies import Morsel, SimpleCookie
from typing import Any

from django.views.debug import SafeExceptionReporterFilter

__all__ = ["HidesTokens", "SecretText", "add_cookie"]


class SecretText(str):
    """A text whose `repr` does not show it: reports about errors contain the `repr` of variables."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<Token>"


class _Line(Morsel[Any]):
    """A cookie that is sent exactly as the authority wrote it, also with attributes that Python does not know."""

    def __init__(self, line: str) -> None:
        super().__init__()
        name, _, rest = line.partition("=")
        first, *attributes = rest.split(";")
        value = SecretText(first)
        self.set(name, value, value)
        for attribute in attributes:  # for those who look; `output` has all of them
            key, _, text = attribute.strip().partition("=")
            if self.isReservedKey(key):
                self[key] = text or True
        self._line = line

    def output(self, attrs: Container[str] | None = None, header: str = "Set-Cookie:") -> str:
        return f"{header} {self._line}"

    def OutputString(self, attrs: Container[str] | None = None) -> str:  # noqa: N802 - the method that it overrides
        return self._line

    def __repr__(self) -> str:
        return f"<Morsel: {self.key}=<Token>>"


def add_cookie(cookies: SimpleCookie, line: str) -> None:
    """Add the value of a `Set-Cookie` header to the cookies of a response."""
    morsel = _Line(line)
    dict.__setitem__(cookies, morsel.key, morsel)


class HidesTokens(SafeExceptionReporterFilter):  # type: ignore[misc]  # Django has no types
    """Keeps cookies and CSRF tokens out of error pages and reports, with and without `DEBUG`."""

    def get_safe_cookies(self, request: Any) -> dict[str, Any]:
        """The names of the cookies. The names of those with secrets are the authority's, so no value is shown."""
        return dict.fromkeys(super().get_safe_cookies(request), self.cleansed_substitute)

    def get_post_parameters(self, request: Any) -> Any:
        """The form without the CSRF token."""
        fields = super().get_post_parameters(request)
        visit = getattr(request, "sessiond", None)
        name = visit.csrf_field if visit is not None else ""
        if name not in fields:
            return fields
        fields = fields.copy()
        fields[name] = self.cleansed_substitute
        return fields
