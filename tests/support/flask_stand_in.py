"""As much of Flask as the README's example uses, for machines on which Flask is not installed."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping
from http.cookies import SimpleCookie
from types import ModuleType, SimpleNamespace
from typing import Any

__all__ = ["flask_stand_in"]


class _Response:
    def __init__(self, body: str, status: int = 200) -> None:
        self.body, self.status = body, status
        self.headers = _Headers()


class _Headers(list[tuple[str, str]]):
    def add(self, name: str, value: str) -> None:
        self.append((name, value))


class _Flask:
    """Runs hooks and views in Flask's order: before, view or error handler, after."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self._before: list[Callable[[], Any]] = []
        self._after: list[Callable[[_Response], _Response]] = []
        self._errors: dict[type[Exception], Callable[[Exception], Any]] = {}
        self._views: dict[tuple[str, str], Callable[[], Any]] = {}

    def before_request(self, hook: Callable[[], Any]) -> Callable[[], Any]:
        self._before.append(hook)
        return hook

    def after_request(self, hook: Callable[[_Response], _Response]) -> Callable[[_Response], _Response]:
        self._after.append(hook)
        return hook

    def errorhandler(self, kind: type[Exception]) -> Callable[[Any], Any]:
        return lambda handler: self._errors.setdefault(kind, handler)

    def get(self, path: str) -> Callable[[Any], Any]:
        return lambda view: self._views.setdefault(("GET", path), view)

    def post(self, path: str) -> Callable[[Any], Any]:
        return lambda view: self._views.setdefault(("POST", path), view)

    def respond(self, method: str, path: str, headers: Mapping[str, str], form: Mapping[str, str]) -> _Response:
        """The response to one request."""
        cookies = {name: morsel.value for name, morsel in SimpleCookie(headers.get("Cookie", "")).items()}
        vars(self._module.request).update(
            method=method,
            headers=headers,
            form=form,
            cookies=cookies,
            remote_addr="127.0.0.1",
            user_agent=SimpleNamespace(string=headers["User-Agent"]),
        )
        vars(self._module.g).clear()
        try:
            results = (hook() for hook in self._before)
            result = next((one for one in results if one is not None), None) or self._views[method, path]()
        except tuple(self._errors) as error:
            result = next(handler for kind, handler in self._errors.items() if isinstance(error, kind))(error)
        if not isinstance(result, _Response):
            result = _Response(*result) if isinstance(result, tuple) else _Response(result)
        for hook in self._after:
            result = hook(result)
        return result


def flask_stand_in() -> Any:
    """A module to put in the place of `flask`."""
    module: Any = ModuleType("flask")
    module.Flask = lambda _name: _Flask(module)
    module.g, module.request = SimpleNamespace(), SimpleNamespace()
    module.redirect = lambda _location, status: _Response("", status)
    module.render_template_string = lambda text, **values: re.sub(
        r"{{ (\w+) }}", lambda name: html.escape(str(values[name[1]])), text
    )
    return module
