"""How much `sessionctl`, and `sessiond` unless it serves, import: this decides how fast they start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping

import click
import pytest

from sessionctl import main
from sessionctl.root import SUMMARIES
from tests.sessionctl.test_screens import commands

HEAVY = {
    *("grpc", "grpc_status", "google", "rich", "pydantic", "asyncio", "cryptography", "sessiond_stubs"),
    *("aiosqlite", "sqlite3", "asyncpg"),
}
CLIENT = {"sessiond_client", "sessiond_client.enums", "sessiond_client.targets"}
"""The parts of the client that may be imported: names and the form of addresses, without gRPC."""
NOTHING: Mapping[str, str] = {}
SCRIPT = """
import json, os, sys
if os.environ.get("PROGRAM") == "sessiond":
    from sessiond.cli import main
else:
    from sessionctl import main
try:
    main(sys.argv[1:], prog_name=os.environ.get("PROGRAM", "sessionctl"))
except SystemExit as end:
    assert end.code == int(sys.stdin.readline()), end.code
print("\\n" + json.dumps(sorted(sys.modules)))
"""


def modules_after(*arguments: str, exit_code: int = 0, variables: Mapping[str, str] = NOTHING) -> set[str]:
    """The modules that a process with these variables has imported when the command ends."""
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        input=f"{exit_code}\n",
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found: list[str] = json.loads(run.stdout.splitlines()[-1])
    return set(found)


def assert_light(modules: set[str]) -> None:
    """No module of a slow package was imported."""
    assert not {module for module in modules if module.partition(".")[0] in HEAVY}
    assert {module for module in modules if module.startswith("sessiond_client")} <= CLIENT


PATHS = [(), ("authority",), *commands(main)]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: " ".join(path) or "sessionctl")
def test_help_imports_nothing_slow(path: tuple[str, ...]) -> None:
    """No page of help waits for gRPC, protobuf, rich, pydantic or the client."""
    assert_light(modules_after(*path, "--help"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("lst",),
        ("list", "--subjct", "ada"),
        ("list", "--state", "revokd"),
        ("show", "ada"),
        ("--target", "localhost", "status"),
        ("revoke",),
        ("store", "copy"),
        ("store", "copy", "postgres://ada:secret@localhost/sessiond", "data"),
    ],
    ids=" ".join,
)
def test_wrong_usage_imports_nothing_slow(arguments: tuple[str, ...]) -> None:
    """An error in the command line is shown without gRPC, protobuf, rich, pydantic or the client."""
    assert_light(modules_after(*arguments, exit_code=2))


@pytest.mark.parametrize(
    "line",
    [
        "sessionctl ",
        "sessionctl --context ",
        "sessionctl list --",
        "sessionctl list --state ",
        "sessionctl callers add x --role ",
        "sessionctl store copy --",
        "sessiond ",
        "sessiond serve --",
        "sessiond serve --transport ",
        "sessiond sidecar --",
    ],
)
def test_completion_imports_nothing_slow(line: str) -> None:
    """A Tab waits neither for gRPC, protobuf, pydantic and the client, nor for the server's own modules."""
    words = line.split(" ")
    variables = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "PROGRAM": words[0]}
    variables[f"_{words[0].upper()}_COMPLETE"] = "bash_complete"
    modules = modules_after(variables=variables)
    assert_light(modules)
    ours = {module for module in modules if module.startswith("sessiond.")}
    assert ours <= {"sessiond.cli", "sessiond.domain", "sessiond.domain.text"}


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [(("--help",), 0), (("serve", "--help"), 0), (("completion", "bash"), 0), (("srve",), 2), (("serve", "--nix"), 2)],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_the_server_is_imported_to_serve_only(arguments: tuple[str, ...], exit_code: int) -> None:
    """Help, wrong usage and the completion script of `sessiond` do not wait for the server's modules."""
    assert_light(modules_after(*arguments, exit_code=exit_code, variables={"PROGRAM": "sessiond"}))


def test_a_call_imports_grpc() -> None:
    """The check above can fail: a command that calls a server has imported gRPC."""
    assert "grpc" in modules_after("--target", "127.0.0.1:1", "--timeout", "0.1", "status", exit_code=4)


def test_the_page_of_all_commands_imports_none() -> None:
    """`sessionctl --help` shows the summary of each command without importing it."""
    assert {module for module in modules_after("--help") if module.startswith("sessionctl.")} == {
        f"sessionctl.{name}"
        for name in ("root", "connecting", "failures", "exits", "numbers", "settings", "targets", "values")
    }


@pytest.mark.parametrize("name", SUMMARIES)
def test_a_summary_is_the_beginning_of_the_help(name: str) -> None:
    """The summary that `sessionctl --help` shows is the first sentence of the command's own help."""
    context = click.Context(main)
    command = main.get_command(context, name)
    assert command is not None
    assert f"{command.help} ".replace("\n", " ").startswith(f"{SUMMARIES[name]} ")
    assert not command.hidden
