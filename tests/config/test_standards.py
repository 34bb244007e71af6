"""Settings that are weaker than the guidance: each is reported with its line and its source."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sessiond.config import Config, Departure, departures, load_config
from sessiond.domain.policy import PRESETS
from sessiond.domain.signals import Reaction, SignalType

REMEMBER = 'remember_idle_timeout = "7d"\nremember_absolute_timeout = "30d"\n'


def configured(folder: Path, text: str, preset: str = "owasp-low") -> Config:
    """Return a configuration of one application, whose settings begin on line 3."""
    path = folder / "sessiond.toml"
    path.write_text(f'[applications.shop]\npreset = "{preset}"\n{text}', encoding="utf-8")
    return load_config(path)


@pytest.mark.parametrize("preset", PRESETS)
def test_no_preset_departs(tmp_path: Path, preset: str) -> None:
    """No preset is weaker than the guidance."""
    assert departures(configured(tmp_path, "", preset)) == []


def test_without_a_file() -> None:
    """The default configuration is not weaker than the guidance."""
    assert departures(load_config(None)) == []


# The preset, the setting, how the message begins, how the source begins, and what else the source contains.
FOUND = {
    "low idle": ("owasp-low", 'idle_timeout = "31m"', "31m without activity; 15 to 30", "OWASP", "Session Expiration"),
    "low no idle": (
        "owasp-low",
        'idle_timeout = "none"',
        "an inactive session never expires",
        "OWASP",
        "ASVS 5.0 7.3.1",
    ),
    "high idle": ("owasp-high", 'idle_timeout = "6m"', "6m without activity; 2 to 5", "OWASP", "Session Expiration"),
    "low absolute": ("owasp-low", 'absolute_timeout = "9h"', "a session may last 9h; 4 to 8", "OWASP", "Expiration"),
    "high absolute": ("owasp-high", 'absolute_timeout = "481m"', "a session may last 8h1m", "OWASP", "Expiration"),
    "no absolute": ("owasp-low", 'absolute_timeout = "none"', "an active session never expires", "OWASP", "7.3.2"),
    "aal1 absolute": ("nist-aal1", 'absolute_timeout = "31d"', "a session may last 31d", "NIST", "2.1.3"),
    "aal2 absolute": ("nist-aal2", 'absolute_timeout = "25h"', "a session may last 1d1h", "NIST", "2.2.3"),
    "aal2 no absolute": ("nist-aal2", 'absolute_timeout = "none"', "an active session never expires", "NIST", "2.2.3"),
    "aal2 idle": ("nist-aal2", 'idle_timeout = "61m"', "1h1m without activity", "NIST", "2.2.3"),
    "aal2 no idle": (
        "nist-aal2",
        'idle_timeout = "none"',
        "an inactive session never expires",
        "NIST",
        "2.2.3; ASVS 5.0 7.3.1",
    ),
    "aal3 absolute": ("nist-aal3", 'absolute_timeout = "13h"', "a session may last 13h", "NIST", "2.3.3"),
    "aal3 idle": ("nist-aal3", 'idle_timeout = "16m"', "16m without activity", "NIST", "2.3.3"),
    "refresh": ("owasp-low", "refresh_extends_lifetime = true", "a refresh without", "OWASP", "NIST"),
    "no renewal": ("owasp-low", 'renewal_timeout = "none"', "tokens are never renewed", "sessiond", ""),
    "overlap": ("owasp-low", 'renewal_overlap = "6m"', "6m is more than 5m", "sessiond", ""),
    "tolerance": ("owasp-low", 'roll_tolerance = "61s"', "1m1s is more than 60s", "sessiond", ""),
    "renewal as long as a repeat": (
        "owasp-low",
        'renewal_timeout = "1m"\nrenewal_overlap = "10s"',
        "1m is not longer than lost_answer_tolerance (1m)",
        "sessiond",
        "",
    ),
    "renewal within requests in flight": (
        "owasp-low",
        'renewal_timeout = "30s"\nrenewal_overlap = "10s"\nroll_tolerance = "40s"\nlost_answer_tolerance = "1s"',
        "30s is not longer than roll_tolerance (40s)",
        "sessiond",
        "",
    ),
    "old csrf": ("owasp-low", 'csrf_overlap = "61m"', "1h1m is more than 1h", "sessiond", ""),
    "elevation": ("owasp-low", 'elevation_timeout = "61m"', "1h1m is more than 1h", "sessiond", ""),
    "login": ("owasp-low", 'login_timeout = "2h"', "2h is more than 1h", "sessiond", ""),
    "companion time": ("owasp-low", 'companion_timeout = "2h"', "2h is more than 1h", "sessiond", ""),
    "no lock": ("owasp-low", "guessing.lock_after = 0", "guessing tokens raises", "sessiond", ""),
    "replay ignored": ("owasp-low", 'reactions.token_replay = "ignore"', "is ignored", "NIST", "5.3"),
    "replay alerted": ("owasp-low", 'reactions.token_replay = "alert"', '"alert" leaves', "sessiond", ""),
    "replay stepped": ("owasp-low", 'reactions.token_replay = "step-up"', '"step-up" leaves', "sessiond", ""),
    "two clients": ("owasp-low", 'reactions.concurrent_use = "ignore"', "is ignored", "NIST", "5.3"),
    "reported": ("owasp-low", 'reactions.reported = "ignore"', "is ignored", "NIST", "5.3"),
    "agent": ("owasp-low", 'reactions.user_agent_change = "ignore"', "is ignored", "OWASP", "Attacks Detection"),
    "country": ("owasp-low", 'reactions.country_change = "ignore"', "is ignored", "OWASP", "Attacks Detection"),
    "certificate": ("owasp-low", 'reactions.certificate_mismatch = "ignore"', "is ignored", "OWASP", "Attacks"),
    "device": ("owasp-low", 'reactions.device_mismatch = "ignore"', "is ignored", "OWASP", "Attacks"),
    "companion": (
        "owasp-low",
        'reactions.companion_mismatch = "step-up"',
        '"step-up" does not',
        "a practitioner's",
        "",
    ),
    "insecure": ("owasp-low", "cookie.secure = false", "browsers send", "OWASP", "ASVS 5.0 3.3.1; NIST"),
    "path": ("owasp-low", 'cookie.path = "/shop"', "with a path other", "ASVS 5.0 3.3.3", "NIST"),
    "nothing cleared": ("owasp-low", "cookie.clear_site_data = []", "at logout the browser", "ASVS 5.0 14.3.1", ""),
    "cookies cleared": (
        "owasp-low",
        'cookie.clear_site_data = ["cache", "cookies"]',
        '"cookies" clears the cookies of every host of the registrable domain',
        "sessiond",
        "",
    ),
    "everything cleared": ("owasp-high", 'cookie.clear_site_data = ["*"]', '"*" clears the cookies', "sessiond", ""),
    "cleared twice": ("owasp-low", 'cookie.clear_site_data = ["*", "cookies"]', '"cookies" clears', "sessiond", ""),
    "other sites": ("owasp-low", 'cookie.same_site = "None"', '"None" sends the cookie', "ASVS 5.0 3.3.2", "5.1.1"),
    "a known name": ("owasp-low", 'cookie.name = "JSESSIONID"', '"JSESSIONID" reveals', "OWASP", "Fingerprinting"),
    "another known name": ("owasp-low", 'cookie.anonymous_name = "PHPSESSID"', '"PHPSESSID"', "OWASP", "Finger"),
}


@pytest.mark.parametrize(("preset", "setting", "message", "document", "section"), FOUND.values(), ids=FOUND.keys())
def test_a_departure(tmp_path: Path, preset: str, setting: str, message: str, document: str, section: str) -> None:
    """A setting weaker than the guidance is reported once, with its key, its line and its source."""
    (found,) = departures(configured(tmp_path, setting, preset))
    assert (found.application, found.key) == ("shop", setting.partition(" ")[0])
    assert found.origin == f"{tmp_path / 'sessiond.toml'}:3"
    assert found.message.startswith(message)
    assert found.source.startswith(document)
    assert section in found.source


NOTHING_FOUND = {
    "low idle": ("owasp-low", 'idle_timeout = "30m"'),
    "low idle, strict": ("owasp-low", 'idle_timeout = "1m"'),
    "low absolute": ("owasp-low", 'absolute_timeout = "8h"'),
    "aal1 idle": ("nist-aal1", 'idle_timeout = "20d"'),
    "any number of sessions": ("owasp-low", "max_sessions = 0"),
    "overlap": ("owasp-low", 'renewal_overlap = "5m"'),
    "tolerance": ("owasp-low", 'roll_tolerance = "60s"'),
    "renewal longer than a repeat": ("owasp-high", 'lost_answer_tolerance = "899s"'),
    "elevation": ("owasp-low", 'elevation_timeout = "1h"'),
    "old csrf": ("owasp-low", 'csrf_overlap = "1h"'),
    "no old csrf": ("owasp-low", 'csrf_overlap = "0s"'),
    "replay": ("owasp-low", 'reactions.token_replay = "revoke-subject"'),
    "companion": ("owasp-low", 'reactions.companion_mismatch = "revoke-subject"'),
    "addresses change": ("owasp-high", 'reactions.ip_change = "ignore"'),
    "same site": ("owasp-low", 'cookie.same_site = "Strict"'),
    "cleared": ("owasp-low", 'cookie.clear_site_data = ["storage"]'),
    "all of this origin cleared": (
        "owasp-low",
        'cookie.clear_site_data = ["cache", "storage", "executionContexts"]',
    ),
    "partitioned": ("owasp-low", "cookie.partitioned = true"),
    "anonymous history": ("owasp-low", 'anonymous_retention = "90d"'),
    "locked sources": ("owasp-low", "guessing.deny_valid = true"),
}


@pytest.mark.parametrize(("preset", "setting"), NOTHING_FOUND.values(), ids=NOTHING_FOUND.keys())
def test_no_departure(tmp_path: Path, preset: str, setting: str) -> None:
    """A setting that the guidance allows, its limits included, is not reported."""
    assert departures(configured(tmp_path, setting, preset)) == []


def keys(found: list[Departure]) -> dict[str, str]:
    return {departure.key: departure.source for departure in found}


def test_remembering(tmp_path: Path) -> None:
    """Remembering sessions is itself a departure, because it needs persistent cookies."""
    found = keys(departures(configured(tmp_path, REMEMBER)))
    assert list(found) == ["remember_idle_timeout"]
    assert "NIST SP 800-63B-4 section 5.1" in found["remember_idle_timeout"]


@pytest.mark.parametrize(("level", "departs"), [(0, False), (1, False), (2, True), (3, True)])
def test_remembering_without_fall_of_level(tmp_path: Path, level: int, departs: bool) -> None:
    """A remembered session that keeps a level above 1 without activity is reported."""
    found = keys(departures(configured(tmp_path, f"{REMEMBER}remember_level = {level}\n")))
    assert ("remember_level" in found) is departs


def test_remembering_without_idle_timeout(tmp_path: Path) -> None:
    """A remembered session whose level never falls is reported with the preset as the origin."""
    found = departures(configured(tmp_path, REMEMBER, "nist-aal1"))
    assert [(departure.key, departure.origin) for departure in found][1:] == [("idle_timeout", "preset nist-aal1")]


@pytest.mark.parametrize(("preset", "departs"), [("nist-aal1", False), ("nist-aal2", True), ("owasp-low", False)])
def test_remembering_for_longer_than_the_overall_timeout(tmp_path: Path, preset: str, departs: bool) -> None:
    """NIST's overall timeout applies to remembered sessions too."""
    assert ("remember_absolute_timeout" in keys(departures(configured(tmp_path, REMEMBER, preset)))) is departs


def test_an_insecure_cookie_is_reported_once(tmp_path: Path) -> None:
    """For a cookie without `secure` the path is not reported: it has no prefix anyway."""
    found = departures(configured(tmp_path, 'cookie = { secure = false, path = "/shop" }\n'))
    assert [departure.key for departure in found] == ["cookie.secure"]


def test_a_signal_without_reaction() -> None:
    """A signal without a reaction counts as ignored."""
    config = load_config(None)
    policy = config.policies["default"]
    reactions: dict[SignalType, Reaction] = dict(policy.reactions)
    del reactions[SignalType.TOKEN_REPLAY]
    (found,) = departures(replace(config, policies={"default": replace(policy, reactions=reactions)}))
    assert found.key == "reactions.token_replay"


def test_plain_text_beyond_this_machine(tmp_path: Path) -> None:
    """Plain text on the network is reported as a setting of the server, not of an application."""
    path = tmp_path / "sessiond.toml"
    path.write_text("[server]\nallow_remote_plaintext = true\n", encoding="utf-8")
    (found,) = departures(load_config(path))
    assert (found.application, found.key, found.origin) == ("", "server.allow_remote_plaintext", f"{path}:2")
    assert found.source == "NIST SP 800-63B-4 section 5.1"


def test_every_application_is_compared_with_its_own_preset(tmp_path: Path) -> None:
    """Applications are reported in order, each compared with the document that its preset follows."""
    path = tmp_path / "sessiond.toml"
    path.write_text(
        '[applications.a]\nabsolute_timeout = "12h"\n'
        '[applications.b]\npreset = "nist-aal2"\nabsolute_timeout = "12h"\n'
        '[applications.c]\npreset = "owasp-high"\nabsolute_timeout = "12h"\n',
        encoding="utf-8",
    )
    found = departures(load_config(path))
    assert [(departure.application, departure.origin) for departure in found] == [
        ("a", f"{path}:2"),
        ("c", f"{path}:8"),
    ]
