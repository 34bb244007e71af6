"""Gives every Flask application sessions of sessiond. Pytest loads it with `-p`, in the process that runs a suite."""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any

import flask
from _pytest import monkeypatch

from sessiond_client.contrib.flask import Sessiond

__all__ = ["TARGET"]

TARGET = "SESSIOND_SUITE_TARGET"
"""The environment variable with the authority's address."""

_create = flask.Flask.__init__
_target = os.environ.get(TARGET, "")  # once: Flask's tests change the environment


def _create_with_sessions(self: flask.Flask, *args: Any, **kwargs: Any) -> None:
    _create(self, *args, **kwargs)
    # These suites know no CSRF tokens.
    Sessiond(self, _target, near_cache=False, csrf_exempt=["/"])


class _FlaskSession(ModuleType):
    """Stands for the package that Flask-Session's suite tests: the application has its sessions already."""

    @staticmethod
    def Session(app: flask.Flask) -> None:  # noqa: N802 - the name that the suite imports
        pass


if _target:
    # Flask's suite uses the name that pytest had for this until version 9.
    vars(monkeypatch).setdefault("notset", getattr(monkeypatch, "NOTSET", None))
    sys.modules["flask_session"] = _FlaskSession("flask_session")
    flask.Flask.__init__ = _create_with_sessions  # type: ignore[method-assign]
