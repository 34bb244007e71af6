"""A small site in Flask, and a browser that visits it and keeps its cookies."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import grpc
from flask import Flask, redirect, render_template_string, request, session
from werkzeug.test import TestResponse

from sessiond_client.contrib.flask import (
    Sessiond,
    csrf_exempt,
    csrf_token,
    current_session,
    current_subject,
    devices,
    end_device,
    end_other_devices,
    login,
    logout,
    logout_everywhere,
    recent_activity,
    requires,
    roll,
    safe_path,
)

__all__ = ["AGENT", "Browser", "Calls", "make_site", "running"]

AGENT = "Mozilla/5.0 (X11; Linux x86_64) Firefox/143.0"
FORM = '<form method="post"><input type="hidden" name="csrf_token" value="{{ csrf_token() }}">{{ current_subject() }}'


class Calls(grpc.UnaryUnaryClientInterceptor):
    """Notes the name of every call to the authority."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        self.made.append(details.method.rpartition("/")[2])
        return continuation(details, request)

    def take(self) -> list[str]:
        """The calls since the last time."""
        made, self.made = self.made, []
        return made


def make_site() -> Flask:
    """The site, without sessiond."""
    app = Flask("site")

    @app.get("/")
    def home() -> str:
        return current_subject() or "guest"

    @app.get("/plain")
    def plain() -> str:
        return "plain"

    @app.get("/form")
    def form() -> str:
        return render_template_string(FORM)

    @app.get("/token")
    def token() -> dict[str, str]:
        return {"csrf": csrf_token()}

    @app.post("/cart")
    def add() -> dict[str, Any]:
        session.setdefault("cart", []).append(request.args["item"])
        return {"cart": session["cart"]}

    @app.get("/cart")
    def cart() -> dict[str, Any]:
        return {"cart": session.get("cart", [])}

    @app.route("/login", methods=["GET", "POST"])
    def log_in() -> Any:
        if request.method == "POST":
            level = int(request.args.get("level", "1"))
            login(request.args.get("user", "alice"), level=level, elevate="elevate" in request.args)
            return redirect(safe_path(request.args.get("next")), 303)
        return form()

    @app.post("/logout")
    def log_out() -> Any:
        logout()
        return redirect("/", 303)

    @app.post("/logout-everywhere")
    def log_out_everywhere() -> dict[str, int]:
        return {"ended": logout_everywhere()}

    @app.post("/end-others")
    def end_others() -> dict[str, int]:
        return {"ended": end_other_devices()}

    @app.post("/roll")
    def change_role() -> str:
        roll("role")
        return "rolled"

    @app.get("/devices")
    def list_devices() -> list[dict[str, Any]]:
        return [
            {"id": row.session_id, "text": row.description, "ip": row.ip_address, "current": row.is_current}
            for row in devices()
        ]

    @app.get("/activity")
    def activity() -> list[list[Any]]:
        return [[row.event, row.ip_address, row.user_agent, row.is_current] for row in recent_activity(most=3)]

    @app.post("/devices/<session_id>/end")
    def end_one(session_id: str) -> dict[str, bool]:
        return {"ended": end_device(session_id)}

    @app.get("/account")
    @requires()
    def account() -> str:
        found = current_session()
        assert found is not None
        return found.subject

    @app.get("/secret")
    @requires(level=2)
    def secret() -> str:
        return "secret"

    @app.get("/fresh")
    @requires(max_age=timedelta(minutes=5))
    def fresh() -> str:
        return "fresh"

    @app.get("/export")
    @requires(csrf=True)
    def export() -> str:
        return "export"

    @app.get("/offers")
    @requires(level=2, guests=True)
    def offers() -> str:
        return "offers"

    @app.post("/hook")
    @csrf_exempt
    def hook() -> dict[str, str]:
        return {"subject": current_subject()}

    @app.get("/fault")
    def fault() -> str:
        session["seen"] = True
        raise ZeroDivisionError("a fault of the application")

    return app


@contextmanager
def running(target: str, app: Flask | None = None, **options: Any) -> Iterator[Flask]:
    """The site, or another application, connected to an authority; without a near cache unless it is asked for."""
    app = app or make_site()
    sessions = Sessiond(app, target, **{"near_cache": False, **options})
    try:
        yield app
    finally:
        sessions.close()


@dataclass
class Browser:
    """A browser that keeps its cookies as browsers do. Its requests run in a thread: the authority is in this one."""

    app: Flask
    jar: dict[str, str] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    """The `Set-Cookie` headers of the last response."""

    def request(
        self, method: str, path: str, headers: Mapping[str, str] = {}, environ: Mapping[str, Any] = {}, **more: Any
    ) -> TestResponse:
        """A request from this thread. `more`: what the test client of Werkzeug takes, such as `data`."""
        sent = {"User-Agent": AGENT, **headers}
        if self.jar and "Cookie" not in headers:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.jar.items())
        client = self.app.test_client(use_cookies=False)
        response = client.open(path, method=method, headers=sent, environ_overrides=dict(environ), **more)
        self.seen = response.headers.getlist("Set-Cookie")
        for line in self.seen:
            name, _, value = line.partition(";")[0].partition("=")
            if "Max-Age=0" in line:
                self.jar.pop(name, None)
            else:
                self.jar[name] = value
        return response

    async def send(self, method: str, path: str, headers: Mapping[str, str] = {}, **more: Any) -> TestResponse:
        """A request, as `request`."""
        return await asyncio.to_thread(self.request, method, path, headers, **more)

    async def get(self, path: str, **headers: str) -> TestResponse:
        """A page."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.send("GET", path, named)

    async def csrf(self) -> str:
        """The CSRF token of this browser's session."""
        answer = await self.get("/token")
        assert answer.json is not None
        return str(answer.json["csrf"])

    async def post(self, path: str, **headers: str) -> TestResponse:
        """A request of a script of the site's own pages, with the CSRF token."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.send("POST", path, {"X-CSRF-Token": await self.csrf(), **named})

    async def log_in(self, user: str = "alice", **query: str) -> TestResponse:
        """Log in by the form of the site."""
        more = "".join(f"&{name}={value}" for name, value in query.items())
        answer = await self.post(f"/login?user={user}{more}")
        assert answer.status_code == 303
        return answer

    def copy(self) -> Browser:
        """Another tab of this browser, or a thief with its cookies."""
        return Browser(self.app, dict(self.jar))

    @property
    def cookie(self) -> str:
        """The value of the session cookie; empty if there is none."""
        (value,) = self.jar.values() or [""]
        return value
