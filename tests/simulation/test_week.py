"""False alarms: a week of ordinary traffic raises none, but would without the authority's tolerances."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from sessiond.changes.idempotency import Retry
from sessiond.detection import client_facts
from sessiond.detection.suspicions import Suspicions
from sessiond.domain.policy import Policy
from sessiond.domain.session import Session
from sessiond.domain.values import Millis
from sessiond.eventlog.work import Work
from tests.simulation.bounds import MINUTE, SECOND, Bounds
from tests.simulation.expected import ELSEWHERE, ENDED, EXPECTED, Life
from tests.simulation.thief import steal
from tests.simulation.week import Week, simulate

# What must have happened for a week to count as ordinary.
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
# Nothing that the table "Normal use" covers, except responses lost for less than a minute.
_PLAIN = Bounds(
    upload=0,
    hybrid=0,
    restored=0,
    unflushed=0,
    late=0,
    late_login=0,
    double_click=0,
    two_networks=0,
    desktop_site=0,
    in_app=0,
)
# Nothing is lost, nobody changes networks, and proxies pass on everything: only concurrency is left.
_CALM = replace(_PLAIN, mobile_loss=0, wifi_loss=0, flaps=(1.0,), omitted=0)
# Ten times as many responses are lost.
_LOSSY = Week("nist-aal2", seed=2, days=3, users=6, bounds=replace(_PLAIN, mobile_loss=0.2, wifi_loss=0.03))
# Much more than usual of one part of normal use, and nothing of the others.
_MUCH: Mapping[Life, Bounds] = {
    Life.UPLOAD: replace(_CALM, upload=1),
    Life.HYBRID: replace(_CALM, hybrid=1, extension=0),
    Life.EXTENSION: replace(_CALM, hybrid=1, extension=1),
    Life.RESTORED: replace(_CALM, restored=0.5),
    Life.UNFLUSHED: replace(_CALM, unflushed=0.4),
    Life.OVERTAKEN: replace(_CALM, late=0.4),
    Life.LOST: replace(_CALM, mobile_loss=0.2, wifi_loss=0.2, give_up=(70 * SECOND, 5 * MINUTE)),
    Life.LATE_LOGIN: replace(_CALM, late_login=0.4),
    Life.DOUBLE_CLICK: replace(_CALM, double_click=1),
    Life.TWO_NETWORKS: replace(_CALM, two_networks=0.5),
    Life.DESKTOP_SITE: replace(_CALM, desktop_site=0.5),
    Life.IN_APP: replace(_CALM, in_app=1),
}


def _unchanged(policy: Policy) -> Policy:
    return policy


def _renewing(policy: Policy) -> Policy:
    return replace(policy, renewal_timeout=Millis(MINUTE))  # so that many are in flight while tokens are renewed


@pytest.mark.parametrize(("preset", "seed"), [("owasp-low", 1), ("owasp-high", 1), ("nist-aal2", 2)])
async def test_an_ordinary_week(preset: str, seed: int) -> None:
    """In a week of normal use, sessions end and alarms are raised only as the preset's table says."""
    report = await simulate(Week(preset, seed, users=6))
    sys.stdout.write(f"\n{report}\n")
    assert not report.alarms, f"\n{report}"
    assert [name for name in (*_TRAFFIC, *Life) if not report.traffic[name]] == []
    assert [name for name in _EVENTS if not report.events[name]] == []
    assert report.verdicts["SUPERSEDED"]


@pytest.mark.parametrize("preset", ["owasp-low", "owasp-high"])
@pytest.mark.parametrize("life", Life)
async def test_the_table(preset: str, life: Life) -> None:
    """Each part of normal use has all the effects that the preset's table lists for it, and no others."""
    # A renewal and a roll must overlap for one to overtake the other, which is rare with the preset's own times.
    change = _renewing if life is Life.OVERTAKEN else _unchanged
    report = await simulate(Week(preset, seed=4, days=3, users=4, bounds=_MUCH[life], change=change))
    assert report.traffic[life]
    assert not report.alarms, f"\n{report}"
    # A late answer may be lost, too, if its device leaves the network meanwhile. Then that row of the table applies.
    also = f"{Life.LOST}: " if life is Life.LATE_LOGIN else ELSEWHERE
    led_to = {key.removeprefix(f"{life}: ") for key in report.life if not key.startswith((ELSEWHERE, also))}
    assert led_to == EXPECTED[preset][life], f"\n{report}"


def test_the_documented_table() -> None:
    """The table in docs/reference/configuration.md has a row for each part of normal use, with the same name."""
    text = Path("docs/reference/configuration.md").read_text(encoding="utf-8")
    section = text.partition("\n## Normal use\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("|")]
    assert rows[2:] == [*Life, ELSEWHERE]


async def test_the_same_seed_is_the_same_time() -> None:
    """The same seed gives the same counts, and another seed gives others."""
    one, again, other = [str(await simulate(Week("owasp-low", seed, 1, 2))).partition("\n")[2] for seed in (3, 3, 4)]
    assert one == again != other


# Negative controls


_BUSY = Week("nist-aal2", seed=5, days=2, users=6, bounds=_CALM, change=_renewing)


async def test_without_the_overlap() -> None:
    """Without the overlap of renewals, requests in flight are taken for copies of old tokens."""
    report = await simulate(replace(_BUSY, change=lambda policy: replace(_renewing(policy), renewal_overlap=_NONE)))
    assert report.alarms["token_copy"]


async def test_without_the_tolerance() -> None:
    """Without the tolerance of rolls, requests in flight are taken for copies of old tokens."""
    report = await simulate(replace(_BUSY, change=lambda policy: replace(_renewing(policy), roll_tolerance=_NONE)))
    assert report.alarms["token_copy"]


async def test_lost_answers() -> None:
    """After a lost login response a user presents the old token: no alarm, but one without the tolerance."""
    report = await simulate(_LOSSY)
    assert not report.alarms, f"\n{report}"
    assert report.verdicts["MISSED"]
    report = await simulate(replace(_LOSSY, change=lambda policy: replace(policy, lost_answer_tolerance=_NONE)))
    assert report.alarms["token_copy"]


async def test_with_the_tolerances() -> None:
    """With both tolerances the same requests in flight are no replays, and there were some."""
    report = await simulate(_BUSY)
    assert not report.alarms, f"\n{report}"
    assert report.traffic["older tokens in flight"]
    assert report.verdicts["SUPERSEDED"]


async def test_without_kept_logins(monkeypatch: pytest.MonkeyPatch) -> None:
    """If responses to logins were not stored, an application that retries would be refused."""
    keep = Retry.keep

    def forget(self: Retry, work: Work, message: bytes, granted: Session | None) -> None:
        if not self.while_current:
            keep(self, work, message, granted)

    monkeypatch.setattr(Retry, "keep", forget)
    with pytest.raises(AssertionError, match="AuthenticateSession answered a repeated call differently"):
        await simulate(Week("nist-aal2", days=1, users=4, bounds=Bounds(repeat_call=0.2)))


async def test_without_the_grain_of_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    """If user agents were compared with their versions, updates would raise alarms."""
    monkeypatch.setattr(client_facts, "_agent", lambda user_agent: user_agent)
    report = await simulate(Week("nist-aal2", days=3, users=4))
    assert report.alarms["user_agent_change"]


async def test_without_related_agents() -> None:
    """Without `related_agents` a hybrid app looks like two clients that alternate."""
    week = Week("owasp-low", days=2, users=4, bounds=_MUCH[Life.HYBRID])
    report = await simulate(replace(week, change=lambda policy: replace(policy, related_agents=())))
    assert report.alarms["user_agent_change"]
    assert report.alarms["concurrent_use"]


async def test_without_the_own_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a session's own client were not recognized, late uploads would end sessions even under `owasp-low`."""
    monkeypatch.setattr(Suspicions, "is_own_client", lambda *_: False)
    report = await simulate(Week("owasp-low", days=3, users=4, bounds=_MUCH[Life.UPLOAD]))
    assert report.alarms["token_replay"]
    assert report.alarms[ENDED]


async def test_a_thief_among_ordinary_users() -> None:
    """A thief who uses the cookies of ordinary users raises alarms."""
    report = await simulate(Week("owasp-low", days=1, users=4), steal)
    assert report.alarms["user_agent_change"]
