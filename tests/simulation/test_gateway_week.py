"""A week of web traffic through the gateway logs nobody out and mixes up no data, but would without its rules."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from sessiond.domain import reactions
from sessiond.domain.judge import Judgement
from sessiond.domain.policy import Policy
from sessiond.domain.session import Session
from sessiond.domain.values import Millis
from sessiond_client import Verdict
from sessiond_client.answers import Validation
from sessiond_client.gateway import Exchange, SessionValues, exchange
from sessiond_client.gateway.outgoing import Headers, Outgoing
from sessiond_client.gateway.steps import Steps
from tests.simulation.bounds import MINUTE, Bounds
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
_NO_EFFECT = "login without effect"


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


def _obeys_in_answers_to_forms(monkeypatch: pytest.MonkeyPatch, *verdicts: Verdict) -> None:
    """The gateway deletes the cookie whenever the server says so, as the simplest application does."""

    def take(taking: Exchange, answer: Validation) -> None:
        original(taking, answer)
        if answer.verdict in verdicts:
            taking._outgoing.validated(answer.cookies.headers())

    original = exchange._take
    monkeypatch.setattr(exchange, "_take", take)


def _deletes_cookies_in_answers_to_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    _obeys_in_answers_to_forms(monkeypatch, *(verdict for verdict in Verdict if verdict is not Verdict.VALID))


def _deletes_old_tokens_in_answers_to_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    _obeys_in_answers_to_forms(monkeypatch, Verdict.REPLAYED)


# ... or one half of the server's rule


def _discards_after_a_missed_roll(monkeypatch: pytest.MonkeyPatch) -> None:
    def may_hold_newer_token(session: Session, judgement: Judgement) -> bool:
        return not judgement.may_have_missed_roll and original(session, judgement)

    original = reactions._may_hold_newer_token
    monkeypatch.setattr(reactions, "_may_hold_newer_token", may_hold_newer_token)


def _discards_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    _deletes_old_tokens_in_answers_to_forms(monkeypatch)  # otherwise the gateway's own rule hides the difference

    def may_hold_newer_token(_: Session, judgement: Judgement) -> bool:
        return judgement.may_have_missed_roll

    monkeypatch.setattr(reactions, "_may_hold_newer_token", may_hold_newer_token)


def _renewing(policy: Policy) -> Policy:
    return replace(policy, renewal_timeout=Millis(MINUTE))  # so that many logins come while a renewal is due


@pytest.mark.parametrize(
    ("without", "found"),
    [
        (_sends_late_cookies, _LOGGED_OUT),
        (_sends_all_cookies, _NO_EFFECT),
        (_keeps_no_cookie, _LOGGED_OUT),
        (_names_late_requests_by_token, ENDED),
        (_keeps_data_for_the_next_user, "data of somebody else"),
    ],
)
async def test_without_a_rule(
    monkeypatch: pytest.MonkeyPatch, without: Callable[[pytest.MonkeyPatch], None], found: str
) -> None:
    """If one rule of the gateway is taken away, the simulation reports what it prevents."""
    week = GatewayWeek("owasp-low", days=3, users=4, bounds=Bounds(extension=0, double_click=0.3), slow=0.25)
    if found == _NO_EFFECT:
        week = replace(week, days=1, change=_renewing)
        assert not (await simulate_gateway(week)).alarms[found]
    without(monkeypatch)
    report = await simulate_gateway(week)
    assert report.alarms[found], f"\n{report}"


# Much more than usual of what brings old tokens back late
_UPLOADS = Bounds(extension=0, upload=1.0, double_click=0.3)
_LATE_LOGINS = Bounds(extension=0, late_login=0.5, mobile_stall=0.3, wifi_stall=0.3, double_click=0.3)


def _nothing(_: pytest.MonkeyPatch) -> None:
    pass


@pytest.mark.parametrize(
    ("without", "bounds", "logs_out"),
    [
        (_nothing, _UPLOADS, False),
        (_deletes_old_tokens_in_answers_to_forms, _UPLOADS, False),
        (_discards_copies, _UPLOADS, True),
        (_deletes_cookies_in_answers_to_forms, _UPLOADS, True),
        (_nothing, _LATE_LOGINS, False),
        (_discards_after_a_missed_roll, _LATE_LOGINS, True),
    ],
)
async def test_late_answers_log_nobody_out(
    monkeypatch: pytest.MonkeyPatch, without: Callable[[pytest.MonkeyPatch], None], bounds: Bounds, logs_out: bool
) -> None:
    """However many uploads and logins are late, nobody loses the cookie of a live session, but would without a rule.
    Against late uploads the server's rule is enough, even if an application deletes cookies in its answers to forms.
    """
    without(monkeypatch)
    report = await simulate_gateway(GatewayWeek("owasp-low", days=3, users=4, bounds=bounds))
    assert report.verdicts["OLD"] > 10
    assert not report.alarms[_NO_EFFECT]
    assert bool(report.alarms[_LOGGED_OUT]) is logs_out, f"\n{report}"


async def test_the_same_seed() -> None:
    """The same week gives the same report, and another seed another one."""
    one = await simulate_gateway(GatewayWeek("owasp-low", days=1, users=2))
    assert str(await simulate_gateway(GatewayWeek("owasp-low", days=1, users=2))) == str(one)
    assert str(await simulate_gateway(GatewayWeek("owasp-low", seed=2, days=1, users=2))) != str(one)
