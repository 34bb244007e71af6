"""What `sessionctl` writes about sessions and events, without an authority."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta

import pytest

from sessionctl.output import as_json, event_line, session_facts, session_line, show_facts, show_table
from sessiond_client import (
    Authentication,
    Cause,
    CauseKind,
    ClientContext,
    Device,
    DeviceType,
    Ending,
    Event,
    EventType,
    Lifetimes,
    Reaction,
    Session,
    SessionState,
    Signal,
    SignalType,
)

MOMENT = datetime(2026, 1, 2, tzinfo=UTC)
FIREFOX = Device(description="Firefox 140 on Linux", type=DeviceType.DESKTOP)
PHONE = Device(description="Safari 18 on iOS", type=DeviceType.PHONE)
PLAIN = Session(
    session_id="0192d3a4-0000-7000-8000-000000000000",
    application="shop",
    subject="ada",
    state=SessionState.ACTIVE,
    generation=0,
    create_time=MOMENT,
    last_active_time=MOMENT,
    idle_expire_time=None,
    absolute_expire_time=None,
    login_expire_time=None,
    persistent=False,
    authentication=None,
    elevation_expire_time=None,
    client=ClientContext(ip_address="192.0.2.10", user_agent="first"),
    last_client=None,
    device=None,
    last_device=None,
    labels={},
    lifetimes=None,
    data_version=0,
    ending=None,
)
SEEN = dataclasses.replace(
    PLAIN,
    device=FIREFOX,
    last_client=ClientContext(ip_address="192.0.2.77", user_agent="last"),
    last_device=PHONE,
    labels={"tenant": "acme", "region": "eu"},
    lifetimes=Lifetimes(idle_timeout=timedelta(minutes=5)),
)
EVENT = Event(
    revision=7,
    type=EventType.OLD_TOKEN_PRESENTED,
    event_time=MOMENT,
    application="shop",
    subject="ada",
    session_id=PLAIN.session_id,
    cause=Cause(),
    client=ClientContext(),
    generation=1,
    authentication=None,
    signals=(),
    reaction=Reaction.UNSPECIFIED,
    source="",
    labels={"tenant": "acme", "region": "eu"},
)


def test_both_devices_of_a_session_are_facts() -> None:
    """The client and device of the opening, and those of the last activity if there was any."""
    facts = session_facts(SEEN)
    assert ("ip address", "192.0.2.10") in facts
    assert ("device", "Firefox 140 on Linux (desktop)") in facts
    assert ("last ip address", "192.0.2.77") in facts
    assert ("last user agent", "last") in facts
    assert ("last device", "Safari 18 on iOS (phone)") in facts
    assert ("device", "unknown") in session_facts(PLAIN)
    assert not [name for name, _ in session_facts(PLAIN) if name.startswith("last ") and name != "last active"]


@pytest.mark.parametrize(
    ("device", "words"),
    [
        (Device(description="", type=DeviceType.UNSPECIFIED), "unknown"),
        (Device(description="", type=DeviceType.BOT), "bot"),
        (Device(description="curl 8", type=DeviceType.UNSPECIFIED), "curl 8"),
    ],
    ids=["nothing", "type only", "description only"],
)
def test_a_device_may_be_known_in_part(device: Device, words: str) -> None:
    """Of a device is shown what is known: its description, its type, or that it is unknown."""
    assert ("device", words) in session_facts(dataclasses.replace(PLAIN, device=device))


def test_labels_and_own_timeouts_are_facts() -> None:
    """One line a label, sorted by key, and one for each timeout that the session has of its own."""
    facts = session_facts(SEEN)
    assert [value for name, value in facts if name == "label"] == ["region=eu", "tenant=acme"]
    assert [fact for fact in facts if fact[0].startswith("own ")] == [("own idle timeout", "5m")]
    assert not [name for name, _ in session_facts(PLAIN) if name == "label" or name.startswith("own ")]


def test_a_session_in_a_line_has_its_last_device_and_labels(capsys: pytest.CaptureFixture[str]) -> None:
    """After the subject stand the device it was last seen on, or else opened on, and its labels."""
    for session in (SEEN, dataclasses.replace(SEEN, last_device=None, labels={}), PLAIN):
        session_line(session)
    seen, opened, plain = capsys.readouterr().out.splitlines()
    assert seen.endswith("  ada  Safari 18 on iOS (phone)  region=eu tenant=acme")
    assert opened.endswith("  ada  Firefox 140 on Linux (desktop)")
    assert plain.endswith("  ada")


def test_an_event_in_a_line_has_its_labels(capsys: pytest.CaptureFixture[str]) -> None:
    """An event's line ends with its session's labels, if it has any."""
    for event in (EVENT, dataclasses.replace(EVENT, labels={})):
        event_line(event)
    labelled, plain = capsys.readouterr().out.splitlines()
    assert labelled.endswith("  region=eu tenant=acme")
    assert "OLD_TOKEN_PRESENTED" in plain
    assert "tenant" not in plain


def test_labels_and_devices_cannot_command_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters in a label or a device's description are shown as escapes."""
    evil = "\x1b[2J"
    session_line(
        dataclasses.replace(PLAIN, device=Device(description=evil, type=DeviceType.TV), labels={"tenant": evil})
    )
    event_line(dataclasses.replace(EVENT, labels={"tenant": evil}))
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert shown.count(r"\x1b[2J") == 3


EVIL = "\x1b[2J\x7f\x9b2J\u202egnp.exe\u2066\u200b\u2028\U000e0041"
ESCAPED = r"\x1b[2J\x7f\x9b2J\u202egnp.exe\u2066\u200b\u2028\U000e0041"
FROM_CLIENTS = dataclasses.replace(
    PLAIN,
    subject=EVIL,
    client=ClientContext(ip_address="192.0.2.10", user_agent=EVIL, device_id=EVIL),
    last_client=ClientContext(user_agent=EVIL),
    device=Device(description=EVIL, type=DeviceType.TV),
    last_device=Device(description=EVIL, type=DeviceType.TV),
    labels={"tenant": EVIL},
    authentication=Authentication(authenticate_time=MOMENT, level=1, methods=(EVIL,)),
    state=SessionState.REVOKED,
    ending=Ending(end_time=MOMENT, cause=Cause(kind=CauseKind.REQUEST, actor=EVIL, reason=EVIL)),
)
SUSPECT = dataclasses.replace(
    EVENT,
    application=EVIL,
    subject=EVIL,
    cause=Cause(kind=CauseKind.SIGNAL, actor=EVIL, reason=EVIL),
    signals=(Signal(type=SignalType.USER_AGENT_CHANGE, expected=EVIL, seen=EVIL),),
    source=EVIL,
    labels={"tenant": EVIL},
)


def test_json_escapes_what_is_not_printable(capsys: pytest.CaptureFixture[str]) -> None:
    """A document of any text is one printable line, from which a machine reads the very text."""
    for value in (FROM_CLIENTS, SUSPECT):
        as_json(value, note=EVIL + "Zoë")
        shown = capsys.readouterr().out
        assert shown.removesuffix("\n").isprintable()
        assert r"\u001b[2J\u007f\u009b2J\u202egnp.exe\u2066\u200b\u2028\udb40\udc41Zoë" in shown
        document = json.loads(shown)
        assert (document["subject"], document["note"]) == (EVIL, EVIL + "Zoë")
        assert document["labels"] == {"tenant": EVIL}


def test_no_text_from_clients_commands_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Lines, facts and tables show controls, overrides and invisible characters as escapes, in every field."""
    session_line(FROM_CLIENTS)
    event_line(SUSPECT)
    show_facts(session_facts(FROM_CLIENTS))
    show_table([((EVIL, ""), (EVIL, "bold"))])
    shown = capsys.readouterr().out
    assert all(line.isprintable() for line in shown.split("\n"))
    assert shown.count(ESCAPED) == 22


def test_json_has_every_new_field(capsys: pytest.CaptureFixture[str]) -> None:
    """Machines read devices, labels and timeouts as objects; a timeout is in seconds."""
    as_json(SEEN)
    document = json.loads(capsys.readouterr().out)
    assert document["last_device"] == {"description": "Safari 18 on iOS", "type": "PHONE"}
    assert document["labels"] == {"tenant": "acme", "region": "eu"}
    assert document["lifetimes"] == {"idle_timeout": 300.0, "absolute_timeout": None}
