"""Endpoints for pages: what a page's script and a page about the user's devices ask, on the page's own origin.

`SessiondMiddleware(browser_path="/session/")` of `sessiond_client.contrib.asgi` serves them in an application, and
`sessiond serve` for applications behind a proxy, both with `BrowserEndpoints`. The steps in `actions` have no I/O.
"""

from __future__ import annotations

from sessiond_client.browser.endpoints import EVENTS, BrowserEndpoints
from sessiond_client.browser.site import Site

__all__ = ["EVENTS", "BrowserEndpoints", "Site"]
