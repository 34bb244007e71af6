"""`sessionctl top`: what its frames say of a real server, and how it treats a real terminal."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import pytest

from sessionctl.screen import Screen, columns_of
from sessionctl.top_frame import Look, frame_lines
from sessionctl.top_state import Frame, State
from sessiond.app import App
from sessiond_client import AsyncClient, ClientContext, EventType
from tests.sessionctl.fake import ADA, CREATED, EVENTS, LOCKS, NOW, FakeClient
from tests.sessionctl.operator import Operator
from tests.sessionctl.terminal import Terminal
from tests.sessionctl.test_callers import write_key
from tests.support.programs import start_program
from tests.support.server import ServerProcess, config_for, serving

CONFIG = """
[applications.desk]
preset = "owasp-low"

[applications.shop]
preset = "owasp-low"
guessing = { alarm_after = 2, lock_after = 3 }
"""
GUESSER = ClientContext(ip_address="192.0.2.66")
COMMAND = (sys.executable, "-m", "sessionctl")
ENTER, LEAVE = b"\x1b[?1049h\x1b[?25l", b"\x1b[?25h\x1b[?1049l"
EVIL = "eve\x1b]0;owned\x07\x1b[2J\x9b31m\u202e"


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    """A server with two applications, on the clock of this machine: the command runs in a process of its own."""
    async with serving(config_for(tmp_path, CONFIG)) as app:
        yield app


@pytest.fixture
async def shop(app: App) -> AsyncIterator[AsyncClient]:
    """An application of the server."""
    async with AsyncClient(app.address, application="shop") as client:
        yield client


def top(address: str, *arguments: str, rows: int = 24, columns: int = 80) -> Terminal:
    """The command on a terminal."""
    typed = (*COMMAND, "--target", address, "top", "--interval", "0.2", *arguments)
    return Terminal(typed, rows, columns)


def row_of(lines: list[str], first: str) -> list[str]:
    """The words of the line that begins with this word; empty if there is none."""
    return next((line.split() for line in lines if line.split()[:1] == [first]), [])


async def frames(address: str, *arguments: str) -> list[dict[str, Any]]:
    """The frames as a program gets them."""
    typed = (*COMMAND, "--target", address, "top", "-o", "json", "--interval", "0.3", *arguments)
    process = await start_program(*typed, stdout=subprocess.PIPE)
    output, _ = await process.communicate()
    assert process.returncode == 0
    return [json.loads(line) for line in output.splitlines()]


# Frames of a real server


async def test_a_frame_counts_what_is_live(app: App, shop: AsyncClient) -> None:
    """A frame has the live sessions of each application, the locks in force, and the position of the log."""
    first = await shop.create(subject="ada")
    await shop.create(subject="bob")
    await shop.revoke(token=first.token)
    for _ in range(3):
        await shop.validate("A" * 70, client=GUESSER)
    (frame,) = await frames(app.address, "--once")
    assert {one["application"]: one["live"] for one in frame["applications"]} == {"desk": 0, "shop": 1}
    assert [lock["source"] for lock in frame["locks"]] == ["192.0.2.66/32"]
    assert (frame["kind"], frame["target"], frame["unreachable_since"]) == ("frame", app.address, None)
    assert frame["authority"]["revision"] == 5
    assert frame["notes"] == []


async def test_frames_follow_the_events(app: App, shop: AsyncClient) -> None:
    """While the command runs, live sessions, totals, rates and alarms follow what happens."""
    with top(app.address) as terminal:
        await asyncio.to_thread(terminal.until, lambda lines: row_of(lines, "shop")[1:3] == ["0", "0.0"])
        opened = [await shop.create(subject="ada") for _ in range(3)]
        await shop.report_signal(token=opened[0].token, reason="odd transfers")
        await shop.revoke(token=opened[1].token)
        lines = await asyncio.to_thread(terminal.until, lambda lines: row_of(lines, "shop")[1:2] == ["2"])
        await asyncio.to_thread(terminal.until, lambda lines: row_of(lines, "ada")[1:2] == ["HIJACK_SUSPECTED"])
        for _ in range(3):
            await shop.validate("A" * 70, client=GUESSER)
        lines = await asyncio.to_thread(terminal.until, lambda lines: bool(row_of(lines, "192.0.2.66/32")))
        assert row_of(lines, "shop")[-1] == "3"
        assert row_of(lines, "desk")[1:] == ["0", "0.0", "0.0", "0.0", "0.0", "0"]
        terminal.type("q")
        assert await asyncio.to_thread(terminal.end) == 0


async def test_rates_are_those_of_the_interval(app: App, shop: AsyncClient) -> None:
    """The rates of the frames, each times its length, add up to the events; a quiet interval has none."""
    typed = (*COMMAND, "--target", app.address, "top", "-o", "json", "--interval", "0.3")
    process = await start_program(*typed, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        total, created = 0.0, 0
        async for line in process.stdout:
            frame = json.loads(line)
            (found,) = [one for one in frame["applications"] if one["application"] == "shop"]
            rate = found["rates"].get("SESSION_CREATED", 0)
            total += rate * frame["seconds"]
            if not created:
                for _ in range(15):
                    await shop.create(subject="ada")
                created = 15
            elif found["totals"].get("SESSION_CREATED") == created and not rate:
                break
        assert total == pytest.approx(created, abs=0.1)
        assert found["live"] == created
    finally:
        process.send_signal(signal.SIGINT)
        await process.communicate()


async def test_what_a_caller_may_not_see_is_left_out(operator: Operator, tmp_path: Path) -> None:
    """With the role operator alone, sessions are counted, and the frame names the role that events need."""
    admin = await operator.anywhere("callers", "add", "root", "--role", "admin", "--key-only")
    root = write_key(tmp_path, admin.stdout.strip(), "root.key")
    await operator.anywhere("create", "--application", "shop", "--subject", "ada", "--key-file", root)
    ops = await operator.anywhere("callers", "add", "ops", "--role", "operator", "--key-only", "--key-file", root)
    key = write_key(tmp_path, ops.stdout.strip())
    (frame,) = await frames(operator.target, "--once", "--key-file", key)
    assert {one["application"]: one["live"] for one in frame["applications"]} == {"desk": 0, "shop": 1}
    assert [one["rates"] for one in frame["applications"]] == [None, None]
    assert frame["notes"] == ["events: not permitted; this caller needs the role subscriber"]
    listed = await operator.anywhere("callers", "add", "ear", "--role", "subscriber", "--key-only", "--key-file", root)
    ear = write_key(tmp_path, listed.stdout.strip(), "ear.key")
    (frame,) = await frames(operator.target, "--once", "--key-file", ear)
    assert [one["live"] for one in frame["applications"]] == [None, None]
    assert [one["rates"] for one in frame["applications"]] == [{}, {}]
    assert len(frame["notes"]) == 2


async def test_an_operator_of_one_application_sees_that_one(operator: Operator, tmp_path: Path) -> None:
    """A caller with roles for one application gets its events too, without naming it."""
    admin = await operator.anywhere("callers", "add", "root", "--role", "admin", "--key-only")
    root = write_key(tmp_path, admin.stdout.strip(), "root.key")
    added = ("callers", "add", "ops", "--role", "operator:desk", "--role", "subscriber:desk", "--key-only")
    ops = await operator.anywhere(*added, "--key-file", root)
    key = write_key(tmp_path, ops.stdout.strip())
    (frame,) = await frames(operator.target, "--once", "--key-file", key)
    assert [(one["application"], one["live"], one["rates"]) for one in frame["applications"]] == [("desk", 0, {})]
    assert frame["notes"] == []


async def test_without_a_terminal_one_frame_is_written(app: App, shop: AsyncClient) -> None:
    """Output to a file or a pipe has one frame, without any code for a terminal; --count asks for more."""
    await shop.create(subject="ada")
    typed = (*COMMAND, "--target", app.address, "top", "--interval", "0.2")
    for arguments, expected in (((), 1), (("--count", "2"), 2)):
        process = await start_program(*typed, *arguments, stdout=subprocess.PIPE)
        output, _ = await process.communicate()
        assert (process.returncode, output.count(b"APPLICATION")) == (0, expected)
        assert b"\x1b" not in output


async def test_wrong_usage(operator: Operator) -> None:
    """Wrong intervals and contradictory options are one line each, and so is an application that is not there."""
    for arguments, said in (
        (("--interval", "0"), "--interval"),
        (("--interval", "0.01"), "at least 0.1 seconds"),
        (("--count", "0"), "--count"),
        (("--once", "--count", "2"), "use either --once or --count"),
        (("--application", "shopp", "--once"), "did you mean 'shop'?"),
    ):
        result = await operator.anywhere("top", *arguments)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
        assert said in result.stderr


# On a terminal


async def test_keys(app: App, shop: AsyncClient) -> None:
    """`h` shows help, `a` goes through the applications, `p` holds the frame, and `q` ends the command."""
    with top(app.address) as terminal:
        lines = await asyncio.to_thread(terminal.until, lambda lines: row_of(lines, "shop")[1:2] == ["0"])
        assert (len(lines), lines[-1].split()[:2]) == (24, ["q", "quit"])
        terminal.type("h")
        await asyncio.to_thread(terminal.until, lambda lines: bool(row_of(lines, "p")))
        terminal.type("h")
        await asyncio.to_thread(terminal.until, lambda lines: bool(row_of(lines, "desk")))
        terminal.type("a")
        lines = await asyncio.to_thread(terminal.until, lambda lines: "application desk" in lines[0])
        assert (bool(row_of(lines, "desk")), row_of(lines, "shop")) == (True, [])
        terminal.type("a")
        lines = await asyncio.to_thread(terminal.until, lambda lines: "application shop" in lines[0])
        assert (bool(row_of(lines, "shop")), row_of(lines, "desk")) == (True, [])
        terminal.type("a")
        await asyncio.to_thread(terminal.until, lambda lines: "all applications" in lines[0])
        terminal.type("p")
        lines = await asyncio.to_thread(terminal.until, lambda lines: "paused" in lines[0])
        await shop.create(subject="ada")
        terminal.type("\x1b[Aah")  # an arrow does nothing by itself, and its letters are no keys
        terminal.resize(25, 80)
        still = await asyncio.to_thread(terminal.until, lambda lines: len(lines) == 25)
        assert row_of(still, "shop") == row_of(lines, "shop")
        terminal.type("p")
        await asyncio.to_thread(terminal.until, lambda lines: row_of(lines, "shop")[1:2] == ["1"])
        terminal.type("q")
        assert await asyncio.to_thread(terminal.end) == 0
        assert terminal.output.count(ENTER) == terminal.output.count(LEAVE) == 1
        assert terminal.output.endswith(LEAVE)
        assert terminal.is_as_before()


@pytest.mark.parametrize(("rows", "columns"), [(24, 80), (10, 40), (5, 20), (60, 200)])
async def test_a_resize_is_followed(app: App, rows: int, columns: int) -> None:
    """After a change of the window's size the next frame has it: so many lines, and none is wider."""
    with top(app.address, rows=30, columns=100) as terminal:
        await asyncio.to_thread(terminal.until, lambda lines: len(lines) == 30)
        terminal.resize(rows, columns)
        lines = await asyncio.to_thread(terminal.until, lambda lines: len(lines) == rows)
        assert max(map(columns_of, lines)) <= columns
        terminal.type("q")
        assert await asyncio.to_thread(terminal.end) == 0


async def test_ctrl_c_gives_the_terminal_back(app: App) -> None:
    """Ctrl-C ends the command with exit code 130, and the terminal is as it was."""
    with top(app.address) as terminal:
        await asyncio.to_thread(terminal.until, lambda lines: bool(row_of(lines, "shop")))
        assert not terminal.is_as_before()
        terminal.type("\x03")
        assert await asyncio.to_thread(terminal.end) == 130
        assert terminal.is_as_before()
        assert terminal.output.partition(LEAVE)[2] == b"interrupted\r\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_gives_the_terminal_back(app: App, number: signal.Signals) -> None:
    """After SIGTERM or SIGHUP the terminal is as it was, and the command has ended by that signal."""
    with top(app.address) as terminal:
        await asyncio.to_thread(terminal.until, lambda lines: bool(row_of(lines, "shop")))
        os.kill(terminal.process.pid, number)
        assert await asyncio.to_thread(terminal.end) == -number
        assert terminal.is_as_before()
        assert terminal.output.endswith(LEAVE)


async def test_a_stop_gives_the_terminal_back_until_it_continues(app: App) -> None:
    """A stopped command (Ctrl-Z) has given the terminal back, and takes it again when it continues."""
    with top(app.address) as terminal:
        await asyncio.to_thread(terminal.until, lambda lines: bool(row_of(lines, "shop")))
        os.kill(terminal.process.pid, signal.SIGTSTP)
        # The kernel discards a stop signal of the terminal in a session without a shell, so the command goes on.
        await asyncio.to_thread(_until_shown, terminal, LEAVE + ENTER)
        os.kill(terminal.process.pid, signal.SIGCONT)
        terminal.output = b""
        await asyncio.to_thread(terminal.until, lambda lines: bool(row_of(lines, "shop")))
        assert not terminal.is_as_before()
        terminal.type("q")
        assert await asyncio.to_thread(terminal.end) == 0
        assert terminal.is_as_before()


def _until_shown(terminal: Terminal, text: bytes) -> None:
    terminal.until(lambda _: text in terminal.output)


async def test_no_text_of_a_user_controls_the_terminal(app: App, shop: AsyncClient) -> None:
    """A subject, a label and a reason with escape sequences are shown as escapes, in frames and in JSON."""
    with top(app.address, columns=200) as terminal:
        await asyncio.to_thread(terminal.until, lambda lines: row_of(lines, "shop")[1:2] == ["0"])
        opened = await shop.create(subject=EVIL)
        await shop.report_signal(token=opened.token, reason=EVIL)
        lines = await asyncio.to_thread(
            terminal.until, lambda lines: any("HIJACK" in line and "REPORTED" in line for line in lines)
        )
        (line,) = [line for line in lines if "HIJACK" in line]
        assert line.startswith(r"eve\x1b]0;owned\x07\x1b[2J\x9b31m\u202e ")
        terminal.type("q")
        assert await asyncio.to_thread(terminal.end) == 0
        codes = set(re.findall(rb"\x1b[^A-Za-z]*[A-Za-z]", terminal.output))
        assert {code for code in codes if not code.endswith(b"m")} <= {
            b"\x1b[?2026h",
            b"\x1b[?2026l",
            b"\x1b[?1049h",
            b"\x1b[?25l",
            b"\x1b[H",
            b"\x1b[K",
            b"\x1b[J",
            b"\x1b[?25h",
            b"\x1b[?1049l",
        }
        assert [text for text in ("\x07", "\x9b", "\u202e", "owned\x07") if text.encode() in terminal.output] == []


async def test_an_outage_is_shown_and_survived(tmp_path: Path) -> None:
    """While the server is away the frame says since when; once it is back, the frame goes on and says so."""
    (tmp_path / "sessiond.toml").write_text(CONFIG, encoding="utf-8")
    config = ("--config", str(tmp_path / "sessiond.toml"))
    server = ServerProcess(tmp_path, *config)
    try:
        address = await server.address()
        with top(address, "--timeout", "1") as terminal:
            await asyncio.to_thread(terminal.until, lambda lines: row_of(lines, "shop")[1:2] == ["0"])
            server.kill()
            lines = await asyncio.to_thread(terminal.until, lambda lines: "not reachable since" in lines[1])
            assert (bool(row_of(lines, "shop")), columns_of(lines[1]) <= 80) == (True, True)
            server = ServerProcess(tmp_path, *config, listen=address)
            await server.address()
            await asyncio.to_thread(terminal.until, lambda lines: lines[1].startswith("revision"))
            async with AsyncClient(address, application="shop") as client:
                await client.create(subject="ada")
            lines = await asyncio.to_thread(terminal.until, lambda lines: row_of(lines, "shop")[1:2] == ["1"])
            assert any("the event log began a new incarnation" in line for line in lines)
            terminal.type("q")
            assert await asyncio.to_thread(terminal.end) == 0
    finally:
        server.kill()


async def test_a_server_that_is_not_there_at_the_start(tmp_path: Path) -> None:
    """If there is no server at the start, the command ends with exit code 4 and leaves the terminal alone."""
    with top(f"unix:{tmp_path}/none.sock") as terminal:
        assert await asyncio.to_thread(terminal.end) == 4
        assert ENTER not in terminal.output
        assert terminal.output.startswith(b"Error: there is no socket")


# Frames of a state


def state_with(applications: int = 2, alarms: int = 30, locks: int = 30) -> State:
    """A state after some events."""
    state = State()
    base = FakeClient().authority()
    names = [f"application-{number}" for number in range(applications)]
    listed = tuple(replace(base.applications[0], name=name) for name in names)
    state.answered(replace(base, applications=listed, replicas_with_other_policies=("east-2",)), NOW)
    state.follows()
    state.frame(NOW, 0.0)
    for number in range(alarms):
        state.happened(replace(EVENTS[2], revision=number, application=names[0], subject=f"{number}" + "京" * 60))
    state.locked([replace(LOCKS[1], application=names[-1])] * locks)
    state.lacks("live sessions", "not permitted " * 20)
    return state


def drawn(frame: Frame, look: Look, width: int, height: int) -> list[str]:
    """The lines on a screen of this size."""
    with click.Context(click.Command("top"), obj=Screen(width, colours=False, now=lambda: NOW, height=height)):
        return ["".join(text for text, _ in line) for line in frame_lines(frame, look)]


@pytest.mark.parametrize("applications", [1, 40])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 12), (20, 6), (10, 2), (200, 60)])
def test_a_frame_fits_the_screen(width: int, height: int, applications: int) -> None:
    """However much there is to show, and however small the screen is, a frame fits and names the keys."""
    frame = state_with(applications).frame(NOW, 2.0)
    for look in (Look("127.0.0.1:7443", keys=True), Look("h" * 90 + ":7443", keys=True, helping=True, paused=True)):
        lines = drawn(frame, look, width, height)
        assert len(lines) == height
        assert max(map(columns_of, lines)) <= width


def test_a_frame_of_a_usual_screen_has_something_of_everything() -> None:
    """On 80 by 24 there is room for applications, alarms and locks, however many each of them are."""
    lines = drawn(state_with(40).frame(NOW, 2.0), Look("127.0.0.1:7443", keys=True), 80, 24)
    assert lines[0].startswith("sessiond 0.1.0, all applications, at 127.0.0.1:7443 ")
    assert [sum(word in line for line in lines) for word in ("HIJACK_SUSPECTED", "application-0", "2001:db8")] >= [
        2,
        2,
        2,
    ]
    assert sum(line.startswith("... and ") for line in lines) == 3


def test_the_busiest_application_comes_first() -> None:
    """Applications are sorted by their events, and the first row is the sum of all."""
    state = state_with(3, alarms=0, locks=0)
    for name, count in (("application-1", 8), ("application-2", 2)):
        for number in range(count):
            state.happened(replace(CREATED, application=name, session_id=f"{name}-{number}"))
    lines = drawn(state.frame(NOW, 4.0), Look("t:1"), 80, 24)
    rows = [line.split() for line in lines if line.split()[:1] != [] and line.split()[-1] == "0"]
    assert [(row[0], row[2]) for row in rows] == [
        ("(all)", "2.5"),
        ("application-1", "2.0"),
        ("application-2", "0.5"),
        ("application-0", "0.0"),
    ]


def test_events_during_a_count_are_counted_once() -> None:
    """Sessions that are created or end while others are counted are right, wherever the count has found them."""
    state = state_with(1, alarms=0, locks=0)
    created = replace(CREATED, application="application-0")
    ended = replace(created, type=EventType.SESSION_EXPIRED)
    state.begin_count("application-0")
    for session_id in ("a", "b", "c"):
        state.happened(replace(created, session_id=session_id))
    state.happened(replace(ended, session_id="b"))
    state.happened(replace(ended, session_id="old"))
    state.counted("application-0", ["a", "b", "old", "older"], is_complete=True)
    (one,) = state.frame(NOW, 1.0).applications
    assert (one.live, one.is_complete) == (3, True)  # a, c, older
    state.happened(replace(ended, session_id="older"))
    state.happened(replace(ended, session_id="older"))
    assert state.frame(NOW, 2.0).applications[0].live == 2


def test_an_incomplete_count_says_so() -> None:
    """If not all sessions were counted, the number has a plus sign, and events do not change it."""
    state = state_with(1, alarms=0, locks=0)
    state.begin_count("application-0")
    state.counted("application-0", [str(number) for number in range(10_000)], is_complete=False)
    state.happened(replace(CREATED, application="application-0", session_id=ADA.session_id))
    lines = drawn(state.frame(NOW, 1.0), Look("t:1"), 80, 24)
    assert row_of(lines, "application-0")[1] == "10,000+"


def test_a_lock_that_has_ended_is_not_shown() -> None:
    """A lock disappears when it ends, without another question to the server."""
    state = state_with(1, alarms=0, locks=1)
    assert len(state.frame(NOW, 1.0).locks) == 1
    assert state.frame(LOCKS[1].expire_time + timedelta(seconds=1), 2.0).locks == ()
