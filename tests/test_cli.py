"""`sessiond serve` as a process of its own: what it says if it does not start, and its exit code."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import ServerProcess

ORDINARY = ["setpriv", "--bounding-set=-all"] if os.getuid() == 0 else []
"""Makes root an ordinary user, who may not write everywhere and not listen everywhere."""
needs_setpriv = pytest.mark.skipif(
    bool(ORDINARY) and shutil.which("setpriv") is None, reason="root may do everything, and there is no setpriv"
)


def start(folder: Path, *arguments: str, prefix: list[str] = [], **environment: str) -> tuple[int, str]:  # noqa: B006
    """Start a server that will not start: its exit code and its standard error. The folder is the current one."""
    ours = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
    run = subprocess.run(
        [*prefix, sys.executable, "-m", "sessiond", "serve", *arguments],
        cwd=folder,
        env=ours | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.stdout == ""
    return run.returncode, run.stderr


def write(folder: Path, text: str) -> None:
    """The configuration in that folder."""
    (folder / "sessiond.toml").write_text(text, encoding="utf-8")


BAD_FILES = {
    "no key": ('[server]\nlisten_on = "x"\n', "sessiond.toml:2: server.listen_on: no such key"),
    "no TOML": ("[server\n", "sessiond.toml:1: is not TOML"),
    "no address": ("[server]\nlisten = 7\n", "sessiond.toml:2: server.listen: must be"),
    "NUL in a socket": ('[server]\nlisten = "unix:a\\u0000"\n', "sessiond.toml:2: server.listen: must be"),
    "NUL in a folder": ('[server]\ndata = "a\\u0000"\n', "sessiond.toml:2: server.data: must be the path"),
    "empty folder": ('[server]\ndata = ""\n', "sessiond.toml:2: server.data: must be the path"),
    "NUL in a file": ('[networks]\noperators = "a\\u0000"\n', "sessiond.toml:2: networks.operators: must be the path"),
    "no such file": ('[networks]\ncountries = "none"\n', "networks.countries: none cannot be used"),
    "another file": ('[networks]\noperators = "sessiond.toml"\n', "networks.operators: sessiond.toml cannot be used"),
    "remote plaintext": ('[server]\nlisten = "0.0.0.0:0"\n', "--allow-remote-plaintext"),
    "evil key": ('"\\u009b\\u202e" = 1\n', r"sessiond.toml:1: \x9b\u202e: no such key"),
}


@pytest.mark.parametrize(("text", "words"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_configuration_is_one_line_and_78(tmp_path: Path, text: str, words: str) -> None:
    """What cannot work until somebody changes it ends in exit code 78 and one line that names the key."""
    write(tmp_path, text)
    code, stderr = start(tmp_path)
    assert (code, stderr.count("\n")) == (78, 1), stderr
    assert stderr.startswith("Error: ")
    assert words in stderr
    assert stderr.removesuffix("\n").isprintable()


BAD_DATA = {
    "a file": ("file", "cannot make the data folder file: something else is there; choose another with --data"),
    "under a file": ("file/data", "cannot make the data folder file/data: Not a directory; choose another with --data"),
    "too long": ("a" * 300, "File name too long; choose another with --data"),
    "key is a folder": ("key", "cannot read the key file key/sessiond.key: it is not a regular file"),
    "database is a folder": ("database", "cannot open database/sessiond.db for writing: Is a directory"),
}


@pytest.mark.parametrize(("data", "words"), BAD_DATA.values(), ids=BAD_DATA)
def test_a_bad_data_folder_is_one_line_and_78(tmp_path: Path, data: str, words: str) -> None:
    """A data folder that cannot be used is named, with what to do."""
    (tmp_path / "file").touch()
    (tmp_path / "key" / "sessiond.key").mkdir(parents=True)
    (tmp_path / "database" / "sessiond.db").mkdir(parents=True)
    code, stderr = start(tmp_path, "--data", data, "--listen", "127.0.0.1:0")
    assert (code, stderr.count("\n")) == (78, 1), stderr
    assert stderr.startswith("Error: ")
    assert words in stderr


@pytest.mark.parametrize("arguments", [("--data", ""), ("--listen", "nix"), ("--log-level", "loud"), ("more",)])
def test_wrong_usage_is_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """A command line that cannot be right ends in exit code 2, with the option named."""
    code, stderr = start(tmp_path, *arguments)
    assert code == 2
    assert arguments[0] in stderr.splitlines()[-1]


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def refusal(folder: Path, listen: str, *prefix: str) -> str:
    """The one line of a server that cannot listen there, whose exit code is 1."""
    code, stderr = start(folder, "--listen", listen, "--allow-remote-plaintext", prefix=[*prefix])
    assert (code, stderr.count("\n")) == (1, 1), stderr
    prefix_of_all = f"Error: cannot listen on {listen}: "
    assert stderr.startswith(prefix_of_all)
    return stderr.removeprefix(prefix_of_all).removesuffix("\n")


def test_a_port_in_use(tmp_path: Path, taken: int) -> None:
    """A port that somebody listens on is told as that, and nothing of gRPC's own stands before it."""
    told = refusal(tmp_path, f"127.0.0.1:{taken}")
    assert told == f"port {taken} is in use; stop the server that listens there, or choose another port"
    assert (tmp_path / "data" / "sessiond.db.lock").read_text() == ""  # names no process that is gone


def test_grpc_may_be_asked_to_speak(tmp_path: Path, taken: int) -> None:
    """Whoever sets GRPC_VERBOSITY gets gRPC's own lines."""
    code, stderr = start(tmp_path, "--listen", f"127.0.0.1:{taken}", GRPC_VERBOSITY="ERROR")
    assert code == 1
    assert "add_port.cc" in stderr


@pytest.mark.parametrize(
    ("listen", "told"),
    [
        ("192.0.2.1:7443", "192.0.2.1 is not an address of this machine; choose another host"),
        ("nowhere.invalid:7443", "nowhere.invalid is not the name or address of a machine; choose another host"),
        ("[::1%nix]:7443", "[::1%nix] is not the name or address of a machine; choose another host"),
    ],
)
def test_an_address_of_nobody(tmp_path: Path, listen: str, told: str) -> None:
    """An address that this machine does not have and a name that means nothing are told apart."""
    assert refusal(tmp_path, listen) == told


@needs_setpriv
def test_a_port_that_is_not_allowed(tmp_path: Path) -> None:
    """A port that needs privileges is told as that."""
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 80:
        pytest.skip("every port is allowed here")
    assert refusal(tmp_path, "127.0.0.1:80", *ORDINARY) == "this user may not use port 80; choose one from 1024 up"


def test_a_missing_folder_of_a_socket(tmp_path: Path) -> None:
    """A socket in a folder that does not exist is not said to be in use."""
    assert refusal(tmp_path, "unix:/nowhere/x.sock") == "there is no folder /nowhere; make it first"


def test_a_socket_under_a_file(tmp_path: Path) -> None:
    """A socket in something that is no folder is told as that."""
    (tmp_path / "file").touch()
    assert refusal(tmp_path, "unix:file/x.sock") == "file is not a folder; choose another path"


def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    """The path of a socket has at most 107 bytes."""
    told = refusal(tmp_path, f"unix:{'é' * 54}")
    assert told == "the path has 108 bytes, a socket's may have 107; choose a shorter one"


@needs_setpriv
@pytest.mark.parametrize("mode", [0o000, 0o500], ids=["closed", "read-only"])
def test_a_folder_that_is_not_allowed(tmp_path: Path, mode: int) -> None:
    """A folder that this user may not make a socket in is told as that, even if it cannot be looked into."""
    folder = tmp_path / "run"
    folder.mkdir(mode=mode)
    told = refusal(tmp_path, "unix:run/x.sock", *ORDINARY)
    assert told == "this user may not make a socket in run; choose another folder, or change its owner"


def test_a_socket_in_use(tmp_path: Path) -> None:
    """A socket that somebody listens on is told as that."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "x.sock"))
        listener.listen()
        assert refusal(tmp_path, "unix:x.sock") == "another server is listening there; stop it first"


async def test_a_folder_in_use_may_be_tried_again(tmp_path: Path) -> None:
    """A data folder that another server holds ends in exit code 1: it may be free the next time."""
    server = ServerProcess(tmp_path)
    try:
        await server.address()
        code, stderr = await asyncio.to_thread(start, tmp_path, "--data", "data", "--listen", "127.0.0.1:0")
    finally:
        server.kill()
    assert (code, stderr.count("\n")) == (1, 1)
    assert f"held by process {server.process.pid}" in stderr


async def test_the_start_names_its_configuration(tmp_path: Path) -> None:
    """The line that says that the server serves names the file that it has read; without one it names none."""
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
