"""`sessionctl store copy`: where its ends come from, what it shows, how it fails, and that it can be interrupted."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from structlog.testing import capture_logs

from sessionctl import copying, main
from sessionctl.exits import Exit
from sessionctl.screen import Screen
from sessiond.config.data_folder import database_in, key_file_in
from sessiond.config.store_address import PostgresAddress
from sessiond.copy_store import Place
from tests.sessionctl.operator import SCREEN
from tests.sessionctl.terminal import on_terminal
from tests.support.clock import ManualClock
from tests.support.moving import Held, Home, homes_of, use, verify

SECRET = "hunter2"
VARIABLES = ("SESSIOND_COPY_FROM", "SESSIOND_COPY_TO")
MANY = 60_000
"""Rows that take long enough to copy for an interruption."""


async def run(*arguments: str, stdin: str = "", env: dict[str, str] | None = None, screen: Screen = SCREEN) -> Result:
    """Run the command; its standard streams are no terminal."""
    command = ["store", "copy", *arguments]
    return await asyncio.to_thread(CliRunner().invoke, main, command, input=stdin, env=env, obj=screen)


def text_of(place: Place) -> str:
    """Return a place as an argument."""
    return place.url if isinstance(place, PostgresAddress) else str(place)


async def used(home: Home, clock: ManualClock) -> Held:
    """Run a server, use it, and stop it. The log must not get into what a command shows."""
    with capture_logs():
        async with home.served(clock) as app:
            return await use(app, clock)


async def check(home: Home, clock: ManualClock, held: Held) -> None:
    """Check that clients can go on."""
    with capture_logs():
        async with home.served(clock) as app:
            await verify(app, held)


@pytest.fixture
async def homes(tmp_path: Path, postgres: str) -> list[Home]:
    """A data folder, and a Postgres database to copy it to."""
    return await homes_of(tmp_path, postgres, "sqlite", "postgres")


async def test_the_result_is_a_table(homes: list[Home], clock: ManualClock) -> None:
    """The result has the rows of each table at both ends, the log's head, and what to do about the key file."""
    source, destination = homes
    held = await used(source, clock)
    result = await run(text_of(source.place), text_of(destination.place))
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["TABLE", "SOURCE", "DESTINATION"] in lines
    assert ["events", str(len(held.events)), str(len(held.events))] in lines
    assert ["revision", str(held.events[-1].revision)] in lines
    assert f"key file: copy {key_file_in(source.data)} to the data folder of each replica" in result.stdout
    destination.take_keys(source)
    await check(destination, clock, held)


async def test_progress_is_lines_without_a_terminal(homes: list[Home], clock: ManualClock) -> None:
    """Without a terminal standard error has a line for each table, while it is copied and while it is compared."""
    source, destination = homes
    await used(source, clock)
    result = await run(text_of(source.place), text_of(destination.place))
    steps = [line.split(":")[0] for line in result.stderr.splitlines()]
    assert {f"{stage} {table}" for stage in ("copying", "comparing") for table in ("sessions", "events")} <= set(steps)
    assert all(re.fullmatch(r"(copying|comparing) \w+: \d+ of \d+ rows", line) for line in result.stderr.splitlines())


async def test_the_result_as_json(homes: list[Home], clock: ManualClock) -> None:
    """With --json there is one object for each table and one for the copy, and nothing else."""
    source, destination = homes
    held = await used(source, clock)
    result = await run(text_of(source.place), text_of(destination.place), "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    *tables, last = map(json.loads, result.stdout.splitlines())
    assert all(table.keys() == {"kind", "table", "source", "destination"} for table in tables)
    assert (last["kind"], last["revision"], last["horizon"]) == ("copied", held.events[-1].revision, 0)
    assert last["key_file"] == "needed"


@pytest.mark.parametrize("engines", [("sqlite", "sqlite"), ("postgres", "sqlite"), ("postgres", "postgres")])
async def test_what_to_do_about_the_key_file(
    tmp_path: Path, postgres: str, clock: ManualClock, engines: tuple[str, str]
) -> None:
    """The result says whether the key file was copied, or who needs it."""
    source, destination = await homes_of(tmp_path, postgres, *engines)
    await used(source, clock)
    first = await run(text_of(source.place), text_of(destination.place))
    expected = {
        ("sqlite", "sqlite"): f"copied to {key_file_in(destination.data)}\n",
        ("postgres", "sqlite"): f"copy the key file of a replica to {key_file_in(destination.data)} before",
        ("postgres", "postgres"): "each replica needs the key file that it has now",
    }
    assert f"key file: {expected[engines]}" in first.stdout
    if engines[1] == "sqlite":
        if engines[0] == "postgres":
            destination.take_keys(source)
        again = await run(text_of(source.place), text_of(destination.place))
        assert f"key file: {key_file_in(destination.data)} has the right key\n" in again.stdout


async def test_ends_from_the_environment(homes: list[Home], clock: ManualClock) -> None:
    """Without arguments the two variables name the ends; a URL there may have a password."""
    source, destination = homes
    await used(source, clock)
    url = text_of(destination.place).replace("sessiond@", f"sessiond:{SECRET}@")
    result = await run(env=dict(zip(VARIABLES, (text_of(source.place), url), strict=True)))
    assert result.exit_code == 0
    assert SECRET not in result.output


async def test_ends_from_standard_input(homes: list[Home], clock: ManualClock) -> None:
    """Each `-` reads one line of standard input, the source first."""
    source, destination = homes
    await used(source, clock)
    result = await run("-", "-", stdin=f"{text_of(source.place)}\n{text_of(destination.place)}\n")
    assert result.exit_code == 0


def test_an_end_is_asked_for_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """If standard input is a terminal, `-` asks in a prompt that does not show what is typed."""
    asked = []

    def prompt(text: str, *, hide_input: bool, err: bool, **_: Any) -> str:
        asked.append((text, hide_input, err))
        return f"postgres://sessiond:{SECRET}@db.example/sessiond"

    monkeypatch.setattr(click, "prompt", prompt)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    assert str(copying._place("DST", "-")) == "postgres://db.example/sessiond"
    assert asked == [("Destination (a data folder or a URL)", True, True)]


URLS_WITH_A_PASSWORD = [
    f"postgres://sessiond:{SECRET}@db.example/sessiond",
    f"POSTGRESQL://sessiond:{SECRET}@db.example/sessiond",
    f"postgres://db.example/sessiond?user=sessiond&password={SECRET}",
    f"postgres://db.example/sessiond?sslpassword={SECRET}",
    f"postgres://sessiond:{SECRET}@[db.example/sessiond",
]


@pytest.mark.parametrize("url", URLS_WITH_A_PASSWORD)
@pytest.mark.parametrize("arguments", [("{}", "data"), ("data", "{}"), ("a", "b", "{}"), ("--json", "{}")])
async def test_a_password_in_an_argument_is_refused(url: str, arguments: tuple[str, ...]) -> None:
    """A URL with a password is wrong usage wherever it stands; the error says what to do and does not repeat it."""
    result = await run(*(argument.format(url) for argument in arguments))
    assert (result.exit_code, result.stdout) == (Exit.USAGE, "")
    assert all(variable in result.stderr for variable in VARIABLES)
    assert SECRET not in result.output


@pytest.mark.parametrize(
    ("arguments", "env", "says"),
    [
        ((), {}, "missing SRC; give it as an argument, or set SESSIOND_COPY_FROM"),
        (("a",), {}, "missing DST; give it as an argument, or set SESSIOND_COPY_TO"),
        (("a", "a"), {}, "SRC and DST are the same"),
        (("a", "./b/../a"), {}, "SRC and DST are the same"),
        (("postgres://h/d", "postgres://h/d"), {}, "SRC and DST are the same"),
        (("mysql://h/d", "b"), {}, "SRC: must be a data folder or postgres://"),
        (("a", "postgres://"), {}, "DST: must be a data folder or postgres://"),
        (("a", "postgres://h:port/d"), {}, "DST: must be a data folder or postgres://"),
        (("a",), {"SESSIOND_COPY_TO": f"mysql://u:{SECRET}@h/d"}, "SESSIOND_COPY_TO: must be a data folder"),
        (("a",), {"SESSIOND_COPY_TO": f"postgres://u:{SECRET}@h:x/d"}, "SESSIOND_COPY_TO: must be a data folder"),
        (("-", "b"), {}, "SRC: nothing was entered"),
        (("a", "b", "c"), {}, "unexpected extra argument"),
    ],
)
async def test_wrong_usage(arguments: tuple[str, ...], env: dict[str, str], says: str) -> None:
    """A wrong end is one line with exit code 2, and no password is in it."""
    result = await run(*arguments, env=dict.fromkeys(VARIABLES, "") | env)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (Exit.USAGE, "", 1)
    assert says in result.stderr
    assert SECRET not in result.output


async def test_a_source_in_use(homes: list[Home], clock: ManualClock) -> None:
    """While the server runs the exit code is 1, and the error names its process."""
    source, destination = homes
    with capture_logs():
        async with source.served(clock):
            result = await run(text_of(source.place), text_of(destination.place))
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (Exit.FAILED, "", 1)
    assert "is in use by process" in result.stderr


async def test_a_source_that_is_missing(tmp_path: Path) -> None:
    """A folder without a store is a failure, and neither folder is created."""
    result = await run(str(tmp_path / "a"), str(tmp_path / "b"))
    assert (result.exit_code, result.stderr.count("\n")) == (Exit.FAILED, 1)
    assert "has no database" in result.stderr
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()


async def test_a_database_that_does_not_respond(homes: list[Home], clock: ManualClock) -> None:
    """If a database cannot be reached the exit code is 4, and the error does not have the password."""
    source, _ = homes
    await used(source, clock)
    url = f"postgres://sessiond:{SECRET}@127.0.0.1:1/sessiond"
    result = await run(text_of(source.place), env={"SESSIOND_COPY_TO": url})
    assert (result.exit_code, result.stderr.count("\n")) == (Exit.UNREACHABLE, 1)
    assert "postgres://127.0.0.1:1/sessiond does not respond" in result.stderr
    assert SECRET not in result.output


def add_rows(home: Home, count: int) -> None:
    """Add rows to a database that is not served. They are labels of no session, which nobody reads."""
    with closing(sqlite3.connect(database_in(home.data))) as db, db:
        db.execute(
            "WITH RECURSIVE numbers (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM numbers WHERE n < ?) "
            "INSERT INTO session_labels (log, session_id, key, value, application) "
            "SELECT 0, CAST(printf('%016d', n) AS BLOB), 'key', 'value', 'none' FROM numbers",
            (count,),
        )


def command(source: Home, destination: Home) -> list[str]:
    """Return the command line of a process of its own."""
    ends = [text_of(source.place), text_of(destination.place)]
    return [sys.executable, "-m", "sessionctl", "store", "copy", *ends]


def sending(number: signal.Signals) -> Callable[[int, bytes], None]:
    """Send a signal to the process when it has begun to copy."""
    sent: list[int] = []

    def watch(pid: int, shown: bytes) -> None:
        if b"copying" in shown and not sent:
            sent.append(pid)
            os.kill(pid, number)

    return watch


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
async def test_an_interrupted_copy_continues(homes: list[Home], clock: ManualClock, number: signal.Signals) -> None:
    """A copy that is interrupted or killed says how to go on, if it can, and the next run completes it."""
    source, destination = homes
    held = await used(source, clock)
    add_rows(source, MANY)
    stopped = await asyncio.to_thread(on_terminal, command(source, destination), sending(number))
    if number is signal.SIGINT:
        assert stopped.exit_code == Exit.INTERRUPTED
        assert b"run the same command again to continue\r\ninterrupted\r\n" in stopped.output
    else:
        assert stopped.exit_code == -signal.SIGKILL
    done = await asyncio.to_thread(on_terminal, command(source, destination))
    assert done.exit_code == 0
    assert re.search(rb"copying .*#.*comparing .*#", done.output, re.DOTALL)
    destination.take_keys(source)
    await check(destination, clock, held)


async def test_no_bar_without_a_terminal(homes: list[Home], clock: ManualClock) -> None:
    """A process whose standard error is a pipe writes no carriage returns, and its result alone to standard output."""
    source, destination = homes
    await used(source, clock)
    done = await asyncio.to_thread(
        subprocess.run, command(source, destination), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert "\r" not in done.stderr
    assert done.stdout.startswith("TABLE")
