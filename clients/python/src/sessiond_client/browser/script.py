"""The script for pages, as an endpoint serves it."""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from importlib.resources import files

from sessiond_client.browser.answers import Answer
from sessiond_client.gateway import WebRequest

__all__ = ["script"]


def script(request: WebRequest) -> Answer:
    """Return the script, or 304 if the browser has it already. It depends on no session."""
    text, tag = _script()
    # A browser asks again each time, which costs an empty response, and so gets a new version at once.
    headers = (("ETag", tag), ("Cache-Control", "no-cache"))
    known = {one.strip().removeprefix("W/") for sent in request.headers("if-none-match") for one in sent.split(",")}
    if tag in known:
        return Answer(304, headers, cacheable=True)
    return Answer(200, (("Content-Type", "text/javascript; charset=utf-8"), *headers), text, cacheable=True)


@lru_cache(maxsize=1)
def _script() -> tuple[bytes, str]:
    text = files("sessiond_client.browser").joinpath("session.js").read_bytes()
    return text, f'"{sha256(text).hexdigest()[:32]}"'
