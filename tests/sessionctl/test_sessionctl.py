"""`sessionctl` against a real server: what it says, its exit codes, and what it never shows."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import click
import pytest
from click.testing import CliRunner

from sessionctl import main
from sessionctl.secret_input import read_value
from sessionctl.settings import Settings
from sessiond.app import App
from sessiond_client import Client, EventType, SessionState, Unavailable, Verdict
from tests.sessionctl.fake import ADA, FakeClient
from tests.sessionctl.operator import Operator
from tests.sessionctl.terminal import on_terminal
from tests.support.clock import ManualClock
from tests.support.server import config_for, serving

CONFIG = """
[applications.shop]
preset = "owasp-low"
reactions = { reported = "step-up" }
"""
NOBODY = "01a1ffcf-d799-7113-b468-5af8f30eb242"


@pytest.fixture
async def app(tmp_path: Path, clock: ManualClock) -> AsyncIterator[App]:
    """An authority with an application `shop`."""
    async with serving(config_for(tmp_path, CONFIG), clock) as app:
        yield app


async def test_create_writes_the_token_only_on_request(operator: Operator) -> None:
    """The token is not shown unless --show-token, --token-only or --json is given; then it is valid."""
    people = await operator.type("create", "--subject", "ada", "--level", "2", "--method", "pwd")
    assert people.exit_code == 0
    assert "not shown" in people.stdout
    session_id = people.stdout.splitlines()[1].split()[1]
    assert (await operator.client.get(session_id=session_id)).session is not None

    only = await operator.type("create", "--subject", "ada", "--token-only")
    assert (await operator.client.validate(only.stdout.removesuffix("\n"))).valid
    (machine,) = await operator.json("create", "--data", "cart=a=b")
    assert (await operator.client.validate(machine["token"])).valid
    assert (await operator.client.get_data(token=machine["token"])).data == {"cart": b"a=b"}
    shown = await operator.type("create", "--show-token")
    assert (await operator.client.validate(shown.stdout.split()[-1])).valid


async def test_validate_reads_standard_input_and_has_exit_codes(operator: Operator, clock: ManualClock) -> None:
    """Exit code 0 for VALID, 3 for anything else; the token comes from standard input and is not shown."""
    created = await operator.open()
    good = await operator.type("validate", stdin=created.token.reveal() + "\n")
    assert (good.exit_code, "VALID" in good.stdout) == (0, True)
    assert created.session.session_id in good.stdout
    bad = await operator.type("validate", stdin="nonsense\n")
    assert (bad.exit_code, "MALFORMED" in bad.stdout) == (3, True)
    await operator.client.revoke(token=created.token)
    clock.advance(60_000)
    (ended,) = await operator.json("validate", stdin=created.token.reveal())
    assert ended == {"verdict": "REVOKED", "next_step": "DISCARD_TOKEN", "session": None, "signals": [], "unmet": []}


async def test_validate_counts_as_a_use_only_with_active(operator: Operator, clock: ManualClock) -> None:
    """A validation counts as a use of the session only with --active."""
    created = await operator.open()
    clock.advance(600_000)
    (look,) = await operator.json("validate", stdin=created.token.reveal())
    (active,) = await operator.json("validate", "--active", stdin=created.token.reveal())
    assert look["session"]["last_active_time"] == "2027-01-15T08:00:00.000Z"
    assert active["session"]["last_active_time"] == "2027-01-15T08:10:00.000Z"


async def test_a_renewed_token_is_not_shown(operator: Operator, clock: ManualClock) -> None:
    """If renewal is due, `validate` says so and does not show the new token."""
    created = await operator.open()
    for _ in range(3):
        clock.advance(25 * 60_000)
        renewed = (await operator.client.validate(created.token)).renewed_token
    assert renewed is not None
    operator.tokens.append(renewed.reveal())
    (answer,) = await operator.json("validate", stdin=created.token.reveal())
    assert answer["next_step"] == "REPLACE_TOKEN"
    assert "REPLACE_TOKEN" in (await operator.type("validate", stdin=created.token.reveal())).stdout


TOKEN = "T" * 70


def command_lines(group: click.Group, *path: str) -> Iterator[tuple[str, ...]]:
    """Every command, hidden ones included, with TOKEN as an argument or as the value of one of its options."""
    hidden = ("authority",) if group is main else ()
    for name in (*group.list_commands(click.Context(group)), *hidden):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        yield (*path, name, TOKEN)
        yield (*path, name, NOBODY, TOKEN)
        yield (*path, name, "--help", TOKEN)
        yield (*path, name, NOBODY, f"key={TOKEN}")
        for option in command.params:
            if isinstance(option, click.Option):
                yield (*path, name, option.opts[-1], TOKEN)
                yield (*path, name, f"{option.opts[-1]}={TOKEN}")
        if isinstance(command, click.Group):
            yield from command_lines(command, *path, name)


COMMAND_LINES = [
    (TOKEN,),
    ("--target", TOKEN, "status"),
    ("--application", TOKEN, "list"),
    ("--target", f"{TOKEN}:7443", "status"),
    ("list", "--state", f"'{TOKEN}'"),
    ("show", f"-{TOKEN[1:]}"),
    ("show", f"--{TOKEN[2:]}"),
    ("revoke", f"-t{TOKEN[2:]}"),
    *command_lines(main),
]


@pytest.mark.parametrize("arguments", COMMAND_LINES, ids=lambda arguments: " ".join(arguments).replace(TOKEN, "T"))
def test_a_token_as_an_argument_is_refused_and_not_repeated(arguments: tuple[str, ...]) -> None:
    """A token anywhere on the command line is wrong usage; the error says where tokens belong and hides this one."""
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "standard input" in result.stderr
    assert "TTTT" not in result.stderr


@pytest.mark.parametrize("target", [TOKEN, f"{TOKEN}:1", f"http://{TOKEN}", f"unix:/{TOKEN}"])
@pytest.mark.parametrize("command", [("status",), ("revoke", "--all")], ids=" ".join)
def test_a_token_in_a_variable_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], target: str
) -> None:
    """A token in SESSIOND_TARGET does not work as an address, and no error contains it."""
    monkeypatch.setenv("SESSIOND_TARGET", target)
    result = CliRunner().invoke(main, [*command, "--timeout", "1"])
    assert result.exit_code in (2, 4)
    assert "TTTT" not in result.output


async def test_an_empty_standard_input_is_wrong_usage(operator: Operator) -> None:
    """Without a token the command ends with exit code 2 and says where tokens come from."""
    result = await operator.type("validate")
    assert (result.exit_code, "standard input" in result.stderr) == (2, True)


async def test_show_and_list(operator: Operator, clock: ManualClock) -> None:
    """`show` shows one session, `list` those that match, in tables and in JSON."""
    ada = await operator.open("ada")
    clock.advance(1)  # ids tell the order of opening to the millisecond
    bob = await operator.open("bob")
    (shown,) = await operator.json("show", ada.session.session_id)
    assert (shown["verdict"], shown["session"]["subject"]) == ("VALID", "ada")
    assert "ada" in (await operator.type("show", ada.session.session_id)).stdout
    listed = await operator.json("list")
    assert [session["session_id"] for session in listed] == [bob.session.session_id, ada.session.session_id]
    assert len(await operator.json("list", "--limit", "1")) == 1
    header, line = (await operator.type("list", "--subject", "bob")).stdout.splitlines()
    assert header.split()[:3] == ["SUBJECT", "SESSION", "STATE"]
    assert line.split()[:3] == ["bob", bob.session.session_id, "ACTIVE"]


async def test_list_all_merges_the_states(operator: Operator, clock: ManualClock) -> None:
    """`list --state all` has live and ended sessions in one list, newest first, and --limit counts them together."""
    opened = []
    for number in range(4):
        clock.advance(1)
        opened.append((await operator.open(f"user{number}")).session.session_id)
    await operator.client.revoke(session_id=opened[1])
    await operator.client.revoke(session_id=opened[3])
    everything = await operator.json("list", "--state", "all")
    assert [session["session_id"] for session in everything] == opened[::-1]
    assert [session["state"] for session in everything] == ["REVOKED", "ACTIVE", "REVOKED", "ACTIVE"]
    assert len(await operator.json("list", "--state", "ALL", "--limit", "3")) == 3
    assert len(await operator.json("list", "--state", "revoked")) == 2


def test_a_session_that_ends_while_it_is_listed_is_shown_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that is in two lists of `list --state all`, since it ended in between, is shown once, as ended."""
    ended = replace(ADA, state=SessionState.REVOKED)
    lists = {SessionState.ACTIVE: [ADA], SessionState.EXPIRED: [], SessionState.REVOKED: [ended]}
    client = FakeClient()
    monkeypatch.setattr(client, "list", lambda *, state, **_: iter(lists[state]))
    monkeypatch.setattr(Settings, "client", lambda _: client)
    result = CliRunner().invoke(main, ["list", "--state", "all", "--json"])
    (shown,) = map(json.loads, result.stdout.splitlines())
    assert (shown["session_id"], shown["state"]) == (ADA.session_id, "REVOKED")


async def test_revoke_by_token_id_and_subject(operator: Operator) -> None:
    """A session by its token, one by its id, all of a subject but one: each call ends only what it names."""
    one, two, three, four = [await operator.open() for _ in range(4)]
    other = await operator.open("bob")
    assert (await operator.json("revoke", "--token", stdin=one.token.reveal()))[0]["revoked"] is True
    assert (await operator.type("revoke", two.session.session_id, "--reason", "stolen")).stdout == "revoked\n"
    kept = await operator.type("revoke", "--subject", "ada", "--except", four.session.session_id)
    assert kept.stdout == "revoked: 1 session\n"
    alive = [(await operator.client.validate(item.token)).valid for item in (one, two, three, four, other)]
    assert alive == [False, False, False, True, True]
    again = await operator.type("revoke", two.session.session_id)
    assert (again.exit_code, again.stdout) == (0, "nothing to revoke: the session was already REVOKED\n")


async def test_a_session_that_must_authenticate_is_ended_by_its_token(operator: Operator) -> None:
    """A token that is not sufficient any more ends its session, and that is a success."""
    created = await operator.open()
    await operator.client.report_signal(session_id=created.session.session_id, reason="seen elsewhere")
    assert (await operator.client.validate(created.token)).verdict is Verdict.INSUFFICIENT
    result = await operator.type("revoke", "--token", stdin=created.token.reveal())
    assert (result.exit_code, result.stdout) == (0, "revoked\n")


async def test_a_token_that_ends_nothing_is_a_failure(operator: Operator) -> None:
    """If the token belongs to no session, the exit code is 1."""
    result = await operator.type("revoke", "--token", stdin="nonsense")
    assert (result.exit_code, result.stdout) == (1, "nothing to revoke: the token is MALFORMED\n")


async def test_revoking_everything_asks_first(operator: Operator) -> None:
    """If standard input is not a terminal, --all needs --yes."""
    created = await operator.open()
    asked = await operator.type("revoke", "--all")
    assert (asked.exit_code, "--yes" in asked.stderr) == (2, True)
    assert (await operator.client.validate(created.token)).valid
    assert (await operator.type("revoke", "--all", "--yes")).stdout == "revoked: 1 session\n"


async def test_data(operator: Operator) -> None:
    """Keys are set, read and deleted; a stale version is refused with the name of the parameter."""
    session_id = (await operator.open()).session.session_id
    assert (await operator.json("data", "set", session_id, "a=1", "b=2"))[0]["version"] == 1
    assert (await operator.json("data", "get", session_id))[0]["data"] == {"a": "MQ==", "b": "Mg=="}
    assert (await operator.type("data", "get", session_id, "a", "--raw")).stdout == "1"
    stale = await operator.type("data", "delete", session_id, "a", "--expected-version", "7")
    assert (stale.exit_code, "--expected-version" in stale.stderr) == (1, True)
    assert (await operator.type("data", "delete", session_id, "a", "--expected-version", "1")).exit_code == 0
    missing = await operator.type("data", "get", session_id, "a")
    assert (missing.exit_code, "'a'" in missing.stderr) == (1, True)
    table = (await operator.type("data", "get", session_id)).stdout.splitlines()
    assert [line.split() for line in table] == [["version", "2"], ["KEY", "VALUE"], ["b", "2"]]


async def test_a_value_may_come_from_standard_input(operator: Operator) -> None:
    """`KEY=-` reads the value from standard input, byte for byte, beside values of the command line."""
    session_id = (await operator.open()).session.session_id
    value = "a card\n\udcff".encode(errors="surrogateescape")
    set_ = await operator.type("data", "set", session_id, "a=1", "card=-", stdin=value)
    assert (set_.exit_code, set_.stderr) == (0, "")
    assert (await operator.client.get_data(session_id=session_id)).data == {"a": b"1", "card": value}
    (created,) = await operator.json("create", "--data", "card=-", stdin=value)
    operator.tokens.append(created["token"])
    operator.shown = ""  # this command shows the token
    created_id = created["session"]["session_id"]
    assert (await operator.client.get_data(session_id=created_id)).data == {"card": value}
    twice = await operator.type("data", "set", session_id, "a=-", "b=-", stdin=value)
    assert (twice.exit_code, "only one value" in twice.stderr) == (2, True)
    long = await operator.type("data", "set", session_id, "a=-", stdin=bytes(1024 * 1024 + 1))
    assert (long.exit_code, "more than 1 MiB" in long.stderr) == (2, True)


def test_a_value_is_asked_for_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """If standard input is a terminal, `KEY=-` asks for the value in a prompt that does not show it."""
    asked = []

    def prompt(text: str, *, hide_input: bool, err: bool, **_: Any) -> str:
        asked.append((text, hide_input, err))
        return "a card"

    monkeypatch.setattr(click, "prompt", prompt)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    assert read_value("card") == b"a card"
    assert asked == [("card", True, True)]


async def test_activity_and_status(operator: Operator) -> None:
    """`activity` has a subject's events, newest first; `status` has the server's position and its applications."""
    created = await operator.open()
    await operator.client.revoke(token=created.token, reason="logout")
    events = await operator.json("activity", "--subject", "ada")
    assert [event["type"] for event in events] == ["SESSION_REVOKED", "SESSION_CREATED"]
    assert "logout" in (await operator.type("activity", "--subject", "ada", "--limit", "1")).stdout
    (status,) = await operator.json("status")
    assert "shop" in [application["name"] for application in status["applications"]]
    facts, table = (await operator.type("status")).stdout.split("\n\n")
    names = ["authority", "version", "incarnation", "revision", "horizon"]
    assert [line.split()[0] for line in facts.splitlines()] == names
    assert ["incarnation", status["incarnation"]] in [line.split() for line in facts.splitlines()]
    assert table.splitlines()[1].split()[:2] == ["shop", "owasp-low"]


async def test_the_former_name_of_status_works(operator: Operator) -> None:
    """`authority` is the same as `status`, and no page of help shows it."""
    assert (await operator.type("authority")).stdout == (await operator.type("status")).stdout
    assert "\n  authority" not in CliRunner().invoke(main, ["--help"]).stdout


async def test_labels_are_set_shown_and_filtered_by(operator: Operator) -> None:
    """`create` sets labels, `show`, `list` and `watch` show them, and `list`, `watch` and `revoke` filter by them."""
    await operator.open("eve")
    for subject, tenant in (("ada", "acme"), ("bob", "other")):
        labels = ("--label", f"tenant={tenant}", "--label", "region=eu")
        (opened,) = await operator.json("create", "--subject", subject, *labels)
        assert opened["session"]["labels"] == {"tenant": tenant, "region": "eu"}
    _, line = (await operator.type("list", "--label", "tenant=acme", "--label", "region=eu")).stdout.splitlines()
    assert "  region=eu tenant=acme  " in line
    session_id = line.split()[1]
    shown = (await operator.type("show", session_id)).stdout.splitlines()
    assert ["label", "tenant=acme"] in [fact.split() for fact in shown]
    _, watched = (
        await operator.type("watch", "--earliest", "--label", "tenant=other", "--limit", "1")
    ).stdout.splitlines()
    assert watched.startswith("bob ")
    assert "  region=eu tenant=other  " in watched
    assert (await operator.type("revoke", "--label", "region=eu", "--subject", "bob")).stdout == "revoked: 1 session\n"
    kept = await operator.type("revoke", "--label", "region=eu", "--except", session_id)
    assert kept.stdout == "revoked: 0 sessions\n"
    assert (await operator.type("revoke", "--label", "tenant=acme")).stdout == "revoked: 1 session\n"
    assert [session["subject"] for session in await operator.json("list")] == ["eve"]


async def test_watch_continues_after_a_cursor(operator: Operator) -> None:
    """Each line of `watch --json` has a cursor that --after takes, and filters apply."""
    created = await operator.open()
    await operator.client.revoke(token=created.token)
    first, second = await operator.json("watch", "--earliest", "--limit", "2")
    assert [first["type"], second["type"]] == ["SESSION_CREATED", "SESSION_REVOKED"]
    assert await operator.json("watch", "--after", first["cursor"], "--limit", "1") == [second]
    assert await operator.json("watch", "--earliest", "--type", "session_revoked", "--limit", "1") == [second]
    people = await operator.type("watch", "--earliest", "--limit", "1")
    assert "SESSION_CREATED" in people.stdout
    assert "\x1b" not in people.stdout
    checkpoint, _ = await operator.json("watch", "--earliest", "--checkpoints", "--limit", "2")
    assert checkpoint["kind"] == "checkpoint"


async def test_what_others_wrote_cannot_command_a_terminal(operator: Operator) -> None:
    """Control characters in a subject are shown as escapes."""
    await operator.open("ada\x1b[2J\nbob")
    for command in (("list",), ("watch", "--earliest", "--limit", "1")):
        result = await operator.type(*command)
        assert r"ada\x1b[2J\nbob" in result.stdout
        assert "\x1b" not in result.stdout


@pytest.mark.parametrize("package", ["sessionctl.refusals", "sessiond.serving"])
@pytest.mark.parametrize("chosen", [None, "DEBUG"])
def test_grpc_is_silent_unless_asked(package: str, chosen: str | None) -> None:
    """Both programs turn gRPC's own messages off before they import it, unless the user has set GRPC_VERBOSITY."""
    script = (
        "import os, sys\n"
        "class Watch:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'grpc': print(os.environ.get('GRPC_VERBOSITY'))\n"
        "sys.meta_path.insert(0, Watch())\n"
        f"import {package}\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
    if chosen:
        environment["GRPC_VERBOSITY"] = chosen
    run = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert run.stdout == f"{chosen or 'NONE'}\n"


EVIL = "x\x9b2J\u202egnp.exe"


@pytest.mark.parametrize(
    "arguments",
    [
        ("list", "--application", EVIL),
        ("policies", "--application", EVIL),
        ("list", "--network", EVIL),
        ("create", "--subject", "ada", "--label", f"{EVIL}={EVIL}"),
        ("watch", "--after", EVIL),
        ("watch", "--type", EVIL),
        ("locks", "clear", EVIL),
        ("list", "--target", f"{EVIL}:1"),
        ("validate", "--max-age", EVIL),
        (EVIL,),
        ("list", f"--{EVIL}"),
        ("list", EVIL),
    ],
    ids=lambda arguments: " ".join(arguments).replace(EVIL, "EVIL"),
)
async def test_an_error_cannot_command_a_terminal(operator: Operator, arguments: tuple[str, ...]) -> None:
    """Every error is printable, and one line, whatever the arguments contain."""
    result = await operator.type(*arguments)
    assert result.exit_code == 2
    assert result.output.count("\n") == 1
    assert result.output.removesuffix("\n").isprintable(), result.output


async def test_a_raw_value_cannot_command_a_terminal(operator: Operator) -> None:
    """`data get --raw` writes any bytes to a file, and to a terminal only printable text."""
    values = {"good": "Zoë\n".encode(), "evil": b"\x1b[2J", "c1": "\x9b2J".encode(), "bytes": b"\xff"}
    session_id = (await operator.open(data=values)).session.session_id
    command = [sys.executable, "-m", "sessionctl", "--target", operator.target, "--application", "shop"]
    for key, value in values.items():
        assert (await operator.type("data", "get", session_id, key, "--raw")).stdout_bytes == value
        run = await asyncio.to_thread(on_terminal, [*command, "data", "get", session_id, key, "--raw"])
        assert (run.exit_code == 0) == (key == "good")
        assert b"\x1b" not in run.output
        if key != "good":
            assert b"--raw" in run.output


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (("create", "--subject", "x" * 300), ("--subject:",), 2),
        (("list", "--network", "300.1.1.1"), ("--network:",), 2),
        (("show", NOBODY), (f"no session {NOBODY} in application 'shop'", "--application"), 1),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
async def test_a_refusal_is_one_line_that_names_the_option(
    operator: Operator, arguments: tuple[str, ...], words: tuple[str, ...], code: int
) -> None:
    """What the server refuses is one line on standard error, which names the option and not the field of a message."""
    result = await operator.type(*arguments)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (code, "", 1)
    assert all(word in result.stderr for word in words)


@pytest.mark.parametrize(
    "command",
    [("list",), ("locks",), ("data", "get", NOBODY), ("policies",), ("status",), ("watch",), ("create",)],
    ids=" ".join,
)
async def test_an_unknown_application_is_one_mistake(operator: Operator, command: tuple[str, ...]) -> None:
    """In every command an unknown application has the same message, with a near match, and the same exit code."""
    result = await operator.type(*command, "--application", "shopp")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "Error: --application: unknown application 'shopp' (configured: shop); did you mean 'shop'?\n"
    )


async def test_an_unknown_application_if_the_others_are_not_known(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the server does not answer with its applications, its refusal is shown."""

    def unreachable(client: Client) -> NoReturn:
        raise Unavailable("gone")

    monkeypatch.setattr(Client, "authority", unreachable)
    result = await operator.type("list", "--application", "nix")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert result.stderr.startswith("Error: --application: ")


async def test_an_empty_result_is_a_note_on_standard_error(operator: Operator) -> None:
    """If nothing is found, standard output is empty, and a note says so unless the output is JSON."""
    for command, note in (
        (("list",), "no sessions found\n"),
        (("activity", "--subject", "nobody"), "no events found\n"),
        (("locks",), "no locked sources found\n"),
    ):
        result = await operator.type(*command)
        assert (result.exit_code, result.stdout, result.stderr) == (0, "", note)
        assert await operator.json(*command) == []


async def test_wide_times_are_utc(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    """In any time zone, -o wide shows times in UTC as RFC 3339 writes them."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        created = await operator.open()
        commands = (("show", created.session.session_id), ("list",), ("activity", "--subject", "ada"))
        wide = [(await operator.type(*command, "-o", "wide")).stdout for command in commands]
        tables = [(await operator.type(*command)).stdout for command in commands]
    finally:
        monkeypatch.undo()
        time.tzset()
    assert all("2027-01-15T08:00:00Z" in text for text in wide)
    assert ["absolute", "timeout", "2027-01-15T16:00:00Z"] in [line.split() for line in wide[0].splitlines()]
    assert ["absolute", "timeout", "in", "8h"] in [line.split() for line in tables[0].splitlines()]
    assert not [text for text in tables if "2027" in text]


async def test_the_last_output_option_wins(operator: Operator) -> None:
    """--json is the same as -o json, before the command or after it; of several options the last one counts."""
    await operator.open()
    document = (await operator.type("list", "--json")).stdout
    assert json.loads(document)["subject"] == "ada"
    assert (await operator.type("-o", "json", "list")).stdout == document
    assert (await operator.type("--json", "list", "-o", "table")).stdout.startswith("SUBJECT")
    assert (await operator.type("list", "-o", "wide", "--json")).stdout == document
    wrong = await operator.type("list", "-o", "yaml")
    assert (wrong.exit_code, wrong.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize("group", [(), ("data",), ("locks",)], ids=["sessionctl", "data", "locks"])
def test_no_summary_is_cut(group: tuple[str, ...]) -> None:
    """The help of a group shows the whole first sentence of each of its commands on 80 columns."""
    text = CliRunner().invoke(main, [*group, "--help"], terminal_width=80).stdout
    assert "..." not in text.partition("\nCommands:\n")[2]
    assert text.endswith(".\n")


def test_help_names_types_as_errors_do() -> None:
    """`watch --help` has the names of the types as the error for a wrong one has them."""
    refused = CliRunner().invoke(main, ["watch", "--type", "nix"]).stderr
    text = " ".join(CliRunner().invoke(main, ["watch", "--help"]).stdout.split())
    names = re.findall(r"[a-z]+_[a-z_]+", refused.partition("(possible:")[2].partition(")")[0])
    assert ", ".join(names) in text
    assert len(names) == len(EventType) - 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("revoke",),
        ("revoke", NOBODY, "--all"),
        ("revoke", NOBODY, "--except", NOBODY),
        ("revoke", NOBODY, "--label", "tenant=acme"),
        ("revoke", "--all", "--yes", "--label", "tenant=acme"),
        ("revoke", "--label", "tenant"),
        ("list", "--label", "=acme"),
        ("watch", "--label", "tenant=a", "--label", "tenant=b"),
        ("watch", "--after", "c", "--earliest"),
        ("create", "--level", "2"),
        ("create", "--token-only", "--show-token"),
        ("create", "--data", "novalue"),
        ("create", "--data", "cart=\udcff"),
        ("data", "set", NOBODY, "cart=\udcff"),
        ("data", "get", NOBODY, "--raw"),
        ("locks", "clear"),
        ("report", NOBODY),
        ("report", "--reason", "odd"),
        ("activity",),
        ("activity", "ada"),
        ("validate", "--max-age", "soon"),
        ("validate", "--min-level", "4"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    """A command line with too little or too much ends with exit code 2 and one line, before the server is called."""
    result = CliRunner().invoke(main, ["--target", "127.0.0.1:1", *arguments])
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)


@pytest.mark.parametrize(
    "command", [("list",), ("activity", "--subject", "ada"), ("watch", "--earliest")], ids=" ".join
)
@pytest.mark.parametrize("limit", [sys.maxsize, sys.maxsize + 1])
def test_any_limit_is_possible(monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], limit: int) -> None:
    """A limit larger than every result is none, however large it is."""
    monkeypatch.setattr(Settings, "client", lambda _: FakeClient())
    result = CliRunner().invoke(main, [*command, "--limit", str(limit), "--json"])
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.count("\n") > 1


async def test_the_target_may_come_from_the_environment(operator: Operator) -> None:
    """SESSIOND_TARGET names the server of a process, and the option takes precedence."""
    environment = os.environ | {"SESSIOND_TARGET": operator.target}
    command = [sys.executable, "-m", "sessionctl", "status", "--json"]

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *more], env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    found = await asyncio.to_thread(run)
    assert json.loads(found.stdout)["revision"] == 0
    assert (await asyncio.to_thread(run, "--target", "127.0.0.1:1")).returncode == 4


async def test_an_interrupted_watch_says_how_to_continue(operator: Operator) -> None:
    """After Ctrl-C `watch` shows the command that continues after the last event, and its exit code is 130.
    The command names the same server, application and filters.
    """
    labels = {"tenant": "it's \x1b[2J"}
    await operator.open("O'Hara", labels=labels)

    interrupted: list[int] = []

    def interrupt(pid: int, shown: bytes) -> None:
        if shown.endswith(b"\n") and b"SESSION_CREATED" in shown and not interrupted:
            interrupted.append(pid)  # once: what is shown then may arrive in parts
            os.kill(pid, signal.SIGINT)

    given = ["--target", operator.target, "--application", "shop", "--subject", "O'Hara", "--subject", "bob"]
    given += ["--type", "session_created", "--label", "tenant=it's \x1b[2J"]
    watch = [sys.executable, "-m", "sessionctl", "watch"]
    run = await asyncio.to_thread(on_terminal, [*watch, "--earliest", "--limit", "2", *given], interrupt)
    assert run.exit_code == 130, run.output
    command = run.output.decode().splitlines()[-1].removeprefix("continue with: ")
    shell = ["bash", "-c", f'printf "%s\\0" {command}']
    printed = await asyncio.to_thread(subprocess.run, shell, capture_output=True, timeout=60, check=True)
    arguments = printed.stdout.decode().split("\0")[:-1]
    (event,) = await operator.json("watch", "--earliest", "--limit", "1")
    assert arguments == ["sessionctl", "watch", *given, "--after", event["cursor"]]
    for subject, kind in (("eve", {}), ("O'Hara", {}), ("bob", labels)):
        await operator.open(subject, labels=kind)
    (again,) = await operator.json(*arguments[1:], "--limit", "1")
    assert again["subject"] == "bob"


async def test_a_declined_confirmation_ends_nothing(operator: Operator) -> None:
    """On a terminal `revoke --all` asks; if the answer is not yes, no session ends, and the exit code is 1."""
    created = await operator.open()
    terminal = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
    command = [sys.executable, "-m", "sessionctl", "--target", operator.target, "--application", "shop"]
    run = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", terminal, *command, "revoke", "--all"],
        input=b"n\n",
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 1, run.stdout
    assert b"End all sessions of application 'shop'" in run.stdout
    assert b"no session was revoked" in run.stdout
    assert (await operator.client.validate(created.token)).valid


@pytest.mark.parametrize("no_colour", [False, True])
async def test_colours_on_a_terminal(operator: Operator, monkeypatch: pytest.MonkeyPatch, no_colour: bool) -> None:
    """A terminal gets colours unless NO_COLOR is set; a pipe gets none."""
    await operator.open()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_colour:
        monkeypatch.setenv("NO_COLOR", "1")
    command = [sys.executable, "-m", "sessionctl", "--target", operator.target, "--application", "shop", "list"]
    run = await asyncio.to_thread(on_terminal, command)
    assert (run.exit_code, b"\x1b[" in run.output) == (0, not no_colour)
    piped = await asyncio.to_thread(subprocess.run, command, capture_output=True, timeout=60, check=True)
    assert b"\x1b" not in piped.stdout
