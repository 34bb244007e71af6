"""Typical mistakes of an operator at `sessionctl`: each gives one line that names the thing and the remedy.

The exit codes are those of docs/reference/sessionctl.md.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner, Result

from sessionctl import main
from sessionctl.exits import Exit
from sessiond.app import App
from sessiond.cli import MISCONFIGURED
from tests.support.clock import ManualClock
from tests.support.server import config_for, serving

SESSION_ID = "01a1ffcf-d799-7113-b468-5af8f30eb242"
CONFIG = "[applications.shop]\n[applications.desk]\n"
CLOSED = "127.0.0.1:1"


@pytest.fixture
async def app(tmp_path: Path, clock: ManualClock) -> AsyncIterator[App]:
    """A server with the applications `desk` and `shop`. Its audit lines must not be taken for those of the command."""
    async with serving(config_for(tmp_path, CONFIG, log_audit_file=tmp_path / "audit.log"), clock) as app:
        yield app


def run(*arguments: str, stdin: str = "") -> Result:
    """Run a command; standard input is not a terminal."""
    return CliRunner().invoke(main, arguments, input=stdin)


def assert_one_line(result: Result, exit_code: Exit, *words: str) -> None:
    """The command wrote one line of error, with these words, and nothing else."""
    assert (result.exit_code, result.stdout) == (exit_code, ""), result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert [word for word in words if word not in line] == [], line


# The command line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("lst",), ("unknown command 'lst'", "did you mean 'list'?", "sessionctl --help")),
        (("sessions",), ("unknown command 'sessions'", "sessionctl --help")),
        (("data", "gte", SESSION_ID), ("unknown command 'gte'", "did you mean 'get'?", "sessionctl data --help")),
        (("list", "--subjct", "ada"), ("unknown option '--subjct'", "did you mean '--subject'?", "list --help")),
        (("list", "--aplication", "shop"), ("unknown option '--aplication'", "did you mean '--application'?")),
        (("list", "--state", "revokd"), ("unknown state 'revokd'", "did you mean 'revoked'?", "active, expired")),
        (("list", "--state", "x"), ("unknown state 'x'", "active, expired, revoked, all")),
        (("watch", "--type", "session_crated"), ("unknown event type", "did you mean 'session_created'?")),
        (("list", "-o", "yaml"), ("'-o'", "'yaml'", "table", "wide", "json")),
        (
            ("list", "--limit", "many"),
            ("invalid value for '--limit': must be a whole number, 1 or more, not 'many'", "list --help"),
        ),
        (("watch", "--limit", "0"), ("'--limit': must be a whole number, 1 or more, not '0'", "watch --help")),
        (("validate", "--min-level", "4"), ("'--min-level': must be a whole number from 0 to 3, not '4'",)),
        (("create", "--subject", "ada", "--level", "-1"), ("'--level': must be a whole number from 0 to 3",)),
        (("data", "set", SESSION_ID, "a=b", "--expected-version", "x"), ("must be a whole number, 0 or more",)),
        (("list", "--label", "tenant"), ("'--label'", "KEY=VALUE")),
        (("show", "ada"), ("SESSION_ID", "UUID", "sessionctl list")),
        (("revoke", "--subject", "ada", "--except", "bob"), ("--except", "UUID", "sessionctl list")),
        (("show",), ("SESSION_ID", "show --help")),
        (("report", SESSION_ID), ("'--reason'", "report --help")),
        (("activity",), ("'--subject'", "activity --help")),
        (("validate", "--max-age", "soon"), ("'--max-age'", "15m")),
        (("validate", "--max-age", "15"), ("'--max-age'", "15m")),
        (("revoke",), ("SESSION_ID", "--token", "--subject", "--label", "--all", "revoke --help")),
        (("revoke", SESSION_ID, "--all"), ("exactly one of", "SESSION_ID", "--all")),
        (("revoke", "--all"), ("--all needs confirmation", "add --yes")),
        (("create", "--level", "2"), ("--level", "add --subject")),
        (("validate",), ("no token", "standard input", "sessionctl validate <")),
        (("revoke", "--token"), ("no token", "standard input")),
        (("validate", "abc"), ("unexpected argument", "standard input", "validate --help")),
        (("validate", "T" * 70), ("looks like a token", "standard input", "never as an argument")),
        (("watch", "--after", "c", "--earliest"), ("--after", "--earliest")),
        (("--timeout", "soon", "list"), ("'--timeout': must be a number of seconds, more than 0, not 'soon'",)),
        (("list", "--timeout", "0"), ("'--timeout'", "more than 0, not '0'")),
        (("list", "--timeout", "nan"), ("'--timeout'", "not 'nan'")),
        (("reload", "--data", "a", "--config", "b"), ("--data", "--config")),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else None,
)
def test_wrong_usage(arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    """A wrong command line is one line that names the wrong word and what to write, with exit code 2."""
    assert_one_line(run("--target", CLOSED, *arguments), Exit.USAGE, *words)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("localhost", ("'localhost' has no port", "'localhost:7443'")),
        ("localhost:", ("'localhost:' is not an address", "HOST:PORT")),
        (":7443", ("':7443' is not an address", "HOST:PORT")),
        ("localhost:http", ("'localhost:http' is not an address", "HOST:PORT")),
        ("localhost:99999", ("'localhost:99999'", "1 to 65535")),
        ("http://localhost:7443/", ("is a URL", "such as 'localhost:7443'")),
        ("::1", ("'::1' is not an address", "[::1]:7443")),
        ("unix:", ("'unix:' has no path", "unix:/path")),
    ],
)
@pytest.mark.parametrize("place", ["--target", "SESSIOND_TARGET"])
def test_a_malformed_target(monkeypatch: pytest.MonkeyPatch, place: str, target: str, words: tuple[str, ...]) -> None:
    """A malformed target is one line that names the option or variable and the right form, with exit code 2."""
    if place == "--target":
        result = run("--target", target, "status")
    else:
        monkeypatch.setenv(place, target)
        result = run("status")
    assert_one_line(result, Exit.USAGE, f"{place}: ", *words)


def test_no_token_at_the_prompt() -> None:
    """An empty line at the prompt for a token is one line that says where tokens come from, with exit code 2."""
    on_terminal = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
    command = [sys.executable, "-c", on_terminal, sys.executable, "-m", "sessionctl", "--target", CLOSED, "validate"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        shown = b""
        while not shown.endswith(b"Token: ") and (part := process.stdout.read(1)):
            shown += part
        process.stdin.write(b"\n")
        error = process.stdout.read().decode().strip()
    assert process.returncode == Exit.USAGE, error
    assert error.startswith("Error: no token; pass it on standard input")
    assert "\n" not in error


# The address


COMMANDS = [("status",), ("list",), ("create",), ("watch",), ("locks",), ("policies",), ("show", SESSION_ID)]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_nothing_listens(command: tuple[str, ...]) -> None:
    """If nothing listens at the target, every command names it and how to start a server, with exit code 4."""
    result = run("--target", CLOSED, "--timeout", "1", *command)
    assert_one_line(result, Exit.UNREACHABLE, f"nothing listens at {CLOSED}", "sessiond serve", "--target")


def test_the_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the wrong target comes from the environment, the error names the variable and not the option."""
    monkeypatch.setenv("SESSIOND_TARGET", CLOSED)
    result = run("--timeout", "1", "status")
    assert_one_line(result, Exit.UNREACHABLE, CLOSED, "another server with SESSIOND_TARGET")


def test_the_socket_does_not_exist(tmp_path: Path) -> None:
    """If the path of a Unix socket does not exist, the error names the path, with exit code 4."""
    path = tmp_path / "missing" / "sessiond.sock"
    result = run("--target", f"unix:{path}", "--timeout", "1", "status")
    assert_one_line(result, Exit.UNREACHABLE, f"no socket {path}", f"sessiond serve --listen unix:{path}", "--target")


def test_the_host_is_unknown() -> None:
    """If the host name cannot be resolved, the error names it, with exit code 4."""
    result = run("--target", "nowhere.invalid:7443", "--timeout", "2", "status")
    assert_one_line(result, Exit.UNREACHABLE, "nowhere.invalid:7443", "check the name", "--target")


@contextmanager
def listening(answer: bytes | None) -> Iterator[str]:
    """A TCP server that is no sessiond: it answers with some bytes and closes, or never answers at all."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        held: list[socket.socket] = []

        def serve() -> None:
            try:
                while True:
                    connection, _ = listener.accept()
                    held.append(connection)
                    if answer is not None:
                        connection.sendall(answer)
                        connection.shutdown(socket.SHUT_WR)
            except OSError:
                return  # the test is over

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in held:
                connection.close()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"220 mail ready\r\n", b""])
def test_another_kind_of_server(answer: bytes) -> None:
    """If something else listens at the target, the error says so, with exit code 4."""
    with listening(answer) as target:
        result = run("--target", target, "--timeout", "3", "status")
    assert_one_line(result, Exit.UNREACHABLE, target, "not a sessiond server", "check the port")


def test_another_grpc_server() -> None:
    """If another gRPC server listens at the target, the error says so, with exit code 4."""
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        result = run("--target", f"127.0.0.1:{port}", "status")
    finally:
        server.stop(None).wait()
    assert_one_line(result, Exit.UNREACHABLE, f"127.0.0.1:{port} does not serve this call", "no sessiond server")


def test_no_answer_in_time() -> None:
    """If the target accepts the connection and does not answer, the error names --timeout, with exit code 4."""
    with listening(None) as target:
        result = run("--target", target, "--timeout", "0.2", "status")
    assert_one_line(result, Exit.UNREACHABLE, f"no answer from {target} within 0.2 s", "--timeout", "--target")


# What the server knows


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (("list", "--application", "shp"), Exit.USAGE, ("'shp'", "did you mean 'shop'?", "desk, shop")),
        (("list",), Exit.USAGE, ("--application", "'default'", "desk, shop")),
        (("watch", "--application", "x"), Exit.USAGE, ("'x'", "desk, shop")),
        (("watch", "--after", "c"), Exit.USAGE, ("--after", "invalid cursor", "sessionctl watch -o json")),
        (("list", "--application", "shop", "--network", "300.1.1.1"), Exit.USAGE, ("--network",)),
        (
            ("show", SESSION_ID, "--application", "shop"),
            Exit.FAILED,
            (f"no session {SESSION_ID}", "'shop'", "--application"),
        ),
        (
            ("data", "set", SESSION_ID, "a=b", "--application", "desk"),
            Exit.FAILED,
            (f"no session {SESSION_ID} in application 'desk'", "--application"),
        ),
        (
            ("report", "--session-id", SESSION_ID, "--reason", "odd", "--application", "desk"),
            Exit.FAILED,
            (f"no session {SESSION_ID} in application 'desk'", "--application"),
        ),
        (
            ("locks", "clear", "192.0.2.1/32", "--application", "shop"),
            Exit.FAILED,
            ("'192.0.2.1/32' is not locked in application 'shop'", "--application"),
        ),
        (("locks", "clear", "here", "--application", "shop"), Exit.USAGE, ("SOURCE", "sessionctl locks")),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else None,
)
async def test_what_the_server_refuses(
    app: App, arguments: tuple[str, ...], exit_code: Exit, words: tuple[str, ...]
) -> None:
    """A refusal is one line that names what the operator wrote and the remedy, with the documented exit code."""
    result = await asyncio.to_thread(run, "--target", app.address, *arguments)
    assert_one_line(result, exit_code, *words)


# Files and folders


def test_a_missing_configuration(tmp_path: Path) -> None:
    """A configuration that does not exist is exit code 78, as for `serve`, and the error names the file."""
    file = tmp_path / "sessiond.toml"
    result = run("check-config", str(file))
    assert (result.exit_code, str(file) in result.stdout) == (Exit.MISCONFIGURED, True)
    reloaded = run("reload", "--config", str(file))
    assert (reloaded.exit_code, str(file) in reloaded.stderr) == (Exit.MISCONFIGURED, True)
    assert Exit.MISCONFIGURED == MISCONFIGURED


def test_no_server_to_reload(tmp_path: Path) -> None:
    """If no server uses the data folder, `reload` names the folder and --data, with exit code 4."""
    assert_one_line(run("reload", "--data", str(tmp_path)), Exit.UNREACHABLE, str(tmp_path), "--data")
