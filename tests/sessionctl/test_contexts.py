"""Which server a command talks to: options, environment, contexts and the default; and TLS."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from structlog.testing import capture_logs

from sessionctl import main
from sessionctl.connecting import Connection, connection
from sessionctl.contexts import Context, Contexts, contexts_file, load_contexts, save_contexts
from sessionctl.exits import Exit
from tests.sessionctl.operator import SCREEN
from tests.support.certificates import Authority, Pair, server_files
from tests.support.server import config_for, serving

CA, CLIENTS, STRANGER = Authority("servers"), Authority("clients"), Authority("stranger")


def run(*arguments: str) -> Result:
    """Run a command."""
    return CliRunner().invoke(main, arguments, obj=SCREEN)


async def ask(*arguments: str) -> Result:
    """Run a command while this event loop goes on."""
    return await asyncio.to_thread(run, *arguments)


def error(*arguments: str) -> str:
    """Return the error of a command, which is one line."""
    result = run(*arguments)
    assert result.exit_code != 0
    (line,) = result.stderr.splitlines()
    return line.removeprefix("Error: ")


# The commands


def test_a_context_is_added_used_and_removed() -> None:
    """A context is added, listed, used, replaced and removed; the file is for its owner only."""
    assert run("context", "list").stderr == "no contexts found\n"
    added = run("context", "add", "prod", "--target", "db.example:7443", "--application", "shop")
    assert (added.exit_code, added.stdout) == (0, "added: prod (db.example:7443)\n")
    assert added.stderr == "choose it with: sessionctl context use prod\n"
    path = contexts_file()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert connection({}) == Connection("127.0.0.1:7443", "--target")
    assert run("context", "use", "prod").exit_code == 0
    assert connection({}) == Connection("db.example:7443", "context 'prod'", "shop")
    assert error("context", "add", "prod", "--target", "x:1") == (
        "there is a context 'prod'; choose another name, or add --replace"
    )
    assert run("context", "add", "prod", "--target", "unix:/run/s.sock", "--replace").exit_code == 0
    (listed,) = [json.loads(line) for line in run("context", "list", "--json").stdout.splitlines()]
    assert (listed["name"], listed["current"], listed["target"]) == ("prod", True, "unix:/run/s.sock")
    assert run("context", "use", "--none").stdout == "using no context\n"
    assert connection({}).target == "127.0.0.1:7443"
    run("context", "use", "prod")
    assert run("context", "remove", "prod").stderr == "no context is in use now\n"
    assert load_contexts() == Contexts()


def test_paths_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are kept by their absolute paths, so that a context works in every folder."""
    CA.write(tmp_path, "ca")
    certificate, key = CLIENTS.client().write(tmp_path, "ada")
    monkeypatch.chdir(tmp_path)
    result = run(
        *("context", "add", "prod", "--target", "db.example:1", "--tls-ca", "ca.pem"),
        *("--tls-certificate", certificate.name, "--tls-key", key.name),
    )
    assert result.exit_code == 0
    one = load_contexts().contexts["prod"]
    assert (one.tls_ca, one.tls_certificate, one.tls_key) == (str(tmp_path / "ca.pem"), str(certificate), str(key))
    assert "PRIVATE" not in contexts_file().read_text()


BAD_COMMANDS: dict[tuple[str, ...], str] = {
    ("context", "add", "Prod", "--target", "x:1"): "NAME: must have 1 to 64 of a-z, 0-9, '.', '_' and '-'",
    ("context", "add", "prod"): "--target: is missing; name the server of the context",
    ("context", "add", "prod", "--target", "x"): "--target: 'x' has no port",
    ("context", "add", "prod", "--target", "x:1", "--tls-ca", "/no/ca.pem"): (
        "--tls-ca: /no/ca.pem cannot be read: No such file or directory; name a PEM file that this user can read"
    ),
    (
        "context",
        "add",
        "prod",
        "--target",
        "x:1",
        "--tls-key",
        "/no/key",
    ): "--tls-certificate: is missing, and key is set",
    ("context", "add", "prod", "--target", "x:1", "--key-file", "/no/ops.key"): (
        "--key-file: cannot read /no/ops.key: No such file or directory"
    ),
    ("context", "add", "prod", "--target", "unix:/s", "--tls"): "--tls: unix:/s is a Unix socket, which needs no TLS",
    ("context", "use", "prod"): "no context 'prod' in ",
    ("context", "use"): "name a context, or add --none",
    ("context", "use", "prod", "--none"): "name a context, or add --none",
    ("context", "remove", "prod"): "no context 'prod' in ",
    ("status", "--context", "prod"): "--context: no context 'prod' in ",
    ("status", "--context", "prod", "--target", "x:1"): "--context and --target both name a server; use one of them",
    ("status", "--target", "unix:/s", "--tls-ca", "ca.pem"): "--tls-ca: unix:/s is a Unix socket, which needs no TLS",
    ("status", "--tls-ca", "/no/ca.pem"): "--tls-ca: /no/ca.pem cannot be read: No such file or directory",
}


@pytest.mark.parametrize("arguments", BAD_COMMANDS, ids=" ".join)
def test_a_wrong_command(arguments: tuple[str, ...]) -> None:
    """Wrong usage is reported in one line that names the option and the remedy, and changes nothing."""
    assert error(*arguments).startswith(BAD_COMMANDS[arguments])
    assert not contexts_file().exists()


def test_a_similar_name_is_suggested() -> None:
    """An unknown context is reported with a similar one."""
    save_contexts(Contexts("", {"prod": Context("x:1")}))
    assert error("context", "use", "prd").endswith("; did you mean 'prod'?")


# Precedence

CONTEXT = Context("context:1", "of-context", tls=True, tls_ca="context.pem")
OTHER = Context("other:1", "of-other")


@pytest.mark.parametrize(
    ("options", "variables", "expected"),
    [
        ({}, {}, ("context:1", "of-context", {"tls_ca": "context.pem"})),
        ({"application": "a"}, {}, ("context:1", "a", {"tls_ca": "context.pem"})),
        ({"tls_ca": "o.pem"}, {"TLS_CA": "v.pem"}, ("context:1", "of-context", {"tls_ca": "o.pem"})),
        ({}, {"TLS_CA": "v.pem"}, ("context:1", "of-context", {"tls_ca": "v.pem"})),
        ({}, {"APPLICATION": "v"}, ("context:1", "v", {"tls_ca": "context.pem"})),
        ({"target": "o:1"}, {}, ("o:1", "", {})),
        ({}, {"TARGET": "v:1"}, ("v:1", "", {})),
        ({"target": "o:1"}, {"TARGET": "v:1"}, ("o:1", "", {})),
        ({"target": "o:1"}, {"TLS_CA": "v.pem"}, ("o:1", "", {"tls_ca": "v.pem"})),
        ({"context": "other"}, {}, ("other:1", "of-other", {})),
        ({"context": "other"}, {"TARGET": "v:1", "APPLICATION": "v"}, ("other:1", "of-other", {})),
        ({}, {"CONTEXT": "other"}, ("other:1", "of-other", {})),
        ({"context": "used"}, {"CONTEXT": "other"}, ("context:1", "of-context", {"tls_ca": "context.pem"})),
        ({}, {"TARGET": "", "CONTEXT": ""}, ("context:1", "of-context", {"tls_ca": "context.pem"})),
        ({"target": "unix:/s"}, {"TLS_CA": "v.pem", "TLS": "1"}, ("unix:/s", "", {})),
        ({}, {"TLS": "off"}, ("context:1", "of-context", {})),
    ],
)
def test_precedence(
    options: dict[str, Any],
    variables: dict[str, str],
    expected: tuple[str, str, dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Options count before the environment, that before the context in use; a target brings no other's settings."""
    save_contexts(Contexts("used", {"used": CONTEXT, "other": OTHER}))
    for name, value in variables.items():
        monkeypatch.setenv(f"SESSIOND_{name}", value)
    found = connection(options)
    assert (found.target, found.application, dict(found.files)) == expected


KEYED = Context("keyed:1", key_file="/context.key")


@pytest.mark.parametrize(
    ("options", "variables", "expected"),
    [
        ({}, {}, ("/context.key", "context 'used'")),
        ({"key_file": "o.key"}, {"KEY_FILE": "v.key"}, ("o.key", "--key-file")),
        ({}, {"KEY_FILE": "v.key"}, ("v.key", "SESSIOND_KEY_FILE")),
        ({}, {"KEY_FILE": ""}, ("/context.key", "context 'used'")),
        ({"target": "o:1"}, {}, ("", "")),
        ({}, {"TARGET": "v:1"}, ("", "")),
        ({"target": "o:1"}, {"KEY_FILE": "v.key"}, ("v.key", "SESSIOND_KEY_FILE")),
        ({"target": "unix:/s"}, {"KEY_FILE": "v.key"}, ("v.key", "SESSIOND_KEY_FILE")),
        ({"target": "unix:/s", "key_file": "o.key"}, {}, ("o.key", "--key-file")),
        ({"context": "used"}, {"KEY_FILE": "v.key"}, ("/context.key", "context 'used'")),
        ({"context": "other"}, {}, ("", "")),
        ({}, {"TLS": "off"}, ("/context.key", "context 'used'")),
    ],
)
def test_precedence_of_the_key_file(
    options: dict[str, Any],
    variables: dict[str, str],
    expected: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The key file is taken by the rules of the files for TLS; it turns no TLS on, and Unix sockets have it too."""
    save_contexts(Contexts("used", {"used": KEYED, "other": OTHER}))
    for name, value in variables.items():
        monkeypatch.setenv(f"SESSIOND_{name}", value)
    found = connection(options)
    assert (found.key_file, found.key_file_from) == expected
    assert not found.tls
    assert found.files == {}


@pytest.mark.parametrize("text", ["true", "1", "Yes"])
def test_tls_by_a_variable(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """SESSIOND_TLS turns TLS with public authorities on; another text is refused."""
    monkeypatch.setenv("SESSIOND_TLS", text)
    assert connection({"target": "x:1"}).tls
    monkeypatch.setenv("SESSIOND_TLS", "maybe")
    assert error("status") == "SESSIOND_TLS: must be true or false (see `sessionctl status --help`)"


def test_a_variable_before_the_context_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """`context use` says that SESSIOND_TARGET counts before the context."""
    save_contexts(Contexts("", {"prod": Context("x:1")}))
    monkeypatch.setenv("SESSIOND_TARGET", "y:1")
    assert (
        "SESSIOND_TARGET is set and takes precedence over the context; unset it" in run("context", "use", "prod").stderr
    )


def test_a_relative_xdg_folder_is_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without an absolute XDG_CONFIG_HOME the file is in ~/.config."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("relative", ""):
        monkeypatch.setenv("XDG_CONFIG_HOME", value)
        assert contexts_file() == tmp_path / ".config" / "sessiond" / "contexts.json"


# The file

BAD_TEXTS: dict[str, str] = {
    "{\n oops": ":2: invalid JSON: Expecting property name enclosed in double quotes; correct it, or remove the file",
    "[]": ": the file: must be a JSON object; correct it, or remove the file",
    '{"contextes": {}}': ": contextes: no such key; correct it, or remove the file",
    '{"contexts": []}': ": contexts: must be an object; correct it, or remove the file",
    '{"contexts": {"A": {"target": "x"}}}': ": contexts.A: must have 1 to 64 of a-z",
    '{"contexts": {"a": {}}}': ": contexts.a: must be an object with the key target; correct it, or remove the file",
    '{"contexts": {"a": {"target": ""}}}': ": contexts.a.target: must not be empty; correct it, or remove the file",
    '{"contexts": {"a": {"target": 1}}}': ": contexts.a.target: must be a string; correct it, or remove the file",
    '{"contexts": {"a": {"target": "x", "key_file": 1}}}': ": contexts.a.key_file: must be a string; correct it",
    '{"contexts": {"a": {"target": "x", "key": "x"}}}': ": contexts.a.key: no such key",
    '{"contexts": {"a": {"target": "x", "tls": "x"}}}': ": contexts.a.tls: must be true or false",
    '{"contexts": {"a": {"target": "x", "token": "x"}}}': ": contexts.a.token: no such key",
    '{"current": "b", "contexts": {"a": {"target": "x"}}}': ": current: must be the name of a context, or empty",
}


@pytest.mark.parametrize("text", BAD_TEXTS)
def test_a_broken_file(text: str) -> None:
    """A broken file ends a command with code 78, and the error names file, key and remedy."""
    path = contexts_file()
    path.parent.mkdir(parents=True)
    path.write_text(text)
    path.chmod(0o600)
    result = run("status")
    assert result.exit_code == 78
    assert result.stderr.startswith(f"Error: {path}{BAD_TEXTS[text]}")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write(mode: int) -> None:
    """A file that others can write is refused: they could send the operator to a server of theirs."""
    save_contexts(Contexts("", {"prod": Context("x:1")}))
    contexts_file().chmod(mode)
    assert f"other users can write it (mode {mode:04o})" in error("context", "list")


def test_a_command_without_a_server_needs_no_file(tmp_path: Path) -> None:
    """A broken file of contexts does not stop commands that talk to no server, or to one that an option names."""
    contexts_file().parent.mkdir(parents=True)
    contexts_file().write_text("oops")
    (tmp_path / "sessiond.toml").write_text("")
    assert run("check-config", str(tmp_path / "sessiond.toml")).exit_code == 0
    assert "nothing listens at 127.0.0.1:1" in error("status", "--target", "127.0.0.1:1")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """If the file cannot be written, the error names it."""
    (tmp_path / "xdg").write_text("a file")
    assert error("context", "add", "a", "--target", "x:1").startswith(f"{contexts_file()}: cannot be ")


# TLS


def client_files(folder: Path, authority: Authority | None, own: Pair | None) -> tuple[str, ...]:
    """Write an operator's files, and return the options that name them."""
    folder.mkdir(exist_ok=True)
    options: tuple[str, ...] = ()
    if authority is not None:
        options += ("--tls-ca", str(authority.write(folder, "ca")))
    if own is not None:
        certificate, key = own.write(folder, "ada")
        options += ("--tls-certificate", str(certificate), "--tls-key", str(key))
    return options


async def test_a_command_over_mutual_tls(tmp_path: Path) -> None:
    """A command reaches a server with mutual TLS by options, by variables and by a context."""
    with capture_logs():
        async with serving(
            config_for(tmp_path, transport="grpcio", **server_files(CA, tmp_path / "tls", CLIENTS))
        ) as app:
            options = client_files(tmp_path / "ada", CA, CLIENTS.client())
            assert (await ask("status", "--target", app.address, *options)).exit_code == 0
            assert (await ask("context", "add", "prod", "--target", app.address, *options)).exit_code == 0
            await ask("context", "use", "prod")
            status = await ask("status", "--json")
            assert (status.exit_code, status.stderr) == (0, "")
            # Another server's files do not spoil a command for a Unix socket.
            assert "there is no socket" in (await ask("status", "--target", "unix:/no/socket")).stderr


WRONG: dict[str, tuple[Authority | None, Pair | None, str]] = {
    "another authority": (STRANGER, CLIENTS.client(), "is not signed by an authority in {ca}; name the file of its"),
    "public authorities": (
        None,
        CLIENTS.client(),
        "is not signed by a public authority; name the file of its authority",
    ),
    "no certificate": (
        CA,
        None,
        "closed the connection; it may require a certificate of the client; name one with",
    ),
    "another certificate": (CA, STRANGER.client(), "closed the connection; it may require another certificate than "),
    "no TLS": (None, None, "is not a sessiond server, or it expects TLS; check the port, add --tls or --tls-ca"),
}


@pytest.mark.parametrize("kind", WRONG)
async def test_wrong_files(tmp_path: Path, kind: str) -> None:
    """If TLS fails, one line names the file and the remedy, and the exit code is 4."""
    authority, own, said = WRONG[kind]
    with capture_logs():
        async with serving(
            config_for(tmp_path, transport="grpcio", **server_files(CA, tmp_path / "tls", CLIENTS))
        ) as app:
            result = await ask("status", "--target", app.address, *client_files(tmp_path / "ada", authority, own))
    assert result.exit_code == 4
    (line,) = result.stderr.splitlines()
    assert said.format(ca=tmp_path / "ada" / "ca.pem") in line


async def test_tls_to_a_plain_server(tmp_path: Path) -> None:
    """A server without TLS is named as such, with what turned TLS on."""
    with capture_logs():
        async with serving(config_for(tmp_path, transport="grpcio")) as app:
            result = await ask("status", "--target", app.address, *client_files(tmp_path / "ada", CA, None))
    assert result.stderr == (
        f"Error: {app.address} does not serve TLS; check the port, or leave out the files for TLS (--tls-ca)\n"
    )


async def test_another_host_name(tmp_path: Path) -> None:
    """A certificate for another name is reported with the name that was used."""
    files = server_files(CA, tmp_path / "tls")
    files["tls_certificate"], files["tls_key"] = CA.issue("sessiond.example").write(tmp_path / "tls", "other")
    with capture_logs():
        async with serving(config_for(tmp_path, transport="grpcio", **files)) as app:
            result = await ask("status", "--target", app.address, *client_files(tmp_path / "ada", CA, None))
    assert result.stderr == (
        f"Error: the certificate of {app.address} is not for '127.0.0.1'; name the server in --target as it is named "
        "there\n"
    )


def test_a_file_of_a_context(tmp_path: Path) -> None:
    """A file that a context names and that cannot be used is reported with the context and the key."""
    save_contexts(Contexts("prod", {"prod": Context("x:1", tls_ca=str(tmp_path / "gone.pem"))}))
    assert error("status").startswith(f"context 'prod': tls_ca: {tmp_path}/gone.pem cannot be read: No such file")


def test_a_file_of_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that a variable names and that cannot be used is reported with the variable."""
    monkeypatch.setenv("SESSIOND_TLS_CA", str(tmp_path / "gone.pem"))
    assert error("status").startswith(f"SESSIOND_TLS_CA: {tmp_path}/gone.pem cannot be read: No such file")


def test_an_expired_pair_is_no_local_problem(tmp_path: Path) -> None:
    """Whether a client's certificate is still valid is for the server to say: the clocks may differ."""
    old = CLIENTS.client(begin=timedelta(days=-2), end=timedelta(days=-1))
    assert os.path.isabs(client_files(tmp_path, CA, old)[1])
    result = run("context", "add", "old", "--target", "x:1", *client_files(tmp_path, CA, old))
    assert result.exit_code == 0


# Callers


async def test_a_context_with_a_key_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A context keeps the absolute path of a key file and never the key, and its commands call with that key."""
    monkeypatch.chdir(tmp_path)
    with capture_logs():
        async with serving(config_for(tmp_path)) as app:
            first = await ask("callers", "add", "ops", "--role", "admin", "--key-only", "--target", app.address)
            key = first.stdout.strip()
            file = tmp_path / "ops.key"
            file.touch(mode=0o600)
            file.write_text(first.stdout, encoding="ascii")
            added = await ask("context", "add", "prod", "--target", app.address, "--key-file", "ops.key")
            assert added.exit_code == 0, added.stderr
            assert load_contexts().contexts["prod"].key_file == str(tmp_path / "ops.key")
            listed = await ask("context", "list", "-o", "wide")
            assert str(tmp_path / "ops.key") in listed.stdout
            shown = added.output + listed.output + contexts_file().read_text(encoding="utf-8")
            assert key[-43:] not in shown
            assert (await ask("status", "--target", app.address)).exit_code == 1
            assert (await ask("status", "--context", "prod")).exit_code == 0
            await ask("context", "use", "prod")
            monkeypatch.chdir("/")
            assert (await ask("callers")).exit_code == 0


def test_a_key_file_of_a_context(tmp_path: Path) -> None:
    """A key file that a context names and that cannot be used is reported with the context and the key."""
    save_contexts(Contexts("prod", {"prod": Context("x:1", key_file=str(tmp_path / "gone.key"))}))
    assert error("status").startswith(f"context 'prod': key_file: cannot read {tmp_path}/gone.key: No such file")


def test_a_key_is_not_sent_to_another_machine_unencrypted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without TLS, a key for another machine is refused with what named it; a variable can allow it."""
    file = tmp_path / "ops.key"
    file.touch(0o600)
    file.write_text("sessiond_canary\n", encoding="ascii")
    message = error("status", "--target", "sessiond.invalid:1", "--key-file", str(file))
    assert message.startswith("--key-file: the key would be sent to sessiond.invalid:1 unencrypted; use TLS")
    assert "canary" not in message
    monkeypatch.setenv("SESSIOND_ALLOW_REMOTE_PLAINTEXT", "perhaps")
    message = error("status", "--target", "sessiond.invalid:1", "--key-file", str(file))
    assert message.startswith("SESSIOND_ALLOW_REMOTE_PLAINTEXT: must be true or false")
    monkeypatch.setenv("SESSIOND_ALLOW_REMOTE_PLAINTEXT", "true")
    result = run("status", "--target", "sessiond.invalid:1", "--key-file", str(file), "--timeout", "0.5")
    assert result.exit_code == Exit.UNREACHABLE
