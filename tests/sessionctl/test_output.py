"""What `sessionctl` writes about sessions and events, without a server."""

from __future__ import annotations

import dataclasses
import gc
import io
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import FrameType

import click
import pytest

from sessionctl.output import as_json, show, show_facts
from sessionctl.screen import Screen, clipped, columns_of, relative, wrapped
from sessionctl.tables import Column, show_table
from sessionctl.views import EVENTS, SESSIONS, event_row, session_facts, session_row
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


@pytest.fixture(autouse=True)
def wide_screen() -> Iterator[None]:
    """A terminal that has room for everything, at a fixed time."""
    screen = Screen(width=1000, colours=False, now=lambda: MOMENT)
    with click.Context(click.Command("sessionctl"), obj=screen):
        yield


def cells(columns: tuple[Column, ...], row: object) -> dict[str, str]:
    """The texts of a row, by the names of the columns."""
    assert isinstance(row, tuple)
    return {column.name: text for column, (text, _) in zip(columns, row, strict=True)}


def test_both_devices_of_a_session_are_facts() -> None:
    """The client and device of the opening are shown, and those of the last use if there are any."""
    facts = session_facts(SEEN)
    assert ("ip address", "192.0.2.10") in facts
    assert ("device", "Firefox 140 on Linux (desktop)") in facts
    assert ("last ip address", "192.0.2.77") in facts
    assert ("last user agent", "last") in facts
    assert ("last device", "Safari 18 on iOS (phone)") in facts
    assert ("device", "unknown") in session_facts(PLAIN)
    assert not [name for name, _ in session_facts(PLAIN) if name.startswith("last ") and name != "last use"]


@pytest.mark.parametrize(
    ("device", "words"),
    [
        (Device(description="", type=DeviceType.UNSPECIFIED), "unknown"),
        (Device(description="", type=DeviceType.BOT), "bot"),
        (Device(description="curl 8", type=DeviceType.UNSPECIFIED), "curl 8"),
    ],
    ids=["nothing", "type only", "description only"],
)
def test_a_device_may_be_partly_known(device: Device, words: str) -> None:
    """A device is shown by its description, its type, both, or as unknown."""
    assert ("device", words) in session_facts(dataclasses.replace(PLAIN, device=device))


def test_labels_and_own_timeouts_are_facts() -> None:
    """There is a fact for each label, sorted by key, and for each timeout of the session's own."""
    facts = session_facts(SEEN)
    assert [value for name, value in facts if name == "label"] == ["region=eu", "tenant=acme"]
    assert [fact for fact in facts if fact[0].startswith("own ")] == [("own idle limit", "5m")]
    assert not [name for name, _ in session_facts(PLAIN) if name == "label" or name.startswith("own ")]


def test_a_row_of_a_session_has_its_last_device_and_labels() -> None:
    """The row of a session has the device of its last use, or else of its opening, and its labels."""
    seen, opened, plain = (
        cells(SESSIONS, session_row(session))
        for session in (SEEN, dataclasses.replace(SEEN, last_device=None, labels={}), PLAIN)
    )
    assert (seen["SUBJECT"], seen["DEVICE"], seen["LABELS"]) == (
        "ada",
        "Safari 18 on iOS (phone)",
        "region=eu tenant=acme",
    )
    assert (opened["DEVICE"], opened["LABELS"]) == ("Firefox 140 on Linux (desktop)", "")
    assert (plain["DEVICE"], plain["ENDS"]) == ("", "never")


def test_a_row_of_an_event_has_its_labels() -> None:
    """The row of an event has the labels of its session."""
    assert cells(EVENTS, event_row(EVENT))["LABELS"] == "region=eu tenant=acme"
    assert cells(EVENTS, event_row(dataclasses.replace(EVENT, labels={})))["LABELS"] == ""


def test_a_session_ends_at_the_first_of_its_deadlines() -> None:
    """ENDS is the time of the end for an ended session, and the first deadline for a live one."""
    hour = timedelta(hours=1)
    live = dataclasses.replace(PLAIN, idle_expire_time=MOMENT + 2 * hour, absolute_expire_time=MOMENT + 5 * hour)
    login = dataclasses.replace(live, login_expire_time=MOMENT + hour / 6)
    ended = dataclasses.replace(live, ending=Ending(end_time=MOMENT - hour, cause=Cause()))
    ends = [cells(SESSIONS, session_row(session))["ENDS"] for session in (live, login, ended)]
    assert ends == ["in 2h", "in 10m", "1h ago"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "now"),
        (0.9, "now"),
        (-0.9, "now"),
        (1, "in 1s"),
        (-59.9, "59s ago"),
        (-60, "1m ago"),
        (3599, "in 59m"),
        (-3600, "1h ago"),
        (86_399, "in 23h59m"),
        (28_800, "in 8h"),
        (-28_799, "7h ago"),
        (-86_400 * 400, "400d ago"),
    ],
)
def test_a_time_is_relative(seconds: float, text: str) -> None:
    """A relative time is rounded down to the largest unit that fits; hours that are left have minutes."""
    assert relative(MOMENT + timedelta(seconds=seconds), MOMENT) == text


@pytest.mark.parametrize(
    ("text", "width", "end", "start"),
    [
        ("teapot", 6, "teapot", "teapot"),
        ("teapot", 5, "teap…", "…apot"),
        ("teapot", 1, "…", "…"),
        ("teapot", 0, "", ""),
        ("東京都", 6, "東京都", "東京都"),
        ("東京都", 5, "東京…", "…京都"),
        ("東京都", 4, "東…", "…都"),
        ("Zoe\u0308!", 4, "Zoe\u0308!", "Zoe\u0308!"),
    ],
)
def test_text_is_cut_to_columns(text: str, width: int, end: str, start: str) -> None:
    """A text is cut to columns of the terminal, where an East Asian character takes two, and an ellipsis marks it."""
    assert (clipped(text, width), clipped(text, width, start=True)) == (end, start)
    assert columns_of(clipped(text, width)) <= width


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
    """A document of any text is one printable line, and a program reads the original text from it."""
    for value in (FROM_CLIENTS, SUSPECT):
        as_json(value, note=EVIL + "Zoë")
        shown = capsys.readouterr().out
        assert shown.removesuffix("\n").isprintable()
        assert r"\u001b[2J\u007f\u009b2J\u202egnp.exe\u2066\u200b\u2028\udb40\udc41Zoë" in shown
        document = json.loads(shown)
        assert (document["subject"], document["note"]) == (EVIL, EVIL + "Zoë")
        assert document["labels"] == {"tenant": EVIL}


def test_no_text_from_clients_commands_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Tables and facts show controls, overrides and invisible characters as escapes, in every field."""
    show_table(SESSIONS, [session_row(FROM_CLIENTS)])
    show_table(EVENTS, [event_row(SUSPECT)])
    show_facts(session_facts(FROM_CLIENTS))
    show_table((Column("ONE"), Column("TWO")), [((EVIL, ""), (EVIL, "bold"))])
    shown = capsys.readouterr().out
    assert all(line.isprintable() for line in shown.split("\n"))
    assert shown.count(ESCAPED) == 22


@pytest.mark.parametrize("width", range(1, 120, 7))
def test_a_cut_text_cannot_command_a_terminal(capsys: pytest.CaptureFixture[str], width: int) -> None:
    """However a text is cut, what is left of its escapes is printable and no wider than the terminal."""
    with click.Context(click.Command("sessionctl"), obj=Screen(width=width, colours=False, now=lambda: MOMENT)):
        show_table(SESSIONS, [session_row(FROM_CLIENTS)])
        show_table(EVENTS, [event_row(SUSPECT)])
        show_facts(session_facts(FROM_CLIENTS))
    lines = capsys.readouterr().out.split("\n")
    assert all(line.isprintable() and columns_of(line) <= width for line in lines)


def calls_for(text: str, column: Column) -> int:
    """How many functions are called in order to show a text in a table on a screen of 80 columns."""
    calls = 0

    def count(_: FrameType, event: str, __: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    with click.Context(click.Command("sessionctl"), obj=Screen(width=80, colours=False, now=lambda: MOMENT)):
        gc.disable()  # other tests' packages have callbacks in the collector, which would count
        sys.setprofile(count)
        try:
            show_table((Column("KEY"), column), [(("cart", ""), (text, ""))])
        finally:
            sys.setprofile(None)
            gc.enable()
    return calls


@pytest.mark.parametrize("column", [Column("VALUE", cut=True), Column("VALUE", cut=True, cut_start=True)])
@pytest.mark.parametrize("character", ["a", "\x00", "京"])
def test_a_long_text_costs_no_more_than_a_screen(
    capsys: pytest.CaptureFixture[str], column: Column, character: str
) -> None:
    """A table on a screen takes the same work, and shows the same, for a text of 200 characters and of 20,000."""
    calls_for(character * 200, column)  # click does some work for the first line only
    assert calls_for(character * 200, column) == calls_for(character * 20_000, column)
    _, short, long = capsys.readouterr().out.splitlines()[1::2]
    assert short == long


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_encoding_of_standard_output(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    """If standard output cannot encode a character, its escape is written, and JSON remains the same document."""
    buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding=encoding))
    show("Zoë 東京 " + "x" * 9)
    as_json({"subject": "Zoë 東京"})
    sys.stdout.flush()
    text, document = buffer.getvalue().decode(encoding).splitlines()
    assert text.startswith("Zo")
    assert json.loads(document) == {"subject": "Zoë 東京"}


def test_json_has_every_new_field(capsys: pytest.CaptureFixture[str]) -> None:
    """In JSON, devices, labels and timeouts are objects; a timeout is in seconds."""
    as_json(SEEN)
    document = json.loads(capsys.readouterr().out)
    assert document["last_device"] == {"description": "Safari 18 on iOS", "type": "PHONE"}
    assert document["labels"] == {"tenant": "acme", "region": "eu"}
    assert document["lifetimes"] == {"idle_timeout": 300.0, "absolute_timeout": None}


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("", 5, [""]),
        ("one two", 7, ["one two"]),
        ("one two", 6, ["one", "two"]),
        ("abcdefg h", 3, ["abc", "def", "g h"]),
        ("日本語 x", 4, ["日本", "語 x"]),
        ("日本", 1, ["日", "本"]),
        ("a  b", 4, ["a  b"]),
    ],
)
def test_a_text_is_wrapped_to_columns(text: str, width: int, lines: list[str]) -> None:
    """A text is wrapped between words, and within words that are too wide; no character is lost."""
    assert wrapped(text, width) == lines
