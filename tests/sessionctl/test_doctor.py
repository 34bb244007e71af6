"""`sessionctl doctor`: each finding is caused for real, and nothing is changed by looking."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import pytest
from click.testing import CliRunner
from structlog.testing import capture_logs

from sessionctl import main
from sessiond.app import App
from sessiond_client import AsyncClient, Grant, Role
from tests.sessionctl.test_callers import write_key
from tests.support.certificates import Authority
from tests.support.clock import ManualClock
from tests.support.postgres import own_postgres
from tests.support.programs import start_program
from tests.support.replicas import replica, replicas
from tests.support.server import ServerProcess, config_for, serving
from tests.support.sidecars import beside, until

GOLDEN = Path(__file__).parents[1] / "store" / "sqlite" / "golden"
IS_ROOT = os.geteuid() == 0
IN_2026 = 1_795_000_000_000
ADMIN = Grant(role=Role.ADMIN)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The command runs in an empty folder, without variables of a server and without a `timedatectl`."""
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    for variable in list(os.environ):
        if variable.startswith("SESSIOND_"):
            monkeypatch.delenv(variable)
    monkeypatch.setenv("PATH", str(empty))
    with capture_logs():
        yield


class Examined(NamedTuple):
    """What the command found, and its exit code."""

    exit_code: int
    findings: list[dict[str, Any]]

    def of(self, check: str, state: str) -> list[str]:
        """The findings of one check that have this state, each with its remedy."""
        return [
            f"{one['text']} -> {one['remedy']}"
            for one in self.findings
            if (one["check"], one["state"]) == (check, state)
        ]

    @property
    def worries(self) -> list[str]:
        """All that is not in order."""
        return [f"{one['check']}: {one['text']}" for one in self.findings if one["state"] != "ok"]


async def examine(*arguments: str | Path) -> Examined:
    """Run the command."""
    typed = ["doctor", "--json", *map(str, arguments)]
    result = await asyncio.to_thread(CliRunner().invoke, main, typed)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return Examined(result.exit_code, [json.loads(line) for line in result.stdout.splitlines()])


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """The data folder of a server that was stopped."""
    async with serving(config_for(tmp_path)) as app, AsyncClient(app.address) as client:
        await client.create(subject="ada")
    return tmp_path / "data"


def contents(folder: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Everything about the files of a folder that a look could change, apart from the times of reading."""
    return {
        path.name: ((found := path.lstat()).st_ino, found.st_mtime_ns, found.st_mode, path.read_bytes())
        for path in sorted(folder.iterdir())
    }


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """A file system in memory, mounted at a folder."""
    folder.mkdir()
    mount = subprocess.run(
        ["/usr/bin/mount", "-t", "tmpfs", *options, "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mount.returncode:
        pytest.skip(f"this user may not mount a file system: {mount.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["/usr/bin/umount", folder], check=True)


# The command


async def test_a_stopped_server_that_is_in_order(folder: Path) -> None:
    """A sound data folder has no problem and no warning, and the exit code is 0, also with --strict."""
    found = await examine("--data", folder, "--strict")
    assert (found.exit_code, found.worries) == (0, [])
    assert {one["check"] for one in found.findings} == {"configuration", "folder", "disk", "keys", "store", "server"}
    named = await examine("--data", folder, "--strict", "--target", f"unix:{folder}/s.sock")
    assert (named.exit_code, named.worries) == (0, [])


async def test_a_running_server_that_is_in_order(tmp_path: Path) -> None:
    """With the key of an admin, a server with callers has nothing to complain about; it is found by its folder."""
    server = ServerProcess(tmp_path, listen=f"unix:{tmp_path}/s.sock")
    try:
        target = await server.address()
        async with AsyncClient(target) as client:
            key = (await client.create_caller("ops", [ADMIN])).key
        key_file = write_key(tmp_path, key.reveal())
        found = await examine("--data", tmp_path / "data", "--key-file", key_file, "--strict")
        assert (found.exit_code, found.worries) == (0, [])
        checks = {one["check"] for one in found.findings}
        assert checks >= {"server", "callers", "keys", "limits", "sockets", "folder", "disk"}
    finally:
        server.kill()


async def test_for_people(folder: Path) -> None:
    """Each finding is a line with its state, a remedy stands below it, and the last line counts."""
    await asyncio.to_thread(folder.chmod, 0o777)
    result = await asyncio.to_thread(CliRunner().invoke, main, ["doctor", "--data", str(folder)])
    lines = result.stdout.splitlines()
    place = lines.index(f"problem  folder: other users can write to the data folder {folder}")
    assert lines[place + 1] == f"         -> run: chmod 700 {folder}"
    assert (lines[-1], result.exit_code) == ("1 problem, 0 warnings", 1)


async def test_warnings_fail_only_if_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With warnings alone the exit code is 0, and with --strict it is 1."""
    monkeypatch.setenv("SESSIOND_LISTN", "127.0.0.1:1")
    assert (await examine("--data", folder)).exit_code == 0
    assert (await examine("--data", folder, "--strict")).exit_code == 1


async def test_looking_changes_nothing(tmp_path: Path, folder: Path) -> None:
    """A folder whose server was killed, with a log to read and a leftover of a key file, stays exactly as it is."""
    server = ServerProcess(tmp_path)
    async with AsyncClient(await server.address()) as client:
        await client.create(subject="bob")
    server.kill()
    (folder / ".sessiond.key.12345").touch(0o600)
    before = contents(folder)
    assert before["sessiond.db-wal"][3] != b""
    found = await examine("--data", folder)
    assert contents(folder) == before
    assert any("the last server was killed" in text for text in found.of("store", "ok"))
    async with serving(config_for(tmp_path)) as app, AsyncClient(app.address) as client:
        assert [session.subject async for session in client.list()] == ["bob", "ada"]


async def test_looking_does_not_disturb_a_running_server(tmp_path: Path) -> None:
    """While a server runs, the database is not opened, no file is created, and the server goes on."""
    server = ServerProcess(tmp_path)
    try:
        async with AsyncClient(await server.address()) as client:
            await client.create(subject="ada")
            names = set(os.listdir(tmp_path / "data"))
            found = await examine("--data", tmp_path / "data")
            assert set(os.listdir(tmp_path / "data")) == names
            assert found.of("store", "ok") == []
            await client.create(subject="bob")
    finally:
        server.kill()


async def test_without_a_folder_only_the_server_is_asked(app: App) -> None:
    """On a machine without a data folder or configuration, the server alone is looked at."""
    found = await examine("--target", app.address)
    assert {one["check"] for one in found.findings} <= {"server", "callers", "keys", "clock"}
    assert len(found.of("server", "ok")) == 1


async def test_a_server_that_does_not_answer(tmp_path: Path) -> None:
    """A server that cannot be reached is a problem with a remedy."""
    found = await examine("--target", f"unix:{tmp_path}/none.sock")
    assert found.exit_code == 1
    assert "there is no socket" in found.of("server", "problem")[0]


# Configuration and environment


async def test_a_configuration_that_cannot_be_used(tmp_path: Path) -> None:
    """Each error of the configuration is a problem, and the exit code is 78, as of `check-config`."""
    file = tmp_path / "broken.toml"
    file.write_text("[server]\nlistn = 1\n[nonsense]\n", encoding="utf-8")
    found = await examine("--config", file, "--target", f"unix:{tmp_path}/none.sock")
    assert found.exit_code == 78
    assert [text.partition(" ->")[0] for text in found.of("configuration", "problem")] == [
        f"{file}:2: server.listn: no such key; did you mean 'listen'?",
        f"{file}:3: nonsense: no such section; see docs/reference/configuration.md",
    ]


async def test_what_check_config_finds(tmp_path: Path) -> None:
    """Weak settings are a warning; an address that is refused, and a file that is not there, are problems."""
    file = tmp_path / "sessiond.toml"
    text = f'[server]\ndata = "{tmp_path}/data"\nlisten = "0.0.0.0:7443"\n'
    text += '[networks]\noperators = "none.mmdb"\n[applications.shop]\nidle_timeout = "2h"\n'
    file.write_text(text, encoding="utf-8")
    found = await examine("--config", file)
    refused, missing = found.of("configuration", "problem")
    assert "tokens would be sent unencrypted" in refused
    assert "there is no file none.mmdb" in missing
    (weak,) = found.of("configuration", "warning")
    assert weak.startswith(
        f"1 setting is weaker than OWASP, ASVS or NIST recommend in {file} -> `sessionctl check-config"
    )
    assert found.exit_code == 78


async def test_a_variable_that_sets_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable without effect is a warning: of this shell if the server is stopped, else of the server."""
    monkeypatch.setenv("SESSIOND_MAX_CALS", "7")
    server = ServerProcess(tmp_path)
    try:
        await server.address()
        monkeypatch.delenv("SESSIOND_MAX_CALS")
        monkeypatch.setenv("SESSIOND_ELSEWHERE", "1")
        (told,) = (await examine("--data", tmp_path / "data")).of("environment", "warning")
        assert (
            told == "the variable SESSIOND_MAX_CALS sets nothing -> did you mean SESSIOND_MAX_CALLS? Otherwise unset it"
        )
    finally:
        server.kill()
    (told,) = (await examine("--data", tmp_path / "data")).of("environment", "warning")
    assert told == "the variable SESSIOND_ELSEWHERE sets nothing -> unset it"


async def test_the_settings_are_those_of_the_running_server(tmp_path: Path) -> None:
    """The configuration, the variables and the options are those that the server was started with."""
    file = tmp_path / "elsewhere.toml"
    file.write_text('[applications.shop]\nidle_timeout = "2h"\n', encoding="utf-8")
    server = ServerProcess(tmp_path, "--config", "elsewhere.toml", cwd=tmp_path)
    try:
        address = await server.address()
        found = await examine("--data", tmp_path / "data")
        assert str(file) in found.of("configuration", "warning")[0]
        # The option has port 0, so that the address is not known.
        assert "its port is not known" in found.of("server", "warning")[0]
        named = await examine("--data", tmp_path / "data", "--target", address)
        assert address in named.of("server", "ok")[0]
    finally:
        server.kill()


# The folder and the disk


async def test_who_may_use_the_folder_and_its_files(folder: Path) -> None:
    """Files and folders that other users can reach are problems, each with the command that closes them."""
    for path, mode, check in (
        (folder, 0o777, "folder"),
        (folder / "sessiond.key", 0o644, "keys"),
        (folder / "sessiond.db", 0o640, "store"),
    ):
        before = path.stat().st_mode
        path.chmod(mode)
        found = await examine("--data", folder)
        (told,) = found.of(check, "problem")
        assert told.endswith(f"-> run: chmod {'700' if path.is_dir() else '600'} {path}")
        assert found.exit_code == 1
        path.chmod(before)
    assert (await examine("--data", folder)).worries == []


@pytest.mark.skipif(not IS_ROOT, reason="only root may give files away")
async def test_files_of_another_user(folder: Path) -> None:
    """A database or a key file that belongs to another user than the folder is a problem."""
    os.chown(folder / "sessiond.key", 65534, 65534)
    (told,) = (await examine("--data", folder)).of("folder", "problem")
    assert told.endswith(f"-> run: chown 0 {folder}/sessiond.key")


@pytest.mark.skipif(not IS_ROOT, reason="only root may become another user")
async def test_another_user_than_the_servers(tmp_path: Path) -> None:
    """Somebody who may not look into the folder gets a warning, whether the server runs or not, and no error."""
    with tempfile.TemporaryDirectory(prefix="sessiond-doctor-") as public:
        os.chmod(public, 0o755)
        server = ServerProcess(Path(public))
        try:
            address = await server.address()
            running = await examine_as_nobody("--data", f"{public}/data", "--target", address)
        finally:
            server.kill()
        stopped = await examine_as_nobody("--data", f"{public}/data", "--target", address)
    for found in (running, stopped):
        assert found.exit_code == 0
        (told,) = found.of("folder", "warning")
        assert "belongs to another user -> run this as the server's user or as root" in told
    assert address in running.of("server", "ok")[0]


AS_NOBODY = """
import contextlib, io, os, sys
from sessionctl import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main(sys.argv[1:])  # imports everything: the other user may not be able to read this Python
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
main(sys.argv[1:])
"""


async def examine_as_nobody(*arguments: str) -> Examined:
    """Run the command as a user who owns nothing."""
    process = await start_program(
        *(sys.executable, "-c", AS_NOBODY, "doctor", "--json", *arguments), stdout=subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return Examined(process.returncode, [json.loads(line) for line in output.splitlines()])


async def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """A missing folder is a warning, since the first start creates it; a file in its place is a problem."""
    found = await examine("--data", tmp_path / "none")
    assert "there is no data folder" in found.of("folder", "warning")[0]
    assert not (tmp_path / "none").exists()
    (tmp_path / "file").touch()
    assert "is not a folder" in (await examine("--data", tmp_path / "file")).of("folder", "problem")[0]


async def test_a_full_disk(tmp_path: Path, folder: Path) -> None:
    """A file system without room for a commit is a problem, and one in memory is a warning."""
    with mounted(tmp_path / "small", "-o", "size=3m,mode=700") as small:
        for name in ("sessiond.db", "sessiond.key"):
            shutil.copy2(folder / name, small)
        (small / "fill").write_bytes(b"x" * 1_500_000)
        found = await examine("--data", small)
        assert "the server stops when a commit finds the disk full" in found.of("disk", "problem")[0]
        assert "is in memory (tmpfs), and the database and the keys will be lost" in found.of("disk", "warning")[0]
        remount: list[str | Path] = ["/usr/bin/mount", "-o", "remount,ro", small]
        await asyncio.to_thread(subprocess.check_call, remount)
        assert "is read-only" in (await examine("--data", small)).of("disk", "problem")[0]


# Keys and store


async def test_a_wrong_or_missing_key_file(tmp_path: Path, folder: Path) -> None:
    """A key file of another store, a malformed one and a missing one are problems; none of them is shown."""
    key = folder / "sessiond.key"
    right = key.read_text(encoding="ascii")
    key.write_text("ab" * 63 + "cd\n", encoding="ascii")
    (told,) = (await examine("--data", folder)).of("store", "problem")
    assert "does not contain the key that this database was last written with" in told
    assert "-> Restore the right key file" in told
    key.write_text("nonsense\n", encoding="ascii")
    (told,) = (await examine("--data", folder)).of("keys", "problem")
    assert "one to three lines of 128 hex digits" in told
    assert "nonsense" not in told
    key.unlink()
    (told,) = (await examine("--data", folder)).of("keys", "problem")
    assert "is missing, but the database was written with one -> Restore the key file" in told
    key.touch(0o600)
    key.write_text(right, encoding="ascii")
    found = await examine("--data", folder)
    assert found.worries == []
    assert right.strip() not in json.dumps(found.findings)


async def test_an_old_sealing_key(tmp_path: Path) -> None:
    """A sealing key that has sealed for more than two years is a warning, with the server stopped or running."""
    clock = ManualClock(IN_2026 - 3 * 365 * 86_400_000)
    async with serving(config_for(tmp_path), clock):
        pass
    (told,) = (await examine("--data", tmp_path / "data")).of("keys", "warning")
    assert "NIST SP 800-57" in told
    async with serving(config_for(tmp_path), clock) as app:
        (told,) = (await examine("--target", app.address)).of("keys", "warning")
        assert "sessionctl keyring add" in told


async def test_databases_that_a_server_refuses(folder: Path) -> None:
    """A file that is no database, one of another program, and a newer one are problems; an older one is a warning."""
    database = folder / "sessiond.db"
    good = database.read_bytes()
    database.write_bytes(b"not a database at all")
    assert "it is not a database" in (await examine("--data", folder)).of("store", "problem")[0]
    database.write_bytes(b"")
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE songs (name TEXT)")
    assert "of another program" in (await examine("--data", folder)).of("store", "problem")[0]
    database.write_bytes(good)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA user_version = 999")
    (told,) = (await examine("--data", folder)).of("store", "problem")
    assert "has schema version 999" in told
    assert "-> Run the newer sessiond" in told
    database.unlink()
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript((GOLDEN / "version_7.sql").read_text(encoding="utf-8"))
    database.chmod(0o600)
    before = contents(folder)
    (told,) = (await examine("--data", folder)).of("store", "warning") or ["none"]
    assert contents(folder) == before
    assert "schema version 7; the next start migrates it" in told
    database.unlink()
    database.symlink_to("/etc/passwd")
    assert "cannot read" in (await examine("--data", folder)).of("store", "problem")[0]


# Certificates


async def test_certificates(tmp_path: Path) -> None:
    """A certificate that has expired, ends soon, has no name, or another one than the address, is found."""
    authority = Authority()
    file = tmp_path / "sessiond.toml"
    for pair, listen, state, said in (
        (authority.server(), "127.0.0.1:1", "ok", "is valid until"),
        (authority.server(end=timedelta(minutes=-1)), "127.0.0.1:1", "problem", "has expired at"),
        (authority.server(begin=timedelta(days=-30), end=timedelta(days=3)), "127.0.0.1:1", "warning", "ends at"),
        (authority.issue(), "0.0.0.0:1", "problem", "has no subject alternative name"),
        (
            authority.issue("a.example"),
            "b.example:1",
            "warning",
            "is for a.example, and the server listens at b.example",
        ),
    ):
        certificate, key = pair.write(tmp_path, "server")
        text = f'[server]\ndata = "{tmp_path}/data"\nlisten = "{listen}"\n'
        file.write_text(f'{text}[server.tls]\ncertificate = "{certificate}"\nkey = "{key}"\n', encoding="utf-8")
        assert any(said in told for told in (await examine("--config", file)).of("certificate", state))
    key.chmod(0o644)
    (told,) = (await examine("--config", file)).of("certificate", "problem")
    assert "has mode 0644" in told


async def test_a_server_with_tls_is_asked_if_its_authority_is_named(tmp_path: Path) -> None:
    """A server with TLS is asked only if --tls-ca or --tls says whom to trust; nothing is wrong without that."""
    authority = Authority()
    certificate, key = authority.server().write(tmp_path, "server")
    tls = ("--tls-certificate", str(certificate), "--tls-key", str(key))
    server = ServerProcess(tmp_path, *tls)
    try:
        address = await server.address()
        found = await examine("--data", tmp_path / "data")
        assert "the authority of its certificate is not known" in found.of("server", "warning")[0]
        assert found.exit_code == 0
        ca = authority.write(tmp_path, "ca")
        found = await examine("--data", tmp_path / "data", "--target", address, "--tls-ca", ca)
        assert address in found.of("server", "ok")[0]
        assert len(found.of("certificate", "ok")) == 1
    finally:
        server.kill()


# Postgres


def with_postgres(folder: Path, url: str) -> Path:
    """A configuration of a replica."""
    file = folder / "replica.toml"
    file.write_text(f'[server]\ndata = "{folder}/data"\nstore = "{url}"\n', encoding="utf-8")
    return file


async def test_a_postgres_that_is_in_order(tmp_path: Path) -> None:
    """A durable Postgres before and after the first start of a replica has nothing to complain about."""
    with own_postgres() as server:
        server.stop()
        server._settings.pop("fsync")
        server.start()
        first = await examine("--config", with_postgres(tmp_path / "empty", server.url()))
        assert [text for text in first.worries if not text.startswith("folder:")] == []
        assert any("no tables yet" in text for text in first.of("store", "ok"))
        async with replica(tmp_path, server.url(), 0):
            found = await examine("--config", with_postgres(tmp_path / "replica-0", server.url()), "--target", "t:1")
            assert [text for text in found.worries if not text.startswith("server:")] == []
            assert any(text.startswith("1 runs: ") for text in found.of("replicas", "ok"))


async def test_a_postgres_that_may_lose_what_it_acknowledged(tmp_path: Path, postgres: str) -> None:
    """`fsync` and `synchronous_commit` are problems if they are off, also if only this database has them off."""
    name = f"careless_{os.getpid()}"
    connection = await asyncpg.connect(postgres)
    try:
        await connection.execute(f"CREATE DATABASE {name}")
        await connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    finally:
        await connection.close()
    found = await examine("--config", with_postgres(tmp_path / "empty", postgres.rpartition("/")[0] + f"/{name}"))
    told = found.of("store", "problem")
    assert [
        any(text.startswith(f"{setting} is off") for text in told) for setting in ("synchronous_commit", "fsync")
    ] == [
        True,
        True,
    ]


async def test_a_postgres_with_few_connections(tmp_path: Path) -> None:
    """A limit of connections below what one replica may need is a problem."""
    with own_postgres() as server:
        server.stop()
        server._settings["max_connections"] = "12"
        server.start()
        found = await examine("--config", with_postgres(tmp_path / "empty", server.url()))
        (told,) = [text for text in found.of("store", "problem") if "connections" in text]
        assert "of 9 connections are open; a replica may need 14" in told


async def test_a_postgres_that_does_not_answer(tmp_path: Path) -> None:
    """A database that cannot be reached is a problem, and no message has its password."""
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nothing else gets this port
        url = f"postgres://ada:hunter2@127.0.0.1:{taken.getsockname()[1]}/sessiond"
        found = await examine("--config", with_postgres(tmp_path / "empty", url))
    (told,) = found.of("store", "problem")
    assert "cannot use postgres://127.0.0.1:" in told
    assert "hunter2" not in json.dumps(found.findings)


async def test_replicas_with_different_policies(tmp_path: Path, database: str) -> None:
    """Two replicas with different policies are a problem, by the database and by the server that is asked."""
    other = '[applications.default]\nidle_timeout = "12m"\n'
    async with replica(tmp_path, database, 0) as first, replica(tmp_path, database, 1, text=other):
        async with AsyncClient(first.address) as client:

            async def differ() -> bool:
                return bool((await client.authority()).replicas_with_other_policies)

            await until(differ)
        file = with_postgres(tmp_path / "replica-0", database)
        found = await examine("--config", file, "--target", first.address)
        by_database, by_server = found.of("replicas", "problem")
        assert "the replicas have different policies: " in by_database
        assert f"differ from those of {first.address}" in by_server
        assert found.exit_code == 1


async def test_the_key_file_of_another_authority(tmp_path: Path, database: str) -> None:
    """A replica's key file without any key of the database is a problem; the right one is not."""
    async with replicas(tmp_path, database, 2) as (first, _):
        file = with_postgres(tmp_path / "replica-1", database)
        found = await examine("--config", file, "--target", first.address)
        assert found.of("keys", "problem") == []
        assert any(text.startswith("2 run: ") for text in found.of("replicas", "ok"))
        (tmp_path / "replica-1" / "data" / "sessiond.key").write_text("ab" * 63 + "cd\n", encoding="ascii")
        (told,) = (await examine("--config", file, "--target", first.address)).of("keys", "problem")
        assert "has none of the keys of postgres://127.0.0.1" in told


# The process, its callers and its sockets


async def test_few_open_files(tmp_path: Path) -> None:
    """A server that may open fewer files than it may serve calls is a warning, with the setting of the unit."""
    server = ServerProcess(tmp_path, prefix=("/usr/bin/prlimit", "--nofile=1024"))
    try:
        await server.address()
        (told,) = (await examine("--data", tmp_path / "data")).of("limits", "warning")
        assert f"process {server.process.pid} may have 1,024 files open" in told
        assert "LimitNOFILE=65536" in told
    finally:
        server.kill()


async def test_few_open_files_in_the_unit(folder: Path, tmp_path: Path) -> None:
    """If the server is stopped, the limit of its systemd unit is looked at, if there is such a unit."""
    program = tmp_path / "empty" / "systemctl"
    for said, state in (
        ("LoadState=loaded\\nLimitNOFILESoft=1024", "warning"),
        ("LoadState=loaded\\nLimitNOFILESoft=65536", "ok"),
        ("LoadState=not-found\\nLimitNOFILESoft=1024", ""),
    ):
        program.write_text(f"#!/bin/sh\nprintf '{said}\\n'\n", encoding="ascii")
        program.chmod(0o755)
        found = await examine("--data", folder)
        assert [one["state"] for one in found.findings if one["check"] == "limits"] == ([state] if state else [])


async def test_no_callers(tmp_path: Path) -> None:
    """Without callers there is a warning, and a problem if other machines can reach the address."""
    async with serving(config_for(tmp_path)) as app:
        (told,) = (await examine("--target", app.address)).of("callers", "warning")
        assert "sessionctl callers add ops --role admin" in told
    config = config_for(tmp_path, listen="0.0.0.0:0", allow_remote_plaintext=True, allow_without_callers=True)
    async with serving(config) as app:
        file = tmp_path / "open.toml"
        file.write_text(
            f'[server]\ndata = "{tmp_path}/elsewhere"\nlisten = "0.0.0.0:7443"\nallow_remote_plaintext = true\n',
            encoding="utf-8",
        )
        target = app.address.replace("0.0.0.0", "127.0.0.1")
        found = await examine("--config", file, "--target", target)
        assert "everyone who can connect to 0.0.0.0:7443" in found.of("callers", "problem")[0]


async def test_a_caller_that_is_no_admin(app: App, tmp_path: Path) -> None:
    """Without the role admin the rest is checked, and a warning says what was not."""
    async with AsyncClient(app.address) as client:
        await client.create_caller("ops", [ADMIN])
    found = await examine("--target", app.address)
    assert "requires a key" in found.of("server", "warning")[0]
    assert found.exit_code == 0


async def test_sockets(tmp_path: Path) -> None:
    """A socket that other users may use, or at which nobody answers, and a folder that they can write are problems."""
    public = tmp_path / "public"
    public.mkdir()
    public.chmod(0o777)
    path = public / "s.sock"
    server = ServerProcess(tmp_path, listen=f"unix:{path}")
    try:
        await server.address()
        path.chmod(0o666)
        writable, mode = (await examine("--data", tmp_path / "data")).of("sockets", "problem")
        assert writable.endswith(f"-> run: chmod o-w {public}")
        assert f"{path} has mode 0666 instead of 0600" in mode
        path.unlink()
        told = (await examine("--data", tmp_path / "data")).of("sockets", "problem")
        assert any("No such file" in text for text in told)
    finally:
        server.kill()


async def test_sidecars(app: App, tmp_path: Path) -> None:
    """A sidecar that answers is in order; one that is not there, or is open to other users, is a problem."""
    async with beside(app.address, tmp_path) as sidecar:
        found = await examine("--target", app.address, "--sidecar", sidecar.address)
        assert "answers, for an authority of version" in found.of("sidecar", "ok")[0]
        (tmp_path / "near.sock").chmod(0o666)
        found = await examine("--target", app.address, "--sidecar", sidecar.address)
        assert "other users may connect" in found.of("sidecar", "problem")[0]
    found = await examine("--target", app.address, "--sidecar", f"unix:{tmp_path}/none.sock")
    assert "there is no socket" in found.of("sidecar", "problem")[0]
    assert (await examine("--sidecar", "nowhere")).exit_code == 2


# The clock


async def test_a_clock_that_is_not_synchronized(folder: Path, tmp_path: Path) -> None:
    """What `timedatectl` says about synchronization is a finding, and nothing is said where it cannot tell."""
    program = tmp_path / "empty" / "timedatectl"
    for script, state in (("echo yes", "ok"), ("echo no", "warning"), ("exit 1", "")):
        program.write_text(f"#!/bin/sh\n{script}\n", encoding="ascii")
        program.chmod(0o755)
        found = await examine("--data", folder)
        assert [one["state"] for one in found.findings if one["check"] == "clock"] == ([state] if state else [])


async def test_a_server_whose_clock_is_ahead(app: App) -> None:
    """A session from the future shows that the server's clock is ahead; the tests' clock is in 2027."""
    async with AsyncClient(app.address) as client:
        assert (await examine("--target", app.address)).of("clock", "warning") == []
        created = await client.create(subject="ada")
        if created.session.create_time < datetime.now(UTC):
            pytest.skip("the tests' clock is not ahead of this machine's any more")
        (told,) = (await examine("--target", app.address)).of("clock", "warning")
        assert "ahead of the clock of this machine" in told
