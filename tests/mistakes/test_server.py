"""Typical mistakes of somebody who starts a server. Each leads to one line that names the cause and the remedy."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.failed_start import UNPRIVILEGED, needs_setpriv, run_sessiond
from tests.support.server import config_for, serving

ROOT = Path(__file__).parents[2]
WRONG_USAGE, CANNOT_NOW, MISCONFIGURED = 2, 1, 78
REMOTE = ("--allow-remote-plaintext", "--allow-without-callers")


class Mistake(NamedTuple):
    """A way to start a server that cannot work.

    code         the documented exit code
    parts        what the error has, in this order: the thing that is wrong, and the remedy
    prepare      makes the mistake in the current folder of the server; what it opens is closed after the test
    arguments    the command line after `sessiond`
    environment  variables
    prefix       a command that runs the server
    """

    code: int
    parts: tuple[str, ...]
    prepare: Callable[[Path, ExitStack], None] = lambda _, __: None
    arguments: tuple[str, ...] = ("serve",)
    environment: Mapping[str, str] = {}
    prefix: tuple[str, ...] = ()


def file(text: str | bytes, name: str = "sessiond.toml", mode: int = 0o600) -> Callable[[Path, ExitStack], None]:
    """Write a file with that mode."""

    def prepare(folder: Path, _: ExitStack) -> None:
        path = folder / name
        path.parent.mkdir(exist_ok=True, mode=0o700)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(mode)

    return prepare


def folder_with_mode(mode: int) -> Callable[[Path, ExitStack], None]:
    """Create the data folder with that mode."""

    def prepare(folder: Path, _: ExitStack) -> None:
        (folder / "data").mkdir()
        (folder / "data").chmod(mode)

    return prepare


def used_socket(folder: Path, opened: ExitStack) -> None:
    """Listen on a Unix socket."""
    listener = opened.enter_context(socket.socket(socket.AF_UNIX))
    listener.bind(str(folder / "used.sock"))
    listener.listen()


def held_folder(folder: Path, opened: ExitStack) -> None:
    """Lock the database, as a running server does."""
    (folder / "data").mkdir(mode=0o700)
    lock = opened.enter_context((folder / "data" / "sessiond.db.lock").open("w"))
    lock.write("4711\n")
    lock.flush()
    fcntl.flock(lock, fcntl.LOCK_EX)


FILES = {
    "syntax": ('[server]\nlisten = "127.0.0.1:7443\n', ":2: invalid TOML: ", "line 2, column"),
    "unknown key": (
        '[applications.shop]\nidle_timout = "5m"\n',
        ":2: ",
        ".idle_timout: ",
        "did you mean 'idle_timeout'?",
    ),
    "unknown section": ('[sever]\nlisten = "x"\n', ":1: sever: ", "did you mean 'server'?"),
    "key in another section": ('[server]\nlevel = "info"\n', ":2: server.level: ", "did you mean 'log.level'?"),
    "wrong type": ('[server]\nmax_calls = "many"\n', ":2: server.max_calls: ", "must be a whole number"),
    "out of range": ("[server]\nmax_calls = 1\n", ":2: server.max_calls: ", "must be at least 10"),
    "bad duration": (
        "[applications.shop]\nidle_timeout = 30\n",
        ":2: applications.shop.idle_timeout: ",
        'must be a duration such as "30s", "15m", "1h30m" or "30d", or "none"',
    ),
    "contradiction": (
        '[applications.shop]\nidle_timeout = "9h"\n',
        ":2: applications.shop.idle_timeout: ",
        "must not be longer than absolute_timeout",
    ),
    "unknown preset": (
        '[applications.shop]\npreset = "owasp-hi"\n',
        ":2: applications.shop.preset: ",
        'must be one of "owasp-low", ',
        'did you mean "owasp-high"?',
    ),
    "bad address": ('[server]\nlisten = "7443"\n', ":2: server.listen: ", 'must be "HOST:PORT"', 'or "unix:PATH"'),
}
MISTAKES = {
    **{
        f"file: {name}": Mistake(MISCONFIGURED, ("sessiond.toml", *parts), file(text))
        for name, (text, *parts) in FILES.items()
    },
    "file missing": Mistake(
        MISCONFIGURED, ("nowhere.toml: no such file", "create it"), arguments=("serve", "--config", "nowhere.toml")
    ),
    "file missing, by a variable": Mistake(
        MISCONFIGURED, ("nowhere.toml: no such file", "create it"), environment={"SESSIOND_CONFIG": "nowhere.toml"}
    ),
    "file is a folder": Mistake(
        MISCONFIGURED, (".: is a folder", "name the file in it"), arguments=("serve", "--config", ".")
    ),
    "file not UTF-8": Mistake(
        MISCONFIGURED, ("sessiond.toml: is not UTF-8", "save it in that encoding"), file(b"\xff\xfe")
    ),
    "file not readable": Mistake(
        MISCONFIGURED,
        ("sessiond.toml: permission denied", "make it readable"),
        file("", mode=0o000),
        prefix=UNPRIVILEGED,
    ),
    "network file missing": Mistake(
        MISCONFIGURED,
        ("networks.countries: none.mmdb", "name a MaxMind file"),
        file('[networks]\ncountries = "none.mmdb"\n'),
    ),
    "socket in use": Mistake(
        CANNOT_NOW,
        ("unix:used.sock: another server", "stop it, or choose another path"),
        used_socket,
        ("serve", "--listen", "unix:used.sock"),
    ),
    "socket folder missing": Mistake(
        CANNOT_NOW,
        ("the folder nowhere does not exist", "create it first"),
        arguments=("serve", "--listen", "unix:nowhere/sessiond.sock"),
    ),
    "socket path taken": Mistake(
        CANNOT_NOW,
        ("unix:taken: a file that is not a socket", "remove it, or choose another path"),
        file("", "taken"),
        ("serve", "--listen", "unix:taken"),
    ),
    "unknown host": Mistake(
        CANNOT_NOW,
        ("the host nowhere.invalid was not found", "check its spelling"),
        arguments=("serve", "--listen", "nowhere.invalid:7443", *REMOTE),
    ),
    "address of another machine": Mistake(
        CANNOT_NOW,
        ("192.0.2.1 is not an address of this machine", "choose another host"),
        arguments=("serve", "--listen", "192.0.2.1:7443", *REMOTE),
    ),
    "public address": Mistake(
        MISCONFIGURED,
        ("0.0.0.0:7443 can be reached from other machines", "127.0.0.1 or unix:PATH", "--allow-remote-plaintext"),
        arguments=("serve", "--listen", "0.0.0.0:7443"),
    ),
    "public address without callers": Mistake(
        MISCONFIGURED,
        ("0.0.0.0:7443 can be reached from other machines", "sessionctl callers add", "--allow-without-callers"),
        arguments=("serve", "--listen", "0.0.0.0:7443", "--allow-remote-plaintext"),
    ),
    "native transport on a public address": Mistake(
        MISCONFIGURED,
        ('--transport: "native" does not limit', "0.0.0.0:7443", 'behind a proxy on this machine, or choose "grpcio"'),
        arguments=("serve", "--listen", "0.0.0.0:7443", "--allow-remote-plaintext", "--transport", "native"),
    ),
    "option: bad address": Mistake(
        WRONG_USAGE,
        ("'--listen'", 'must be "HOST:PORT"', "(see `sessiond serve --help`)"),
        arguments=("serve", "--listen", "localhost"),
    ),
    "option: misspelt": Mistake(
        WRONG_USAGE,
        ("unknown option '--lisen'; did you mean '--listen'? (see `sessiond serve --help`)",),
        arguments=("serve", "--lisen", "x"),
    ),
    "option: bad choice": Mistake(
        WRONG_USAGE, ("'--log-level'", "'debug', 'info'", "--help"), arguments=("serve", "--log-level", "loud")
    ),
    "command misspelt": Mistake(
        WRONG_USAGE, ("unknown command 'srve'; did you mean 'serve'? (see `sessiond --help`)",), arguments=("srve",)
    ),
    "variable: bad address": Mistake(
        MISCONFIGURED, ("SESSIOND_LISTEN: ", 'must be "HOST:PORT"'), environment={"SESSIOND_LISTEN": ":7443"}
    ),
    "variable: bad choice": Mistake(
        MISCONFIGURED,
        ("SESSIOND_LOG_FORMAT: ", 'must be one of "auto", "json", "console"'),
        environment={"SESSIOND_LOG_FORMAT": "xml"},
    ),
    "variable: neither true nor false": Mistake(
        MISCONFIGURED,
        ("SESSIOND_ALLOW_REMOTE_PLAINTEXT: ", "must be true or false"),
        environment={"SESSIOND_ALLOW_REMOTE_PLAINTEXT": "maybe"},
    ),
    "data folder is a file": Mistake(
        MISCONFIGURED,
        ("the data folder taken: ", "choose another with --data"),
        file("", "taken"),
        ("serve", "--data", "taken"),
    ),
    "data folder not writable": Mistake(
        MISCONFIGURED, ("the data folder data: ", "Permission denied"), folder_with_mode(0o500), prefix=UNPRIVILEGED
    ),
    "data folder open to others": Mistake(
        MISCONFIGURED, ("the data folder data", "chmod 700 data"), folder_with_mode(0o777)
    ),
    "data folder in use": Mistake(
        CANNOT_NOW, ("data/sessiond.db", "process 4711", "Stop that process, or "), held_folder
    ),
    "database of something else": Mistake(
        MISCONFIGURED, ("data/sessiond.db", "not a database", "another"), file("precious", "data/sessiond.db")
    ),
}


def error_of(folder: Path, mistake: Mistake) -> str:
    """Make the mistake; return the one line that reports it, after `Error: `."""
    with ExitStack() as opened:
        mistake.prepare(folder, opened)
        code, stderr = run_sessiond(folder, *mistake.arguments, prefix=mistake.prefix, environment=mistake.environment)
    assert (code, stderr.count("\n"), stderr[-1:]) == (mistake.code, 1, "\n"), stderr
    assert stderr.startswith("Error: ")
    line = stderr.removeprefix("Error: ").removesuffix("\n")
    assert line.isprintable()
    return line


def assert_in_order(parts: tuple[str, ...], line: str) -> None:
    """Assert that the line has each part, in this order."""
    rest = line
    for part in parts:
        _, found, rest = rest.partition(part)
        assert found, f"{part!r} is missing: {line}"


@pytest.mark.parametrize(
    "mistake",
    [
        pytest.param(mistake, id=name, marks=needs_setpriv if mistake.prefix else ())
        for name, mistake in MISTAKES.items()
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, mistake: Mistake) -> None:
    """A server that cannot start prints one line with the cause and the remedy, and exits with the documented code."""
    assert_in_order(mistake.parts, error_of(tmp_path, mistake))


def test_several_errors_are_a_line_each(tmp_path: Path) -> None:
    """Several errors in a file are a line each, in the order of the file, and each begins with `Error: `."""
    (tmp_path / "sessiond.toml").write_text('[applications.shop]\nidle_timout = "5m"\n[server]\nmax_calls = 1\n')
    code, stderr = run_sessiond(tmp_path, "serve")
    assert (code, stderr.splitlines()) == (
        MISCONFIGURED,
        [
            "Error: sessiond.toml:2: applications.shop.idle_timout: no such key; did you mean 'idle_timeout'?",
            "Error: sessiond.toml:4: server.max_calls: must be at least 10",
        ],
    )


@pytest.fixture
def used_port() -> Iterator[int]:
    """A port that is in use."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_port_in_use(tmp_path: Path, used_port: int) -> None:
    """A port in use is named, and the remedy is to stop the other server or to choose another port."""
    mistake = Mistake(CANNOT_NOW, (), arguments=("serve", "--listen", f"127.0.0.1:{used_port}"))
    assert_in_order((f"port {used_port} is in use", "stop the server", "another port"), error_of(tmp_path, mistake))


@pytest.fixture(scope="module")
def used_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of a server that ran before."""
    folder = tmp_path_factory.mktemp("used")

    async def run() -> None:
        async with serving(config_for(folder)):
            pass

    asyncio.run(run())
    return folder / "data"


def no_key(key: Path) -> None:
    """Remove the key file."""
    key.unlink()


def loose_key(key: Path) -> None:
    """Let everybody read the key file."""
    key.chmod(0o644)


def short_key(key: Path) -> None:
    """Shorten the key."""
    key.write_text("abc\n")


def other_key(key: Path) -> None:
    """Put another key in place."""
    key.write_text(os.urandom(64).hex() + "\n")


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (no_key, ("sessiond.key is missing", "Restore the key file", "from a backup")),
        (loose_key, ("key file data/sessiond.key", "chmod 600 data/sessiond.key")),
        (short_key, ("sessiond.key must ", "one to three lines of 128 hex digits")),
        (other_key, ("the key file beside data/sessiond.db", "Restore the right key")),
    ],
)
def test_a_key_file_that_cannot_be_used(
    tmp_path: Path, used_data: Path, spoil: Callable[[Path], None], parts: tuple[str, ...]
) -> None:
    """A key file that is missing, readable by others, malformed or from another database is named with the remedy."""
    shutil.copytree(used_data, tmp_path / "data")
    (tmp_path / "data").chmod(0o700)
    spoil(tmp_path / "data" / "sessiond.key")
    mistake = Mistake(MISCONFIGURED, (), arguments=("serve", "--listen", "127.0.0.1:0"))
    assert_in_order(parts, error_of(tmp_path, mistake))


# Interpreters that sessiond cannot use, as scripts. `make` asks for the version and whether it is new enough.
PYTHONS = {
    "too old": (
        '#!/bin/sh\ncase "$2" in *print*) echo "Python 3.10.13";; *) exit 1;; esac\n',
        ("sessiond needs Python 3.11 or newer; ", "is Python 3.10.13. ", "Install a newer one, or run: make PYTHON="),
    ),
    "missing": (None, ("sessiond needs Python 3.11 or newer; ", "is not installed. ", "make PYTHON=")),
    "without venv": (
        '#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; *) echo "Python 3.12.1";; esac\n',
        ("sessiond needs the module venv, ", "run: apt install python3-venv"),
    ),
}


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed here")
@pytest.mark.parametrize(("script", "parts"), PYTHONS.values(), ids=PYTHONS)
def test_make_names_the_python_that_it_needs(tmp_path: Path, script: str | None, parts: tuple[str, ...]) -> None:
    """`make run` with a Python that cannot be used prints one line, and creates no environment."""
    python, environment = tmp_path / "python", tmp_path / "venv"
    if script is not None:
        python.write_text(script)
        python.chmod(0o700)
    command = ["make", "--no-print-directory", "-C", str(ROOT), "run", f"PYTHON={python}", f"VENV={environment}"]
    # Without the settings of a `make` that runs the tests.
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    run = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stdout, run.stderr.count("\n")) == (2, "", 1), run.stdout + run.stderr
    assert_in_order(parts, run.stderr)
    assert not environment.exists()


@pytest.mark.parametrize(
    ("folder", "pip"), [("", True), ("/somewhere/else", True), (str(ROOT), False)], ids=["new", "moved", "interrupted"]
)
def test_make_creates_an_unusable_environment_again(tmp_path: Path, folder: str, pip: bool) -> None:
    """An environment whose creation was interrupted, or whose clone has been moved, is created again."""
    environment = tmp_path / "venv"
    (environment / "bin").mkdir(parents=True)
    python = environment / "bin" / "python"
    body = f'exec {sys.executable} "$@"' if pip else f'[ "$2" != pip ] && exec {sys.executable} "$@"'
    python.write_text(f"#!/bin/sh\n{body}\n")
    python.chmod(0o700)
    (environment / ".folder").write_text(f"{folder}\n")
    (environment / ".run").touch()
    command = ["make", "--no-print-directory", "-n", "-C", str(ROOT), "run", f"VENV={environment}"]
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    run = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    assert "-m venv --clear" in run.stdout
    assert not (environment / ".run").exists()
    (environment / ".folder").write_text(f"{ROOT}\n")
    (environment / ".run").touch()
    again = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=False)
    assert ("-m venv --clear" in again.stdout) is not pip


def test_an_old_python_is_named(tmp_path: Path) -> None:
    """`python -m sessiond` with an older Python prints one line, before it imports anything that needs a newer one."""
    old = (
        "import runpy, sys; sys.version_info = (3, 10, 13, 'final', 0); "
        "runpy.run_module('sessiond', run_name='__main__', alter_sys=True)"
    )
    program = tmp_path / "old"
    program.write_text(f'#!/bin/sh\nexec "$1" -c "{old}"\n')
    program.chmod(0o700)
    line = error_of(tmp_path, Mistake(MISCONFIGURED, (), prefix=(str(program),)))
    assert_in_order(("sessiond needs Python 3.11 or newer; ", "is Python 3.10.13. ", "Install a newer one"), line)
