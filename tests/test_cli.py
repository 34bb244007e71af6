"""`sessiond serve` as a separate process: what it prints if it does not start, and its exit code."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from sessiond.cli import main
from sessiond.config import variable_of
from sessiond.serving import OPTIONS
from tests.support.failed_start import UNPRIVILEGED, needs_setpriv, run_sessiond
from tests.support.server import ServerProcess
from tests.support.sidecars import until


def start(folder: Path, *arguments: str, prefix: tuple[str, ...] = (), **environment: str) -> tuple[int, str]:
    """Run a server that fails to start, in that folder; return its exit code and standard error."""
    return run_sessiond(folder, "serve", *arguments, prefix=prefix, environment=environment)


def write(folder: Path, text: str) -> None:
    """Write the configuration of that folder."""
    (folder / "sessiond.toml").write_text(text, encoding="utf-8")


BAD_FILES = {
    "unknown key": ('[server]\nlisten_on = "x"\n', "sessiond.toml:2: server.listen_on: no such key"),
    "bad TOML": ("[server\n", "sessiond.toml:1: invalid TOML: "),
    "bad address": ("[server]\nlisten = 7\n", "sessiond.toml:2: server.listen: must be"),
    "NUL in a socket": ('[server]\nlisten = "unix:a\\u0000"\n', "sessiond.toml:2: server.listen: must be"),
    "NUL in a folder": ('[server]\ndata = "a\\u0000"\n', "sessiond.toml:2: server.data: must be the path"),
    "empty folder": ('[server]\ndata = ""\n', "sessiond.toml:2: server.data: must be the path"),
    "NUL in a file": ('[networks]\noperators = "a\\u0000"\n', "sessiond.toml:2: networks.operators: must be the path"),
    "missing file": ('[networks]\ncountries = "none"\n', "networks.countries: none cannot be used"),
    "another file": ('[networks]\noperators = "sessiond.toml"\n', "networks.operators: sessiond.toml cannot be used"),
    "remote plaintext": ('[server]\nlisten = "0.0.0.0:0"\n', "--allow-remote-plaintext"),
    "control characters": ('"\\u009b\\u202e" = 1\n', r"sessiond.toml:1: \x9b\u202e: no such key"),
}


@pytest.mark.parametrize(("text", "words"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_configuration_is_one_line_and_78(tmp_path: Path, text: str, words: str) -> None:
    """A bad configuration leads to exit code 78 and one line that names the key."""
    write(tmp_path, text)
    code, stderr = start(tmp_path)
    assert (code, stderr.count("\n")) == (78, 1), stderr
    assert stderr.startswith("Error: ")
    assert words in stderr
    assert stderr.removesuffix("\n").isprintable()


BAD_DATA = {
    "a file": ("file", "cannot create the data folder file: it exists and is not a folder; choose another with --data"),
    "under a file": (
        "file/data",
        "cannot create the data folder file/data: Not a directory; choose another with --data",
    ),
    "too long": ("a" * 300, "File name too long; choose another with --data"),
    "key is a folder": ("key", "cannot read the key file key/sessiond.key: it is not a regular file"),
    "database is a folder": ("database", "cannot open database/sessiond.db for writing: Is a directory"),
}


@pytest.mark.parametrize(("data", "words"), BAD_DATA.values(), ids=BAD_DATA)
def test_a_bad_data_folder_is_one_line_and_78(tmp_path: Path, data: str, words: str) -> None:
    """A data folder that cannot be used is named, with a remedy."""
    (tmp_path / "file").touch()
    (tmp_path / "key" / "sessiond.key").mkdir(parents=True)
    (tmp_path / "database" / "sessiond.db").mkdir(parents=True)
    code, stderr = start(tmp_path, "--data", data, "--listen", "127.0.0.1:0")
    assert (code, stderr.count("\n")) == (78, 1), stderr
    assert stderr.startswith("Error: ")
    assert words in stderr


@pytest.mark.parametrize("arguments", [("--data", ""), ("--listen", "nix"), ("--log-level", "loud"), ("more",)])
def test_wrong_usage_is_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """A wrong command line leads to exit code 2 and one line that names the option."""
    code, stderr = start(tmp_path, *arguments)
    assert (code, stderr.count("\n")) == (2, 1), stderr
    assert arguments[0] in stderr


TOKEN = "T" * 70


@pytest.mark.parametrize(
    "arguments",
    [
        (TOKEN,),
        ("serve", TOKEN),
        ("serve", "--data", TOKEN),
        ("serve", f"--config={TOKEN}"),
        ("serve", "--help", TOKEN),
        ("check-config", TOKEN),
        ("check-config", "--strict", f"./{TOKEN}"),
    ],
    ids=lambda arguments: " ".join(arguments).replace(TOKEN, "T"),
)
def test_a_token_as_an_argument_is_refused_and_not_repeated(arguments: tuple[str, ...]) -> None:
    """A token anywhere on the command line of `sessiond` is wrong usage, and the error does not contain it."""
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "an argument looks like a token" in result.stderr
    assert "TTTT" not in result.stderr


@pytest.mark.parametrize("variable", ["SESSIOND_CONFIG", "SESSIOND_LISTEN", "SESSIOND_LOG_LEVEL"])
def test_a_token_in_a_variable_is_not_repeated(tmp_path: Path, variable: str) -> None:
    """If a variable holds a token by mistake, the server does not start, and the error does not contain it."""
    code, stderr = start(tmp_path, prefix=(), **{variable: TOKEN})
    assert (code, stderr.count("\n")) == (78, 1)
    assert "TTTT" not in stderr


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that is in use."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def refusal(folder: Path, listen: str, *prefix: str) -> str:
    """Run a server that cannot listen there, with exit code 1; return the cause that its one line states."""
    code, stderr = start(
        folder, "--listen", listen, "--allow-remote-plaintext", "--allow-without-callers", prefix=prefix
    )
    assert (code, stderr.count("\n")) == (1, 1), stderr
    prefix_of_all = f"Error: cannot listen on {listen}: "
    assert stderr.startswith(prefix_of_all)
    return stderr.removeprefix(prefix_of_all).removesuffix("\n")


def test_a_port_in_use(tmp_path: Path, taken: int) -> None:
    """A port in use is reported in one line, without messages of gRPC."""
    cause = refusal(tmp_path, f"127.0.0.1:{taken}")
    assert cause == f"port {taken} is in use; stop the server that listens there, or choose another port"
    assert (tmp_path / "data" / "sessiond.db.lock").read_text() == ""  # names no process that is gone


def test_messages_of_grpc_can_be_turned_on(tmp_path: Path, taken: int) -> None:
    """With GRPC_VERBOSITY set, gRPC prints its own messages."""
    code, stderr = start(tmp_path, "--listen", f"127.0.0.1:{taken}", GRPC_VERBOSITY="ERROR")
    assert code == 1
    assert "add_port.cc" in stderr


@pytest.mark.parametrize(
    ("listen", "cause"),
    [
        ("192.0.2.1:7443", "192.0.2.1 is not an address of this machine; choose another host"),
        ("nowhere.invalid:7443", "the host nowhere.invalid was not found; check its spelling, or choose another host"),
        ("[::1%nix]:7443", "the host [::1%nix] was not found; check its spelling, or choose another host"),
    ],
)
def test_an_address_that_cannot_be_used(tmp_path: Path, listen: str, cause: str) -> None:
    """An address of another machine and an unknown host name are reported differently."""
    assert refusal(tmp_path, listen) == cause


@needs_setpriv
def test_a_port_that_is_not_allowed(tmp_path: Path) -> None:
    """A port that needs privileges is reported as such."""
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 80:
        pytest.skip("every port is allowed here")
    assert (
        refusal(tmp_path, "127.0.0.1:80", *UNPRIVILEGED) == "this user may not use port 80; choose a port from 1024 up"
    )


def test_a_missing_folder_of_a_socket(tmp_path: Path) -> None:
    """The missing folder of a socket is reported."""
    assert refusal(tmp_path, "unix:/nowhere/x.sock") == "the folder /nowhere does not exist; create it first"


def test_a_socket_under_a_file(tmp_path: Path) -> None:
    """A socket below a file is reported as such."""
    (tmp_path / "file").touch()
    assert refusal(tmp_path, "unix:file/x.sock") == "file is not a folder; choose another path"


def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    """The path of a socket has at most 107 bytes."""
    cause = refusal(tmp_path, f"unix:{'é' * 54}")
    assert cause == "the path is 108 bytes long and the limit is 107; choose a shorter path"


@needs_setpriv
@pytest.mark.parametrize("mode", [0o000, 0o500], ids=["closed", "read-only"])
def test_a_folder_that_is_not_allowed(tmp_path: Path, mode: int) -> None:
    """A folder in which this user may not create a socket is reported, even if the user may not read it."""
    folder = tmp_path / "run"
    folder.mkdir(mode=mode)
    cause = refusal(tmp_path, "unix:run/x.sock", *UNPRIVILEGED)
    assert cause == "this user may not create a socket in run; choose another folder, or change its owner"


def test_a_socket_in_use(tmp_path: Path) -> None:
    """A socket in use is reported as such."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "x.sock"))
        listener.listen()
        assert refusal(tmp_path, "unix:x.sock") == "another server is listening there; stop it, or choose another path"


async def test_a_folder_in_use_may_be_tried_again(tmp_path: Path) -> None:
    """A data folder in use by another server leads to exit code 1: it may be free at the next start."""
    server = ServerProcess(tmp_path)
    try:
        await server.address()
        code, stderr = await asyncio.to_thread(start, tmp_path, "--data", "data", "--listen", "127.0.0.1:0")
    finally:
        server.kill()
    assert (code, stderr.count("\n")) == (1, 1)
    assert f"in use by process {server.process.pid}" in stderr


async def test_the_start_names_its_configuration(tmp_path: Path) -> None:
    """The log line `serving` names the configuration file that was read, if there was one."""
    write(tmp_path, "[applications.default]\n")
    for cwd, arguments, files in (
        (tmp_path, (), [str(tmp_path / "sessiond.toml")]),
        (tmp_path.parent, ("--config", str(tmp_path / "sessiond.toml")), [str(tmp_path / "sessiond.toml")]),
        (tmp_path / "data", (), []),
    ):
        server = ServerProcess(tmp_path, *arguments, cwd=cwd)
        try:
            await server.address()
            assert json.loads(server.log().splitlines()[0])["config"] == files
        finally:
            server.kill()


async def test_the_environment_sets_what_options_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    """Variables replace the file, options replace variables, and `serving` says where each setting comes from."""
    file = tmp_path / "elsewhere.toml"
    file.write_text(f'[server]\nlisten = "127.0.0.1:{taken}"\nmax_calls = 50\n', encoding="utf-8")
    variables = {
        "SESSIOND_CONFIG": str(file),
        "SESSIOND_LISTEN": f"127.0.0.1:{taken}",
        "SESSIOND_DATA": str(tmp_path / "there"),
        "SESSIOND_LOG_FORMAT": "json",
        "SESSIOND_LOG_LEVEL": "warning",
        "SESSIOND_LISTN": "127.0.0.1:1",
        "SESSIOND_VERBOSE": "1",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    server = ServerProcess(tmp_path, "--listen", "127.0.0.1:0", "--log-level", "info", cwd=tmp_path, options=False)
    try:
        await server.address()
        await until(lambda: len(server.log().splitlines()) >= 4)  # the last line follows `serving`
        misspelt, unknown, serving, unprotected = (json.loads(line) for line in server.log().splitlines())
    finally:
        server.kill()
    assert (misspelt["event"], misspelt["variable"]) == ("environment variable ignored", "SESSIOND_LISTN")
    assert misspelt["did_you_mean"] == "SESSIOND_LISTEN"
    assert (unknown["event"], unknown["variable"]) == ("environment variable ignored", "SESSIOND_VERBOSE")
    assert "did_you_mean" not in unknown
    assert unprotected["event"] == "open to everyone who can connect"
    assert serving["config"] == [str(file)]
    assert (tmp_path / "there" / "sessiond.db").exists()
    assert serving["settings"] == {
        "server.listen": "--listen",
        "server.data": "SESSIOND_DATA",
        "server.max_calls": f"{file}:3",
        "log.format": "SESSIOND_LOG_FORMAT",
        "log.level": "--log-level",
    }


def test_a_bad_variable_counts_only_without_its_option(tmp_path: Path) -> None:
    """A bad variable is reported with exit code 78, unless an option replaces it."""
    write(tmp_path, '[server]\nlisten = "192.0.2.1:1"\n')
    code, stderr = start(tmp_path, SESSIOND_LOG_LEVEL="loud")
    assert (code, stderr.count("\n")) == (78, 1), stderr
    assert stderr.startswith('Error: SESSIOND_LOG_LEVEL: must be one of "debug", ')
    code, stderr = start(tmp_path, "--log-level", "info", SESSIOND_LOG_LEVEL="loud")
    assert (code, "192.0.2.1:1 can be reached from other machines" in stderr) == (78, True)


def test_the_help_names_the_variable_of_each_option() -> None:
    """The help of each option of `serve` names the environment variable that sets the same key."""
    command = main.commands["serve"]
    options = {one.name: one for one in command.params if isinstance(one, click.Option) and one.name in OPTIONS}
    assert set(options) == set(OPTIONS)
    for name, option in options.items():
        assert (option.help or "").endswith(f"[env: {variable_of(OPTIONS[name])}]")
