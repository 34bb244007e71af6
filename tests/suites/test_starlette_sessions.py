"""Starlette's own tests of its session middleware, with ours in its place."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from starlette.responses import JSONResponse
from starlette.testclient import TestClient

from sessiond.app import App
from sessiond_client.contrib.asgi import SessiondMiddleware

CASES = (
    "test_secure_session",
    "test_invalid_session_cookie",
    "test_set_cookie_only_on_modification",
    "test_vary_cookie_on_access",
    "test_session_persists_mutations",
)
LEFT_OUT = {
    "test_session": "wants a Max-Age of 14 days, which the policy sets; otherwise test_secure_session is the same",
    "test_partitioned_session": "the cookie's attributes come from the authority's policy, and not from the middleware",
    "test_session_expires": "a middleware with max_age=-1; the authority's policy sets how long sessions live",
    "test_session_cookie_subpath": "the cookie's path comes from the authority's policy",
    "test_session_cookie": "a middleware with max_age=None, and a cookie that is called `session`",
    "test_session_zero_max_age": "a middleware with max_age=0; the authority's policy sets how long sessions live",
    "test_domain_cookie": "the cookie's domain comes from the authority's policy",
    "test_session_tracks_modification": "tests Starlette's class `Session` alone",
}

ARGUMENTS_LEFT_OUT = {
    ("test_session_persists_mutations", "/popitem_session"): "session data is a map: its keys have no order",
}


class Json(JSONResponse):
    """Ours is a mapping and not a dict, which `json` does not write by itself."""

    def render(self, content: Any) -> bytes:
        """The content as JSON."""
        return json.dumps(content, default=dict).encode()


def loaded(file: Path, target: str) -> ModuleType:
    """The suite, with our middleware in the place of Starlette's."""
    spec = importlib.util.spec_from_file_location("starlette_session_suite", file)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    types: Any = ModuleType("tests.types")  # a module of Starlette's tests, for annotations only
    types.TestClientFactory = Any
    sys.modules["tests.types"] = types
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules["tests.types"]

    def middleware(app: Any, **cookie_options: Any) -> SessiondMiddleware:
        # Starlette has no CSRF check. What the cookie looks like is the authority's business.
        return SessiondMiddleware(app, target, csrf_exempt=["/"])

    module.SessionMiddleware = middleware
    module.JSONResponse = Json
    found: ModuleType = module
    return found


def client(app: Any, base_url: str = "https://testserver", **options: Any) -> TestClient:
    """A client over HTTPS unless a case says otherwise: the session's cookie is Secure."""
    return TestClient(app, base_url=base_url, **options)


def arguments(function: Any) -> list[dict[str, Any]]:
    """The arguments of a case, for each of its parameters."""
    found: list[dict[str, Any]] = [{}]
    for mark in getattr(function, "pytestmark", []):
        assert mark.name == "parametrize"
        names = mark.args[0].split(",") if isinstance(mark.args[0], str) else mark.args[0]
        found = [{**some, **dict(zip(names, values, strict=True))} for some in found for values in mark.args[1]]
    return found


@pytest.mark.parametrize("name", CASES)
async def test_a_case(name: str, sources: Callable[[str], Path], app: App) -> None:
    """A case of Starlette's suite passes."""
    suite = loaded(sources("starlette") / "tests/middleware/test_session.py", app.address)
    function = getattr(suite, name)
    for chosen in arguments(function):
        if (name, chosen.get("path")) in ARGUMENTS_LEFT_OUT:
            continue
        await asyncio.to_thread(function, test_client_factory=client, **chosen)


def test_no_case_is_forgotten(sources: Callable[[str], Path]) -> None:
    """Each case of the suite is run, or left out with a reason."""
    suite = loaded(sources("starlette") / "tests/middleware/test_session.py", "127.0.0.1:7443")
    assert {name for name in vars(suite) if name.startswith("test_")} == {*CASES, *LEFT_OUT}
