"""`sessionctl` and defence: policies and their origins, locks, limits, suspicions, step-up, remembered sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from sessiond.app import App
from sessiond.config import effective as configured
from sessiond.domain.policy import PRESETS
from sessiond_client import Authentication, ClientContext, Lifetimes, Verdict
from tests.sessionctl.operator import Operator
from tests.support.clock import ManualClock
from tests.support.server import config_for, serving

CONFIG = """
[applications.shop]
preset = "owasp-low"
idle_timeout = "20m"
remember_idle_timeout = "7d"
remember_absolute_timeout = "30d"
cookie = { anonymous_name = "visitor" }

[applications.shop.guessing]
alarm_after = 2
lock_after = 3

[applications.ask]
max_sessions = 1
on_limit = "ask"

[applications.few]
max_sessions = 1
on_limit = "reject"

[applications.one]
max_sessions = 1
"""
NOBODY = "01a1ffcf-d799-7113-b468-5af8f30eb242"
PASSWORD = Authentication(level=1, methods=("pwd",))
SECOND_FACTOR = Authentication(level=2, methods=("pwd", "otp"))
GUESSER = ClientContext(ip_address="192.0.2.66")
MINUTE = 60_000


@pytest.fixture
async def app(tmp_path: Path, clock: ManualClock) -> AsyncIterator[App]:
    """A server whose applications have different policies."""
    async with serving(config_for(tmp_path, CONFIG), clock) as app:
        yield app


async def guess(operator: Operator) -> None:
    """Present so many forged tokens from one address that it is locked."""
    for _ in range(3):
        assert (await operator.client.validate("A" * 70, client=GUESSER)).verdict is Verdict.FORGED


# Policies


async def test_policies_have_origins(operator: Operator) -> None:
    """Each value has the preset or the line that it comes from, and is written as in the configuration."""
    (document,) = await operator.json("policies")
    assert document["application"] == "shop"
    values = document["values"]
    assert values["idle_timeout"] == {"value": "20m", "origin": "sessiond.toml:4"}
    assert values["absolute_timeout"] == {"value": "8h", "origin": "preset owasp-low"}
    assert values["cookie.anonymous_name"] == {"value": "visitor", "origin": "sessiond.toml:7"}
    assert "cookies" not in values["cookie.clear_site_data"]["value"]  # it would log out sibling hosts of the domain
    assert values["cookie.secure"]["value"] is True
    assert values["guessing.lock_after"] == {"value": 3, "origin": "sessiond.toml:11"}
    assert values["reactions.token_replay"] == {"value": "revoke-session", "origin": "preset owasp-low"}
    assert values["reactions.device_mismatch"]["value"] == "step-up"


async def test_policies_leave_nothing_out(operator: Operator) -> None:
    """All values of the configuration are shown, in its order, each with an origin."""
    (document,) = await operator.json("policies")
    assert list(document["values"]) == list(configured(PRESETS["owasp-low"]))
    assert all(entry["origin"] for entry in document["values"].values())


async def test_policies_show_the_names_of_the_cookies(operator: Operator) -> None:
    """The cookies' names as browsers send them are shown apart from the values, since they cannot be configured."""
    (document,) = await operator.json("policies")
    assert document["cookie_names"] == {"browser_name": "__Host-id", "browser_anonymous_name": "__Host-visitor"}
    assert not [key for key in document["values"] if "browser" in key]
    lines = [line.split() for line in (await operator.type("policies")).stdout.splitlines()]
    assert ["cookie.browser_name", "__Host-id", "derived"] in lines
    assert ["cookie.browser_anonymous_name", "__Host-visitor", "derived"] in lines


async def test_policies_for_people(operator: Operator) -> None:
    """The table has one value a line with its origin; no timeout is `none`."""
    lines = (await operator.type("policies")).stdout.splitlines()
    assert lines[0] == "application: shop"
    assert lines[1].split() == ["KEY", "VALUE", "ORIGIN"]
    assert ["idle_timeout", "20m", "sessiond.toml:4"] in [line.split() for line in lines]
    assert ["renewal_overlap", "1m", "preset", "owasp-low"] in [line.split() for line in lines]
    others = (await operator.type("policies", "--application", "few")).stdout.splitlines()
    assert ["remember_idle_timeout", "none", "preset", "owasp-low"] in [line.split() for line in others]


async def test_policies_of_all_applications_or_of_one(operator: Operator) -> None:
    """Without --application the policies of all applications are shown."""
    everything = await operator.anywhere("policies", "--json")
    assert everything.stdout.count('{"application"') == 4


# Locks


async def test_a_locked_source_is_listed_and_unlocked(operator: Operator) -> None:
    """`locks` lists a locked source with its times; `locks clear` unlocks it with a reason, once."""
    assert await operator.json("locks") == []
    await guess(operator)
    (lock,) = await operator.json("locks")
    assert lock == {
        "source": "192.0.2.66/32",
        "application": "shop",
        "lock_time": "2027-01-15T08:00:00.000Z",
        "expire_time": "2027-01-15T08:15:00.000Z",
    }
    header, line = (await operator.type("locks")).stdout.splitlines()
    assert header.split() == ["SOURCE", "APPLICATION", "LOCKED", "ENDS"]
    assert line.split() == ["192.0.2.66/32", "shop", "now", "in", "15m"]
    cleared = await operator.type("locks", "clear", "192.0.2.66/32", "--reason", "a café")
    assert cleared.stdout == "unlocked: 192.0.2.66/32\n"
    assert await operator.json("locks") == []
    (event,) = await operator.json("watch", "--earliest", "--type", "source_unlocked", "--limit", "1")
    assert (event["source"], event["cause"]["reason"]) == ("192.0.2.66/32", "a café")
    again = await operator.type("locks", "clear", "192.0.2.66/32")
    assert (again.exit_code, again.stderr.count("\n")) == (1, 1)
    assert "--application" in again.stderr
    broken = await operator.type("locks", "clear", "foo")
    assert (broken.exit_code, broken.stderr) == (
        2,
        "Error: SOURCE: not a network; write it as `sessionctl locks` shows it\n",
    )


async def test_locks_of_all_applications(operator: Operator) -> None:
    """Without --application the locks of all applications are listed, with it those of one."""
    await guess(operator)
    assert "192.0.2.66/32  shop" in (await operator.anywhere("locks")).stdout
    assert (await operator.type("locks", "--application", "few")).stdout == ""


# What people see of sessions and events


async def test_what_is_unusual_about_a_session_is_shown(operator: Operator, clock: ManualClock) -> None:
    """`show` and `list` say whether a session is a login page's, remembered or elevated."""
    clock.advance(1)
    guest = await operator.open("", login_page=True)
    kept = await operator.open("bob", persistent=True)
    plain = await operator.open("ada", authentication=PASSWORD)
    raised = await operator.client.authenticate(plain.token, "ada", authentication=SECOND_FACTOR, elevate=True)
    operator.tokens.append(raised.token.reveal() if raised.token else "")
    ordinary = await operator.open("eve")
    marks = {
        guest.session.session_id: ("login timeout", "login page"),
        kept.session.session_id: ("remembered", "remembered"),
        plain.session.session_id: ("elevation ends", "elevated"),
    }
    listed = (await operator.type("list")).stdout.splitlines()
    for session_id in (*marks, ordinary.session.session_id):
        shown = (await operator.type("show", session_id)).stdout
        (line,) = [line for line in listed if session_id in line]
        for other, (fact, mark) in marks.items():
            assert (fact in shown) is (other == session_id)
            assert (mark in line) is (other == session_id)


async def test_devices_are_shown_in_words(operator: Operator, clock: ManualClock) -> None:
    """`show` has the devices of the opening and of the last use, `list` the latter, and JSON both."""
    opened = ClientContext(
        ip_address="192.0.2.10", user_agent="Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
    )
    later = ClientContext(
        ip_address="192.0.2.77", user_agent="Mozilla/5.0 (X11; Linux x86_64; rv:141.0) Gecko/20100101 Firefox/141.0"
    )
    created = await operator.open(client=opened)
    clock.advance(5 * MINUTE)
    await operator.client.validate(created.token, client=later)
    shown = [line.split() for line in (await operator.type("show", created.session.session_id)).stdout.splitlines()]
    assert ["device", "Firefox", "140", "on", "Linux", "(desktop)"] in shown
    assert ["last", "device", "Firefox", "141", "on", "Linux", "(desktop)"] in shown
    assert ["last", "ip", "address", "192.0.2.77"] in shown
    assert "Firefox 141 on Linux (desktop)" in (await operator.type("list")).stdout
    (machine,) = await operator.json("list")
    assert machine["device"] == {"description": "Firefox 140 on Linux", "type": "DESKTOP"}
    assert machine["last_client"]["ip_address"] == "192.0.2.77"


async def test_timeouts_of_a_session_are_shown(operator: Operator) -> None:
    """`show` has a session's own timeouts, if there are any, as the configuration writes them."""
    own = Lifetimes(idle_timeout=timedelta(minutes=5))
    created, plain = await operator.open(lifetimes=own), await operator.open()
    shown = (await operator.type("show", created.session.session_id)).stdout
    assert ["own", "idle", "limit", "5m"] in [line.split() for line in shown.splitlines()]
    assert "own absolute limit" not in shown
    assert "own idle limit" not in (await operator.type("show", plain.session.session_id)).stdout


async def test_an_alarm_has_its_reaction(operator: Operator) -> None:
    """`activity` and `watch` show the reaction to a suspicion."""
    created = await operator.open()
    await operator.client.report_signal(token=created.token, reason="odd")
    for command in (("activity", "--subject", "ada"), ("watch", "--earliest", "--limit", "2")):
        lines = (await operator.type(*command)).stdout.splitlines()
        (alarm,) = [line for line in lines if "HIJACK_SUSPECTED" in line]
        assert "REPORTED: odd" in alarm
        assert "expected" not in alarm
        assert "reaction ALERT" in alarm
        assert not [line for line in lines if "SESSION_CREATED" in line and "reaction" in line]


async def test_a_guess_has_its_source(operator: Operator) -> None:
    """`watch` shows the source of an event without a session, and does not call its subject anonymous."""
    await guess(operator)
    _, *lines = (await operator.type("watch", "--earliest", "--limit", "2")).stdout.splitlines()
    assert ["GUESSING_SUSPECTED" in lines[0], "SOURCE_LOCKED" in lines[1]] == [True, True]
    assert all("source 192.0.2.66/32" in line and "(anonymous)" not in line for line in lines)


# Requirements, limits, reports


async def test_validate_can_require_a_level_and_an_age(operator: Operator, clock: ManualClock) -> None:
    """A token that does not meet a requirement is exit code 3, and the remedy is shown."""
    created = await operator.open(authentication=PASSWORD)
    token = created.token.reveal()
    clock.advance(10 * MINUTE)
    low = await operator.type("validate", "--min-level", "2", stdin=token)
    assert (low.exit_code, "INSUFFICIENT" in low.stdout, "STEP_UP" in low.stdout) == (3, True, True)
    assert "unmet LEVEL" in low.stdout
    (old,) = await operator.json("validate", "--max-age", "9m30s", stdin=token)
    assert old["verdict"] == "INSUFFICIENT"
    assert [(item["kind"], item["max_authentication_age"]) for item in old["unmet"]] == [("AUTHENTICATION_AGE", 570.0)]
    both = await operator.type("validate", "--min-level", "1", "--max-age", "11m", stdin=token)
    assert (both.exit_code, both.stdout.startswith("VALID")) == (0, True)


@pytest.mark.parametrize("application", ["ask", "few"])
async def test_create_shows_the_sessions_at_the_limit(operator: Operator, application: str) -> None:
    """At the limit `create` opens nothing, lists the live sessions, shows no ticket, and ends with exit code 1."""
    first = await operator.type("create", "--subject", "ada", "--application", application)
    session_id = first.stdout.splitlines()[1].split()[1]
    refused = await operator.type("create", "--subject", "ada", "--application", application)
    assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)
    assert "limit of 1 live session; end one with" in refused.stderr
    _, live = refused.stdout.splitlines()
    assert live.split()[:2] == ["ada", session_id]
    machine = await operator.type("create", "--subject", "ada", "--application", application, "--json")
    assert (machine.exit_code, '"max_sessions": 1' in machine.stdout, "ticket" in machine.stdout) == (1, True, False)
    assert session_id in machine.stdout


async def test_create_names_evicted_sessions(operator: Operator) -> None:
    """If the policy evicts a session, `create` names it."""
    first = await operator.type("create", "--subject", "ada", "--application", "one")
    second = await operator.type("create", "--subject", "ada", "--application", "one")
    assert ["evicted", "session", first.stdout.splitlines()[1].split()[1]] in [
        line.split() for line in second.stdout.splitlines()
    ]


async def test_a_suspicion_can_be_reported(operator: Operator) -> None:
    """`report` shows the reaction; for an ended session there is none, and an unknown one is refused."""
    created = await operator.open()
    session_id = created.session.session_id
    reported = await operator.type("report", session_id, "--reason", "odd transfers")
    assert (reported.exit_code, reported.stdout) == (0, "reported: reaction ALERT\n")
    assert "odd transfers" in (await operator.type("activity", "--subject", "ada")).stdout
    await operator.client.revoke(session_id=session_id)
    ended = await operator.type("report", "--session-id", session_id, "--reason", "late")
    assert (ended.exit_code, ended.stdout) == (0, "nothing to do: the session is REVOKED\n")
    (machine,) = await operator.json("report", "--session-id", session_id, "--reason", "late")
    assert machine["reaction"] == "UNSPECIFIED"
    assert (await operator.type("report", NOBODY, "--reason", "odd")).exit_code == 1


async def test_json_of_a_session_has_no_secret(operator: Operator) -> None:
    """JSON documents have neither cookies nor CSRF tokens, and `revoke` shows nothing secret."""
    created = await operator.open()
    operator.tokens.append(created.csrf_token.reveal())
    (ended,) = await operator.json("revoke", created.session.session_id)
    assert set(ended["cookies"]["set_cookie"]) <= {None}
    assert (ended["token"], ended["csrf_token"]) == (None, None)
    (opened,) = await operator.json("create", "--subject", "ada")
    assert opened["csrf_token"] is None
    assert set(opened["cookies"]["set_cookie"]) == {None}
