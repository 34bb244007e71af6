"""A browser's cookies, as far as one site's session is concerned: the last response to arrive wins (RFC 6265)."""

from __future__ import annotations

from collections.abc import Iterable

from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["Jar"]


class Jar:
    """The cookies of one browser. `take` does what a browser does with the headers of one response."""

    def __init__(self, *answers: pb.CookieDirectives) -> None:
        self.cookies: dict[str, str] = {}
        self.take(answers)

    def take(self, answers: Iterable[pb.CookieDirectives]) -> Jar:
        """Apply the headers of responses in the order in which they arrive."""
        for answer in answers:
            for line in answer.set_cookie:
                pair, *attributes = line.split("; ")
                name, _, value = pair.partition("=")
                if "Max-Age=0" in attributes:
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = value
        return self

    @property
    def token(self) -> str:
        """Return the one session token that the browser sends. Fail if it would send none or several."""
        (token,) = self.cookies.values()
        return token
