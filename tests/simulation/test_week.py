"""False alarms: a week of ordinary traffic raises none, and would raise some without the authority's tolerances."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from sessiond.changes.idempotency import Retry
from sessiond.detection import client_facts
from sessiond.domain.policy import Policy
from sessiond.domain.session import Session
from sessiond.domain.values import Millis
from sessiond.eventlog.work import Work
from tests.simulation.bounds import MINUTE, Bounds
from tests.simulation.thief import steal
from tests.simulation.week import Week, simulate

# What must have happened for a week to count as one.
_TRAFFIC = (
    "address changes",
    "browser updates",
    "by IPv4",
    "by IPv6",
    "calls repeated",
    "contexts cut",
    "renewals offered",
    "responses lost",
    "step-ups",
)
_EVENTS = ("session_authenticated", "session_expired", "session_renewed", "session_revoked", "session_rolled")
_NONE = Millis(1)
# Nothing is lost, nobody walks about: what is left is concurrency.
_CALM = Bounds(mobile_loss=0, wifi_loss=0, flaps=(1.0,))
# Ten times as many answers are lost.
_LOSSY = Week("nist-aal2", seed=2, days=3, users=6, bounds=Bounds(mobile_loss=0.2, wifi_loss=0.03))


@pytest.mark.parametrize("preset", ["owasp-low", "owasp-high", "nist-aal2"])
async def test_an_ordinary_week(preset: str) -> None:
    """A week of ordinary traffic revokes no session, and alarms only to changes of address that the policy names."""
    report = await simulate(Week(preset, users=5))
    sys.stdout.write(f"\n{report}\n")
    assert not report.alarms, f"\n{report}"
    assert [name for name in _TRAFFIC if not report.traffic[name]] == []
    assert [name for name in _EVENTS if not report.events[name]] == []
    assert report.verdicts["SUPERSEDED"]


async def test_the_same_seed_is_the_same_time() -> None:
    """A seed gives the same counts again, and another seed others."""
    one, again, other = [str(await simulate(Week("owasp-low", seed, 1, 2))).partition("\n")[2] for seed in (3, 3, 4)]
    assert one == again != other


# Negative controls


def _renewing(policy: Policy) -> Policy:
    return replace(policy, renewal_timeout=Millis(MINUTE))  # so that much is in flight while tokens are renewed


_BUSY = Week("nist-aal2", seed=5, days=2, users=6, bounds=_CALM, change=_renewing)


async def test_without_the_overlap() -> None:
    """Without the overlap of renewals, requests in flight pass for replays."""
    report = await simulate(replace(_BUSY, change=lambda policy: replace(_renewing(policy), renewal_overlap=_NONE)))
    assert report.alarms["token_replay"]


async def test_without_the_tolerance() -> None:
    """Without the tolerance of rolls, requests in flight pass for replays."""
    report = await simulate(replace(_BUSY, change=lambda policy: replace(_renewing(policy), roll_tolerance=_NONE)))
    assert report.alarms["token_replay"]


async def test_lost_answers() -> None:
    """Users whose login's answer is lost come back with the token from before: no alarm, and one without tolerance."""
    report = await simulate(_LOSSY)
    assert not report.alarms, f"\n{report}"
    assert report.verdicts["MISSED"]
    report = await simulate(replace(_LOSSY, change=lambda policy: replace(policy, lost_answer_tolerance=_NONE)))
    assert report.alarms["token_replay"]


async def test_with_the_tolerances() -> None:
    """With both of them the same requests in flight are no replays, and there were some."""
    report = await simulate(_BUSY)
    assert report.alarms["token_replay"] == 0
    assert report.traffic["older tokens in flight"]
    assert report.verdicts["SUPERSEDED"]


async def test_without_kept_logins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were answers to logins not kept, an application that asks once more would be refused instead of answered."""
    keep = Retry.keep

    def forget(self: Retry, work: Work, message: bytes, granted: Session | None) -> None:
        if not self.while_current:
            keep(self, work, message, granted)

    monkeypatch.setattr(Retry, "keep", forget)
    with pytest.raises(AssertionError, match="AuthenticateSession answered a repeated call differently"):
        await simulate(Week("nist-aal2", days=1, users=4, bounds=Bounds(repeat_call=0.2)))


async def test_without_the_grain_of_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were user agents compared with their versions, updates would be alarms."""
    monkeypatch.setattr(client_facts, "_agent", lambda user_agent: user_agent)
    report = await simulate(Week("nist-aal2", days=3, users=4))
    assert report.alarms["user_agent_change"]


async def test_a_thief_among_ordinary_users() -> None:
    """A thief who uses the cookies of ordinary users raises alarms."""
    report = await simulate(Week("owasp-low", days=1, users=4), steal)
    assert report.alarms["user_agent_change"]
