"""Refusals: each action has its response, for pages and for programs, and wrong requirements are refused early."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond_client.gateway import Action, Refused, RouteRequirements
from sessiond_client.gateway.actions import refusal

_REFUSED = [action for action in Action if action is not Action.PROCEED]


@pytest.mark.parametrize(
    ("action", "page", "program", "error"),
    [
        (Action.LOGIN, 303, 401, "login_required"),
        (Action.STEP_UP, 303, 401, "step_up_required"),
        (Action.COMPANION, 403, 403, "companion_required"),
        (Action.CSRF_ERROR, 403, 403, "csrf_failed"),
        (Action.AMBIGUOUS, 400, 400, "ambiguous_cookie"),
        (Action.LOCKED, 429, 429, "locked"),
        (Action.RETRY_LATER, 503, 503, "unavailable"),
    ],
)
def test_statuses(action: Action, page: int, program: int, error: str) -> None:
    """The statuses are those of the guide; only a login that helps leads to the login page."""
    shown = refusal(action, page=True, login_path="/login", next_path="/cart", lock_seconds=600)
    read = refusal(action, page=False, login_path="/login", next_path="/cart", lock_seconds=600)
    assert (shown.status, read.status, read.error, read.action) == (page, program, error, action)
    assert ("Location" in dict(shown.headers)) == (page == 303)
    assert "Location" not in dict(read.headers)
    assert all("/login" not in value for _, value in read.headers)


def test_when_to_come_back() -> None:
    """An outage, a limit and a lock whose length is known say when to try again; a limit blames no client (no 429)."""
    assert dict(refusal(Action.RETRY_LATER, page=True, login_path=None).headers) == {"Retry-After": "2"}
    for asked, header in ((0.2, "2"), (7.2, "8")):
        limited = refusal(Action.RETRY_LATER, page=False, login_path=None, retry_after=asked)
        assert (limited.status, dict(limited.headers)) == (503, {"Retry-After": header})
    locked = refusal(Action.LOCKED, page=True, login_path="/login", lock_seconds=900)
    assert dict(locked.headers) == {"Retry-After": "900"}
    assert refusal(Action.LOCKED, page=True, login_path="/login").headers == ()


def test_without_a_login_page() -> None:
    """Without a login page, pages get 401 with the header that HTTP requires."""
    shown = refusal(Action.LOGIN, page=True, login_path=None, next_path="/cart")
    assert (shown.status, dict(shown.headers)) == (401, {"WWW-Authenticate": "Session"})


def test_what_the_login_page_learns() -> None:
    """The login page learns where to return to, and what the route requires."""
    needed = RouteRequirements(level=2, max_age=timedelta(minutes=5))
    shown = refusal(Action.STEP_UP, page=True, login_path="/login", next_path="/pay?n=1&m=2", requirements=needed)
    assert dict(shown.headers) == {
        "Location": "/login?next=/pay%3Fn%3D1%26m%3D2&min_level=2&max_authentication_age=300"
    }
    read = refusal(Action.STEP_UP, page=False, login_path="/login", requirements=needed)
    content_type, body = read.body(page=False)
    assert content_type == "application/json"
    assert json.loads(body)["error"] == "step_up_required"
    assert (json.loads(body)["min_level"], json.loads(body)["max_authentication_age"]) == (2, 300)


def test_a_companion_names_its_purpose() -> None:
    """A program learns which companion token is missing, but never the one that was presented."""
    needed = RouteRequirements(companion=("payment", "presented-secret"))
    read = refusal(Action.COMPANION, page=False, login_path="/login", requirements=needed)
    assert json.loads(read.body(page=False)[1])["purpose"] == "payment"
    assert "presented-secret" not in f"{read!r} {needed!r} {read.body(page=True)!r}"


@given(st.text(), st.sampled_from(["/login", "/anmelden/\u00e4", "/log in"]))
def test_headers_cannot_be_ended(next_path: str, login_path: str) -> None:
    """Whatever the path to return to, it cannot end the header or leave its parameter."""
    shown = refusal(
        Action.LOGIN, page=True, login_path=login_path, next_path=next_path.encode(errors="ignore").decode()
    )
    location = dict(shown.headers)["Location"]
    assert location.isascii()
    assert location.isprintable()
    assert " " not in location
    assert location.startswith("/")
    assert location.count("?") <= 1
    assert "&" not in location


@pytest.mark.parametrize("action", _REFUSED)
def test_bodies(action: Action) -> None:
    """Pages get a document that says in a sentence what is wrong, programs get JSON."""
    given_refusal = refusal(action, page=True, login_path=None)
    content_type, body = given_refusal.body(page=True)
    assert content_type.startswith("text/html")
    assert given_refusal.text.encode() in body
    assert str(Refused(given_refusal)) == given_refusal.error
    assert Refused(given_refusal).action is action


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"level": 4}, "level"),
        ({"level": -1}, "level"),
        ({"level": "2"}, "level"),
        ({"level": True}, "level"),
        ({"max_age": 300}, "max_age"),
        ({"max_age": timedelta(0)}, "max_age"),
        ({"companion": "payment"}, "companion"),
        ({"companion": ("", None)}, "companion"),
        ({"companion": ("payment",)}, "companion"),
        ({"companion": (1, None)}, "companion"),
    ],
)
def test_wrong_requirements(settings: dict[str, Any], problem: str) -> None:
    """Requirements that no user could meet, or that mean nothing, are refused when they are written."""
    with pytest.raises(ValueError, match=problem):
        RouteRequirements(**settings)
