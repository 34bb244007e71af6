"""A week of web traffic through the gateway logs nobody out and mixes up no data, but would without its rules."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from sessiond_client.gateway import Exchange, SessionValues, exchange
from sessiond_client.gateway.outgoing import Headers, Outgoing
from sessiond_client.gateway.steps import Steps
from tests.simulation.bounds import Bounds
from tests.simulation.expected import ENDED, Life
from tests.simulation.gateway_week import GatewayWeek, simulate_gateway

# What must have happened for a week to count as ordinary.
_TRAFFIC = (
    "calls in an outage",
    "carts kept over a login",
    "forms older than the session's token",
    "forms open during a step-up",
    "found somebody else logged in",
    "late answers",
    "logins",
    "outages",
    "refused: retry_later",
    "refused: step_up",
    "responses lost",
    "slow handlers",
    "step-ups",
    Life.DOUBLE_CLICK,
    Life.OVERTAKEN,
    Life.UNFLUSHED,
)
_LOGGED_OUT = "logged out by a cookie"


async def test_an_ordinary_week() -> None:
    """In a week of web traffic nobody is logged out or sees the data of others, and alarms are those of the table."""
    report = await simulate_gateway(GatewayWeek("owasp-low", users=3))
    sys.stdout.write(f"\n{report}\n")
    assert not report.alarms, f"\n{report}"
    assert [name for name in _TRAFFIC if not report.traffic[name]] == []
    assert report.traffic["reads checked"] > 1_000
    assert report.traffic["writes checked"] > 100
    assert report.verdicts["SUPERSEDED"]


# Negative controls: each takes one rule of the gateway away


def _sends_late_cookies(monkeypatch: pytest.MonkeyPatch) -> None:
    headers = Outgoing.headers
    monkeypatch.setattr(Outgoing, "headers", lambda self, *, late: headers(self, late=False))


def _sends_all_cookies(monkeypatch: pytest.MonkeyPatch) -> None:
    def changed(self: Outgoing, headers: Headers) -> None:
        self._headers, self._may_be_late = [*headers, *self._headers], False

    monkeypatch.setattr(Outgoing, "changed", changed)


def _keeps_no_cookie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Exchange, "keeps_cookie", False)


def _names_late_requests_by_token(monkeypatch: pytest.MonkeyPatch) -> None:
    def reference(late: Exchange, _: Any) -> Steps[Any]:
        yield from ()
        return {"token": late.token}

    monkeypatch.setattr(exchange, "_reference", reference)


def _keeps_data_for_the_next_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SessionValues, "forget_all", SessionValues.as_unstored)


@pytest.mark.parametrize(
    ("without", "found"),
    [
        (_sends_late_cookies, _LOGGED_OUT),
        (_sends_all_cookies, "login without effect"),
        (_keeps_no_cookie, _LOGGED_OUT),
        (_names_late_requests_by_token, ENDED),
        (_keeps_data_for_the_next_user, "data of somebody else"),
    ],
)
async def test_without_a_rule(
    monkeypatch: pytest.MonkeyPatch, without: Callable[[pytest.MonkeyPatch], None], found: str
) -> None:
    """If one rule of the gateway is taken away, the simulation reports what it prevents."""
    without(monkeypatch)
    week = GatewayWeek("owasp-low", days=3, users=4, bounds=Bounds(extension=0, double_click=0.3), slow=0.25)
    report = await simulate_gateway(week)
    assert report.alarms[found], f"\n{report}"


async def test_the_same_seed() -> None:
    """The same week gives the same report, and another seed another one."""
    one = await simulate_gateway(GatewayWeek("owasp-low", days=1, users=2))
    assert str(await simulate_gateway(GatewayWeek("owasp-low", days=1, users=2))) == str(one)
    assert str(await simulate_gateway(GatewayWeek("owasp-low", seed=2, days=1, users=2))) != str(one)
