"""`sessionctl` against a real authority: what it says, what it returns, and what it never shows."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NoReturn

import pytest
from click.testing import CliRunner

from sessionctl import main
from sessiond.app import App
from sessiond_client import Client, EventType, Unavailable
from tests.sessionctl.operator import Operator
from tests.sessionctl.terminal import on_terminal
from tests.support.clock import ManualClock
from tests.support.server import config_for, serving

CONFIG = """
[applications.shop]
preset = "owasp-low"
"""
NOBODY = "01a1ffcf-d799-7113-b468-5af8f30eb242"


@pytest.fixture
async def app(tmp_path: Path, clock: ManualClock) -> AsyncIterator[App]:
    """An authority with an application `shop`."""
    async with serving(config_for(tmp_path, CONFIG), clock) as app:
        yield app


async def test_create_gives_the_token_only_where_asked(operator: Operator) -> None:
    """People see no token; --show-token, --token-only and --json give one, and it is good."""
    people = await operator.type("create", "--subject", "ada", "--level", "2", "--method", "pwd")
    assert people.exit_code == 0
    assert "not shown" in people.stdout
    session_id = people.stdout.split()[1]
    assert (await operator.client.get(session_id=session_id)).session is not None

    only = await operator.type("create", "--subject", "ada", "--token-only")
    assert (await operator.client.validate(only.stdout.removesuffix("\n"))).valid
    (machine,) = await operator.json("create", "--data", "cart=a=b")
    assert (await operator.client.validate(machine["token"])).valid
    assert (await operator.client.get_data(token=machine["token"])).data == {"cart": b"a=b"}
    shown = await operator.type("create", "--show-token")
    assert (await operator.client.validate(shown.stdout.split()[-1])).valid


async def test_validate_reads_standard_input_and_tells_by_its_exit_code(operator: Operator, clock: ManualClock) -> None:
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


async def test_validate_is_only_a_look_unless_told(operator: Operator, clock: ManualClock) -> None:
    """A look does not count as activity; --active does."""
    created = await operator.open()
    clock.advance(600_000)
    (look,) = await operator.json("validate", stdin=created.token.reveal())
    (active,) = await operator.json("validate", "--active", stdin=created.token.reveal())
    assert look["session"]["last_active_time"] == "2027-01-15T08:00:00.000Z"
    assert active["session"]["last_active_time"] == "2027-01-15T08:10:00.000Z"


async def test_a_renewed_token_is_not_shown(operator: Operator, clock: ManualClock) -> None:
    """Where renewal is due, `validate` says so, and keeps the successor to itself."""
    created = await operator.open()
    for _ in range(3):
        clock.advance(25 * 60_000)
        renewed = (await operator.client.validate(created.token)).renewed_token
    assert renewed is not None
    operator.tokens.append(renewed.reveal())
    (answer,) = await operator.json("validate", stdin=created.token.reveal())
    assert answer["next_step"] == "REPLACE_TOKEN"
    assert "REPLACE_TOKEN" in (await operator.type("validate", stdin=created.token.reveal())).stdout


@pytest.mark.parametrize(
    "token", ["T" * 70, "-" + "T" * 69, "--" + "T" * 68, "-t" + "T" * 68], ids=lambda token: token[:3]
)
@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("validate",),
        ("show",),
        ("revoke",),
        ("revoke", "--token"),
        ("revoke", "--except"),
        ("data",),
        ("data", "get"),
        ("list",),
        ("list", "--limit"),
        ("list", "--state"),
        ("watch", "--type"),
        ("locks",),
        ("report", "--session-id"),
        ("list", "--label"),
        ("validate", "--max-age"),
        ("check-config", "--strict", "file"),
    ],
    ids=" ".join,
)
def test_a_token_as_an_argument_is_refused_and_not_repeated(arguments: tuple[str, ...], token: str) -> None:
    """A token in the wrong place, whatever it begins with, is wrong usage, says where tokens go, and is not shown."""
    result = CliRunner().invoke(main, ["--target", "127.0.0.1:1", *arguments, token])
    assert result.exit_code == 2
    assert "standard input or a prompt" in result.stderr
    assert "TTTT" not in result.output


async def test_an_empty_standard_input_is_a_wrong_usage(operator: Operator) -> None:
    """Without a token there is nothing to ask, and the remedy is told."""
    result = await operator.type("validate")
    assert (result.exit_code, "standard input" in result.stderr) == (2, True)


async def test_show_and_list(operator: Operator, clock: ManualClock) -> None:
    """`show` shows one session, `list` those that match, for people and for machines."""
    ada = await operator.open("ada")
    clock.advance(1)  # ids tell the order of opening to the millisecond
    bob = await operator.open("bob")
    (shown,) = await operator.json("show", ada.session.session_id)
    assert (shown["verdict"], shown["session"]["subject"]) == ("VALID", "ada")
    assert "ada" in (await operator.type("show", ada.session.session_id)).stdout
    listed = await operator.json("list")
    assert [session["session_id"] for session in listed] == [bob.session.session_id, ada.session.session_id]
    assert len(await operator.json("list", "--limit", "1")) == 1
    assert (await operator.type("list", "--subject", "bob")).stdout.startswith(bob.session.session_id)


async def test_revoke_by_token_id_and_subject(operator: Operator) -> None:
    """One by standard input, one by id, a subject's but one: each ends what it names and nothing else."""
    one, two, three, four = [await operator.open() for _ in range(4)]
    other = await operator.open("bob")
    assert (await operator.json("revoke", "--token", stdin=one.token.reveal()))[0]["revoked"] is True
    assert (await operator.type("revoke", two.session.session_id, "--reason", "stolen")).stdout == "revoked\n"
    kept = await operator.type("revoke", "--subject", "ada", "--except", four.session.session_id)
    assert kept.stdout == "revoked: 1\n"
    alive = [(await operator.client.validate(item.token)).valid for item in (one, two, three, four, other)]
    assert alive == [False, False, False, True, True]
    again = await operator.type("revoke", two.session.session_id)
    assert (again.exit_code, again.stdout) == (0, "nothing to end: the session was REVOKED\n")


async def test_a_token_that_ends_nothing_is_a_failure(operator: Operator) -> None:
    """Whoever wants a session ended by a token that proves nothing learns it by the exit code."""
    result = await operator.type("revoke", "--token", stdin="nonsense")
    assert (result.exit_code, result.stdout) == (1, "nothing to end: the token was MALFORMED\n")


async def test_revoking_everything_asks_first(operator: Operator) -> None:
    """Without a terminal to ask, --all wants --yes."""
    created = await operator.open()
    asked = await operator.type("revoke", "--all")
    assert (asked.exit_code, "--yes" in asked.stderr) == (2, True)
    assert (await operator.client.validate(created.token)).valid
    assert (await operator.type("revoke", "--all", "--yes")).stdout == "revoked: 1\n"


async def test_data(operator: Operator) -> None:
    """Keys are set, read and deleted; a version that is not the current one is refused by name."""
    session_id = (await operator.open()).session.session_id
    assert (await operator.json("data", "set", session_id, "a=1", "b=2"))[0]["version"] == 1
    assert (await operator.json("data", "get", session_id))[0]["data"] == {"a": "MQ==", "b": "Mg=="}
    assert (await operator.type("data", "get", session_id, "a", "--raw")).stdout == "1"
    stale = await operator.type("data", "delete", session_id, "a", "--expected-version", "7")
    assert (stale.exit_code, "expected_version" in stale.stderr) == (1, True)
    assert (await operator.type("data", "delete", session_id, "a", "--expected-version", "1")).exit_code == 0
    missing = await operator.type("data", "get", session_id, "a")
    assert (missing.exit_code, "`a`" in missing.stderr) == (1, True)


async def test_activity_and_authority(operator: Operator) -> None:
    """A subject's history, newest first; the authority, its applications and their presets, and no rule of theirs."""
    created = await operator.open()
    await operator.client.revoke(token=created.token, reason="logout")
    events = await operator.json("activity", "ada")
    assert [event["type"] for event in events] == ["SESSION_REVOKED", "SESSION_CREATED"]
    assert "logout" in (await operator.type("activity", "ada", "--limit", "1")).stdout
    (authority,) = await operator.json("authority")
    assert "shop" in [application["name"] for application in authority["applications"]]
    people = (await operator.type("authority")).stdout.splitlines()
    names = ["authority", "version", "incarnation", "revision", "horizon", "application"]
    assert [line.split()[0] for line in people[:-1]] == names
    assert ["incarnation", authority["incarnation"]] in [line.split() for line in people]
    assert people[-2].split(maxsplit=1)[1] == "shop, preset owasp-low"
    assert people[-1] == "sessionctl policies shows the rules"


async def test_labels_are_given_shown_and_filtered_by(operator: Operator) -> None:
    """`create` sets labels, `show`, `list` and `watch` show them, and `list`, `watch` and `revoke` filter by them."""
    await operator.open("eve")
    for subject, tenant in (("ada", "acme"), ("bob", "other")):
        labels = ("--label", f"tenant={tenant}", "--label", "region=eu")
        (opened,) = await operator.json("create", "--subject", subject, *labels)
        assert opened["session"]["labels"] == {"tenant": tenant, "region": "eu"}
    (line,) = (await operator.type("list", "--label", "tenant=acme", "--label", "region=eu")).stdout.splitlines()
    assert line.endswith("ada  region=eu tenant=acme")
    shown = (await operator.type("show", line.split()[0])).stdout.splitlines()
    assert ["label", "tenant=acme"] in [fact.split() for fact in shown]
    watched = await operator.type("watch", "--earliest", "--label", "tenant=other", "--limit", "1")
    assert "  bob  " in watched.stdout
    assert watched.stdout.endswith("  region=eu tenant=other\n")
    assert (await operator.type("revoke", "--label", "region=eu", "--subject", "bob")).stdout == "revoked: 1\n"
    kept = await operator.type("revoke", "--label", "region=eu", "--except", line.split()[0])
    assert kept.stdout == "revoked: 0\n"
    assert (await operator.type("revoke", "--label", "tenant=acme")).stdout == "revoked: 1\n"
    assert [session["subject"] for session in await operator.json("list")] == ["eve"]


async def test_watch_goes_on_after_a_cursor(operator: Operator) -> None:
    """Each line of `watch --json` has a cursor that --after takes, and filters narrow it."""
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


@pytest.mark.parametrize("package", ["sessionctl", "sessiond.cli"])
@pytest.mark.parametrize("chosen", [None, "DEBUG"])
def test_grpc_is_silent_unless_asked(package: str, chosen: str | None) -> None:
    """Both programs turn gRPC's own lines off before they import it, and leave alone what the user has set."""
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
    """Whatever is refused, its error is printable."""
    result = await operator.type(*arguments)
    assert result.exit_code in (1, 2)
    assert all(line.isprintable() for line in result.output.split("\n")), result.output


async def test_a_raw_value_cannot_command_a_terminal(operator: Operator) -> None:
    """`data get --raw` writes any bytes to a file, and to a terminal only those that it can show."""
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
    ("arguments", "words"),
    [
        (("create", "--subject", "x" * 300), ("subject:",)),
        (("list", "--network", "300.1.1.1"), ("filter.ip_network:",)),
        (("show", NOBODY), ("session_id:", "--application", "shop")),
        (("watch", "--after", "nonsense"), ("cursor:",)),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
async def test_a_refusal_is_one_line_that_names_the_field(
    operator: Operator, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    """What the authority refuses ends in exit code 1 and one line on standard error, with field and remedy."""
    result = await operator.type(*arguments)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert all(word in result.stderr for word in words)


@pytest.mark.parametrize("command", [("list",), ("locks",), ("data", "get", NOBODY), ("policies",)], ids=" ".join)
async def test_an_unknown_application_is_told_with_those_there_are(
    operator: Operator, command: tuple[str, ...]
) -> None:
    """After the refusal of an application that is not configured stands a line with those that are."""
    result = await operator.type(*command, "--application", "nix")
    assert (result.exit_code, result.stdout) == (1, "")
    refusal, remedy = result.stderr.splitlines()
    assert refusal.startswith("Error: application: ")
    assert remedy == "use --application; there are: shop"


async def test_an_unknown_application_is_told_even_where_the_others_are_not(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the authority does not tell its applications either, the refusal stands alone."""

    def unreachable(client: Client) -> NoReturn:
        raise Unavailable("gone")

    monkeypatch.setattr(Client, "authority", unreachable)
    result = await operator.type("list", "--application", "nix")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert result.stderr.startswith("Error: application: ")


async def test_nothing_found_is_told_beside_the_output(operator: Operator) -> None:
    """An empty list or history says so on standard error to people, and to machines by being empty."""
    for command, told in ((("list",), "no session\n"), (("activity", "nobody"), "no event\n")):
        result = await operator.type(*command)
        assert (result.exit_code, result.stdout, result.stderr) == (0, "", told)
        assert await operator.json(*command) == []


async def test_times_are_utc_and_say_so(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the reader is, a time on the screen is the one of the JSON document, with its Z."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        created = await operator.open()
        shown = (await operator.type("show", created.session.session_id)).stdout
        told = [(await operator.type(*command)).stdout for command in (("list",), ("activity", "ada"))]
    finally:
        monkeypatch.undo()
        time.tzset()
    assert all("2027-01-15 08:00:00Z" in text for text in (shown, *told))
    assert "expires at the latest  2027-01-15 16:00:00Z" in shown
    assert "ip address             unknown" in shown


@pytest.mark.parametrize("group", [(), ("data",), ("locks",)], ids=["sessionctl", "data", "locks"])
def test_no_summary_is_cut(group: tuple[str, ...]) -> None:
    """The help of a group shows the whole first sentence of each of its commands on 80 columns."""
    text = CliRunner().invoke(main, [*group, "--help"], terminal_width=80).stdout
    assert "..." not in text.partition("\nCommands:\n")[2]
    assert text.endswith(".\n")


def test_help_names_types_as_errors_do() -> None:
    """`watch --help` has the names of the types as the refusal of another has them."""
    refused = CliRunner().invoke(main, ["watch", "--type", "nix"]).stderr
    text = " ".join(CliRunner().invoke(main, ["watch", "--help"]).stdout.split())
    names = re.findall(r"'([a-z_]+)'", refused.partition("is not one of")[2])
    assert ", ".join(names) in text
    assert len(names) == len(EventType) - 1


@pytest.mark.parametrize("command", [("list",), ("watch",), ("create",)])
def test_nobody_there_is_told_with_the_remedy(command: tuple[str, ...]) -> None:
    """Where nobody listens, each command ends at once and names --target, `watch` too."""
    result = CliRunner().invoke(main, ["--target", "127.0.0.1:1", *command])
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "--target" in result.stderr
    assert "127.0.0.1:1" in result.stderr


def test_no_answer_is_told_with_the_remedy() -> None:
    """Where somebody accepts and never answers, the command ends after --timeout and names it."""
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        target = f"127.0.0.1:{mute.getsockname()[1]}"
        result = CliRunner().invoke(main, ["--target", target, "--timeout", "0.2", "list"])
    assert (result.exit_code, result.stderr) == (
        1,
        f"Error: {target} did not answer within 0.2 s: --timeout allows it more\n",
    )


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
        ("data", "get", NOBODY, "--raw"),
        ("locks", "clear"),
        ("report", "--session-id", NOBODY),
        ("report", "--reason", "odd"),
        ("validate", "--max-age", "soon"),
        ("validate", "--min-level", "4"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    """A command line that says too little or too much ends in exit code 2 before anybody is asked."""
    assert CliRunner().invoke(main, ["--target", "127.0.0.1:1", *arguments]).exit_code == 2


async def test_the_target_may_come_from_the_environment(operator: Operator) -> None:
    """As a process of its own: SESSIOND_TARGET names the authority, an option wins over it, NO_COLOR is heard."""
    environment = os.environ | {"SESSIOND_TARGET": operator.target, "NO_COLOR": "1"}
    command = [sys.executable, "-m", "sessionctl", "authority", "--json"]

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *more], env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    found = await asyncio.to_thread(run)
    assert json.loads(found.stdout)["revision"] == 0
    assert (await asyncio.to_thread(run, "--target", "127.0.0.1:1")).returncode == 1
