"""`sessionctl backup` and `sessionctl restore`, with real servers and files."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from sessionctl.exits import Exit
from sessiond.config.data_folder import database_in, key_file_in
from sessiond_client import AsyncClient, EventType, Grant, OutOfRange, Role, Verdict
from sessiond_client.enums import SessionState
from tests.backup.archives import back_up, description_of, operate, put_back, rewritten
from tests.sessionctl.terminal import on_terminal
from tests.support.clock import ManualClock
from tests.support.moving import Held, Home, use, verify
from tests.support.server import config_for, serving

OTHER = "CREATE TABLE other (number INTEGER)"


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """The log of servers in this process must not get into what a command shows."""
    with capture_logs():
        yield


@pytest.fixture
def source(tmp_path: Path) -> Home:
    return Home(tmp_path / "source", tmp_path / "source" / "data")


@pytest.fixture
def target(tmp_path: Path) -> Home:
    return Home(tmp_path / "target", tmp_path / "target" / "data")


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, but the lock file."""
    return {str(one): one.read_bytes() for one in folder.rglob("*") if one.is_file() and one.suffix != ".lock"}


async def backed_up(home: Home, clock: ManualClock, file: Path) -> Held:
    """Use a server, and back it up while it runs. Then it changes again."""
    async with home.served(clock) as app:
        held = await use(app, clock)
        secret = file.with_name("caller.key")
        secret.write_text(held.key.reveal())
        secret.chmod(0o600)
        result = await back_up(app.address, file, "--key-file", str(secret))
        assert result.exit_code == 0, result.output
        async with AsyncClient(app.address, key=held.key) as client:
            await client.revoke(token=held.live.token)
            await client.create(subject="later")
    return held


def names(folder: Path) -> list[str]:
    """The names in a folder."""
    return sorted(one.name for one in folder.iterdir())


# Backing up


async def test_a_backup(tmp_path: Path, source: Home, clock: ManualClock) -> None:
    """A backup is a private file with the database and what it is of; the command shows that and the keys it needs."""
    file = tmp_path / "backup.tar"
    async with source.served(clock) as app, AsyncClient(app.address) as client:
        created = await client.create(subject="ada")
        shown = await back_up(app.address, file)
        again = await back_up(app.address, file)
        as_json = await back_up(app.address, tmp_path / "second.tar", "-o", "json")
        described = await client.authority()
        (key,) = (await client.key_ring()).keys
    assert shown.exit_code == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert names(tmp_path) == ["backup.tar", "second.tar", "source"]
    with tarfile.open(file) as archive:
        assert archive.getnames() == ["sessiond.db", "backup.json"]
    whole, ring = file.read_bytes(), key_file_in(source.data).read_text().split()
    assert ring
    assert not any(one.encode() in whole or bytes.fromhex(one) in whole for one in ring)
    assert created.token.reveal().encode() not in whole
    description = description_of(file)
    assert description["keys"] == [key.fingerprint]
    assert (description["revision"], description["authority_id"]) == (1, described.authority_id)
    assert description["time"] == "2027-01-15T08:00:00.000Z"
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert ["keys", key.fingerprint[:8]] in lines
    assert ["revision", "1"] in lines
    assert again.exit_code == Exit.FAILED
    assert again.stderr == f"Error: {file} exists; choose another name, or delete it\n"
    document = json.loads(as_json.stdout)
    assert (document["kind"], document["revision"], document["sha256"]) == ("backup", 1, description["sha256"])
    assert as_json.stderr == ""


async def test_a_backup_on_its_way(tmp_path: Path, source: Home, target: Home, clock: ManualClock) -> None:
    """A backup on standard output restores from standard input."""
    async with source.served(clock) as app:
        held = await use(app, clock)
        sent = await operate("backup", "-", "--target", app.address, "--key-file", str(key_of(held, tmp_path)))
    target.take_keys(source)
    result = await operate("restore", "-", str(target.data), "--keep-sessions", stdin=sent.stdout_bytes)
    assert result.exit_code == 0, result.output
    async with target.served(clock) as app:
        await verify(app, held)


def key_of(held: Held, folder: Path) -> Path:
    """A file with the key of a caller."""
    file = folder / "caller.key"
    file.write_text(held.key.reveal())
    file.chmod(0o600)
    return file


async def test_who_may_back_up(tmp_path: Path, source: Home, clock: ManualClock) -> None:
    """Only an admin for all applications may; a refused backup leaves no file."""
    async with source.served(clock) as app, AsyncClient(app.address) as anyone:
        key = (await anyone.create_caller("ops", [Grant(role=Role.ADMIN)])).key
        async with AsyncClient(app.address, key=key) as ops:
            operator = (await ops.create_caller("desk", [Grant(role=Role.OPERATOR)])).key
        file = tmp_path / "desk.key"
        file.write_text(operator.reveal())
        file.chmod(0o600)
        refused = await back_up(app.address, tmp_path / "backup.tar", "--key-file", str(file))
    assert refused.exit_code == Exit.FAILED
    assert "admin" in refused.stderr
    assert names(tmp_path) == ["desk.key", "source"]


async def test_a_backup_that_cannot_be_written(tmp_path: Path, source: Home, clock: ManualClock) -> None:
    """A folder that does not exist, and what another backup has begun to write, are one line each."""
    (tmp_path / "other.tar.partial").write_bytes(b"")
    async with source.served(clock) as app:
        missing = await back_up(app.address, tmp_path / "nowhere" / "backup.tar")
        other = await back_up(app.address, tmp_path / "other.tar")
    assert (missing.exit_code, other.exit_code) == (Exit.FAILED, Exit.FAILED)
    assert missing.stderr == f"Error: cannot write {tmp_path}/nowhere/backup.tar: No such file or directory\n"
    assert other.stderr == f"Error: {tmp_path}/other.tar.partial exists; choose another name, or delete it\n"
    assert names(tmp_path) == ["other.tar.partial", "source"]


async def test_without_hard_links(
    tmp_path: Path, source: Home, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system without hard links a backup gets its name too, and still replaces no other file."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    file = tmp_path / "backup.tar"
    async with source.served(clock) as app:
        monkeypatch.setattr(os, "link", refuse)
        assert (await back_up(app.address, file)).exit_code == 0
        whole = file.read_bytes()
        assert (await back_up(app.address, file)).exit_code == Exit.FAILED
    assert file.read_bytes() == whole
    assert description_of(file)["revision"] == 0
    assert names(tmp_path) == ["backup.tar", "source"]


async def test_a_terminal_gets_no_backup(source: Home, clock: ManualClock) -> None:
    """Standard output must not be a terminal."""
    command = [sys.executable, "-m", "sessionctl", "backup", "-"]
    run = await asyncio.to_thread(on_terminal, command)
    assert run.exit_code == Exit.USAGE
    assert b"a backup is not text" in run.output


# Restoring


@pytest.mark.parametrize("is_new", [True, False], ids=["a new machine", "the same machine"])
async def test_a_restore(tmp_path: Path, source: Home, target: Home, clock: ManualClock, is_new: bool) -> None:
    """Everything that clients held at the backup is as good as then, and what came later is unknown."""
    file = tmp_path / "backup.tar"
    held = await backed_up(source, clock, file)
    home = target if is_new else source
    if is_new:
        target.take_keys(source)
        result = await put_back(file, home.data)
    else:
        before = content(home.data)
        refused = await put_back(file, home.data)
        assert refused.exit_code == Exit.FAILED
        assert "add --replace" in refused.stderr
        assert content(home.data) == before
        result = await put_back(file, home.data, "--replace")
        (moved,) = home.data.glob("before-restore-*")
        assert (moved.stat().st_mode & 0o777, (moved / "sessiond.db").exists()) == (0o700, True)
        assert str(moved) in result.stdout
    assert result.exit_code == 0, result.output
    assert database_in(home.data).stat().st_mode & 0o777 == 0o600
    async with home.served(clock) as app:
        await verify(app, held)
        async with AsyncClient(app.address, key=held.key) as client:
            assert [one async for one in client.list(subject="later")] == []


async def test_all_sessions_end(tmp_path: Path, source: Home, target: Home, clock: ManualClock) -> None:
    """With --end-sessions each session that was live has ended, with an event, and a position from later is refused."""
    file = tmp_path / "backup.tar"
    held = await backed_up(source, clock, file)
    async with source.served(clock) as app, AsyncClient(app.address, key=held.key) as client:
        later = (await client.create(subject="later")).consistency_token
    target.take_keys(source)
    result = await put_back(file, target.data, "--end-sessions", "-o", "json")
    done = json.loads(result.stdout)
    assert (done["live"], done["ended"], done["key_file"]) == (4, 4, "present")
    async with target.served(clock) as app, AsyncClient(app.address, key=held.key) as client:
        assert (await client.validate(held.live.token)).verdict is Verdict.REVOKED
        assert [one async for one in client.list(state=SessionState.ACTIVE)] == []
        with pytest.raises(OutOfRange):
            await client.validate(held.live.token, at_least=later)
        async with asyncio.timeout(10), client.events(after=held.events[-1].cursor, applications=[]) as stream:
            ended = [await anext(stream) for _ in range(4)]
        assert {(one.type, one.cause.actor, one.cause.reason) for one in ended if one.cause is not None} == {
            (EventType.SESSION_REVOKED, "authority", "restored from a backup")
        }


async def test_a_restore_asks(tmp_path: Path, source: Home, target: Home, clock: ManualClock) -> None:
    """Without a terminal one has to say what happens to the sessions; nothing is written before."""
    file = tmp_path / "backup.tar"
    await backed_up(source, clock, file)
    result = await operate("restore", str(file), str(target.data))
    assert result.exit_code == Exit.USAGE
    assert "add --end-sessions or --keep-sessions" in result.stderr
    assert not target.data.exists()


async def test_a_server_that_runs(tmp_path: Path, source: Home, clock: ManualClock) -> None:
    """A folder that a server uses is refused, and the server is named."""
    file = tmp_path / "backup.tar"
    async with source.served(clock) as app, AsyncClient(app.address) as client:
        token = (await client.create()).token
        await back_up(app.address, file)
        command = ["restore", str(file), str(source.data), "--keep-sessions", "--replace"]
        program = [sys.executable, "-m", "sessionctl", *command]
        refused = await asyncio.to_thread(subprocess.run, program, capture_output=True, text=True, check=False)
        assert refused.returncode == Exit.FAILED
        assert "is in use by process" in refused.stderr
        assert (await client.validate(token)).valid


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="there is no prlimit; install the package util-linux")
async def test_a_full_disk(tmp_path: Path, source: Home, target: Home, clock: ManualClock) -> None:
    """If there is no room, a backup and a restore end with one line, and leave nothing behind."""

    async def with_little_room(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["prlimit", "--fsize=20000", sys.executable, "-m", "sessionctl", *arguments]
        return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)

    file = tmp_path / "backup.tar"
    held = await backed_up(source, clock, file)
    target.take_keys(source)
    async with source.served(clock) as app:
        options = ("--target", app.address, "--key-file", str(key_of(held, tmp_path)))
        backup = await with_little_room("backup", str(tmp_path / "second.tar"), *options)
    restore = await with_little_room("restore", str(file), str(target.data), "--keep-sessions")
    assert (backup.returncode, restore.returncode) == (Exit.FAILED, Exit.FAILED)
    for run in (backup, restore):
        assert run.stderr.splitlines()[-1].endswith("File too large")
        assert "Traceback" not in run.stderr
    assert not list(tmp_path.glob("second.tar*"))  # noqa: ASYNC240 - a test
    assert content(target.data).keys() == {str(key_file_in(target.data))}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("cut in the database", "it is cut off"),
        ("cut before the description", "it is cut off|backup.json, which is written last, is missing"),
        ("without the description", "backup.json, which is written last, is missing"),
        ("one bit", "SHA-256 of the database is not the one"),
        ("another description", "SHA-256 of the database is not the one"),
        ("no JSON", "backup.json cannot be read"),
        ("a newer format", "which a newer sessionctl has written"),
        ("another database", "is not of sessiond"),
        ("a newer schema", "has schema version 99"),
        ("another revision", "its database is not the one that it describes"),
        ("text", "it is not a backup"),
        ("empty", "it is not a backup"),
        ("missing", "No such file"),
    ],
)
async def test_a_backup_that_is_not_whole(
    tmp_path: Path, source: Home, clock: ManualClock, damage: str, message: str
) -> None:
    """A backup that is damaged in any way is refused, and the folder is as before."""
    file = tmp_path / "backup.tar"
    await backed_up(source, clock, file)
    spoil(file, damage)
    before = content(source.data)
    result = await put_back(file, source.data, "--replace")
    assert result.exit_code in (Exit.FAILED, Exit.USAGE)
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert any(part in result.stderr for part in message.split("|")), result.stderr
    assert content(source.data) == before


def spoil(file: Path, damage: str) -> None:
    """Damage a backup."""
    whole = file.read_bytes()
    size = description_of(file)["size"]

    def described(**changes: object) -> None:
        def change(name: str, body: bytes) -> tuple[str, bytes]:
            return (name, json.dumps(json.loads(body) | changes).encode()) if name == "backup.json" else (name, body)

        rewritten(file, change)

    def database(statement: str) -> None:
        from hashlib import sha256

        copy = file.with_name("copy.db")
        if damage == "another database":
            copy.unlink(missing_ok=True)
        else:
            with tarfile.open(file) as archive:
                body = archive.extractfile("sessiond.db")
                assert body is not None
                copy.write_bytes(body.read())
        with closing(sqlite3.connect(copy)) as db:
            db.execute("PRAGMA journal_mode = DELETE")
            db.execute(statement)
            db.commit()
        new = copy.read_bytes()
        rewritten(file, lambda name, old: (name, new if name == "sessiond.db" else old))
        described(size=len(new), sha256=sha256(new).hexdigest())

    match damage:
        case "cut in the database":
            file.write_bytes(whole[: 512 + size // 2])
        case "cut before the description":
            file.write_bytes(whole[: 512 + size])
        case "without the description":
            rewritten(file, lambda name, body: None if name == "backup.json" else (name, body))
        case "one bit":
            file.write_bytes(whole[:50_000] + bytes([whole[50_000] ^ 1]) + whole[50_001:])
        case "another description":
            described(sha256="0" * 64)
        case "no JSON":
            rewritten(file, lambda name, body: (name, b"{" if name == "backup.json" else body))
        case "a newer format":
            described(format=2)
        case "another database":
            database(OTHER)
        case "a newer schema":
            database("PRAGMA user_version = 99")
        case "another revision":
            described(revision=1)
        case "text":
            file.write_text("no backup\n" * 1000)
        case "empty":
            file.write_bytes(b"")
        case "missing":
            file.unlink()


async def test_the_wrong_key_file(tmp_path: Path, source: Home, target: Home, clock: ManualClock) -> None:
    """A key file that does not belong to the backup is refused; a missing one is named, and may come later."""
    file = tmp_path / "backup.tar"
    held = await backed_up(source, clock, file)
    async with serving(config_for(tmp_path / "other"), clock):
        pass
    target.data.mkdir(parents=True, mode=0o700)
    shutil.copy(key_file_in(tmp_path / "other" / "data"), key_file_in(target.data))
    before = content(target.data)
    refused = await put_back(file, target.data)
    assert refused.exit_code == Exit.FAILED
    assert "does not contain the key that the backup was last written with" in refused.stderr
    assert content(target.data) == before
    key_file_in(target.data).unlink()
    result = await put_back(file, target.data)
    assert result.exit_code == 0
    assert f"It must have the key {description_of(file)['keys'][0][:8]}." in result.stderr
    target.take_keys(source)
    async with target.served(clock) as app:
        await verify(app, held)


async def test_after_an_interruption(tmp_path: Path, source: Home, target: Home, clock: ManualClock) -> None:
    """What an interrupted restore has left does not hinder the next one."""
    file = tmp_path / "backup.tar"
    held = await backed_up(source, clock, file)
    target.take_keys(source)
    left = target.data / "sessiond.restore"
    left.mkdir(mode=0o700)
    (left / "sessiond.db").write_bytes(b"half of it")
    result = await put_back(file, target.data)
    assert result.exit_code == 0
    assert not left.exists()
    async with target.served(clock) as app:
        await verify(app, held)
