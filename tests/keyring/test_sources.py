"""Where the keys come from, if not from the data folder: a file that something else mounts, or a command."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from sessiond.authority.key_ring import KeyRingAdmin
from sessiond.authority.key_sources import CommandKeys, MountedKeys
from sessiond.crypto.key_file import BadKeyFile
from sessiond.crypto.tokens import KEY_BYTES, fingerprint_of
from sessiond.store.contract import StoreRefused, StoreUnavailable
from sessiond_client import AsyncClient, FailedPrecondition, SealingKeyState
from tests.keyring.rings import prints_in, states
from tests.support.clock import ManualClock
from tests.support.replicas import replicas
from tests.support.server import config_for, serving
from tests.support.sidecars import until

SEALING, OPENING, ADDED = SealingKeyState.SEALING, SealingKeyState.OPENING, SealingKeyState.ADDED


def new_key() -> str:
    """One line of a key file."""
    return os.urandom(KEY_BYTES).hex()


def print_of(line: str) -> str:
    """The fingerprint of a key."""
    return fingerprint_of(bytes.fromhex(line)).hex()


class Mount:
    """A mounted secret as Kubernetes makes it: the file is a link into a folder, which is a link that is replaced."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        folder.mkdir()
        self.file = folder / "sessiond.key"
        self.file.symlink_to("..data/sessiond.key")

    def put(self, *lines: str, text: str | None = None) -> None:
        """Replace the content in one step."""
        self._count += 1
        version = self._folder / f"..version{self._count}"
        version.mkdir()
        (version / "sessiond.key").write_text("".join(f"{line}\n" for line in lines) if text is None else text)
        (version / "sessiond.key").chmod(0o440)
        link = self._folder / "..next"
        link.symlink_to(version.name)
        link.rename(self._folder / "..data")


@pytest.fixture
def mount(tmp_path: Path) -> Mount:
    return Mount(tmp_path / "secrets")


def script(folder: Path, text: str) -> tuple[str]:
    """A command that runs this text in a shell."""
    file = folder / "unwrap.sh"
    file.write_text("#!/bin/sh\n" + text, encoding="utf-8")
    file.chmod(0o700)
    return (str(file),)


# A mounted file


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o600, 0o640])
def test_modes_that_a_mounted_file_may_have(tmp_path: Path, mode: int) -> None:
    """A mounted key file may be readable by its group, because orchestrators give secrets to a group."""
    file = tmp_path / "ring.key"
    file.write_text(new_key())
    file.chmod(mode)
    assert len(MountedKeys(file).load(may_create=True).materials()) == 1


@pytest.mark.parametrize("mode", [0o404, 0o444, 0o604, 0o644, 0o660, 0o602, 0o601, 0o777])
def test_modes_that_a_mounted_file_may_not_have(tmp_path: Path, mode: int) -> None:
    """A mounted key file that everyone can access, or that its group can write, is refused, with its mode."""
    file = tmp_path / "ring.key"
    file.write_text(new_key())
    file.chmod(mode)
    with pytest.raises(BadKeyFile, match=rf"server.keyring_file\) has mode {mode:04o}.*mode 0400, 0440, 0600 or 0640"):
        MountedKeys(file).load(may_create=False)


def test_a_mounted_file_that_is_not_there(tmp_path: Path) -> None:
    """A missing mounted file is refused and never created, even for a new store, and so are a folder and a pipe."""
    with pytest.raises(BadKeyFile, match="is it mounted"):
        MountedKeys(tmp_path / "ring.key").load(may_create=True)
    assert list(tmp_path.iterdir()) == []
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(BadKeyFile, match="is not a regular file"):
            MountedKeys(path).load(may_create=False)


async def test_a_rotation_by_a_mounted_file(tmp_path: Path, mount: Mount, clock: ManualClock) -> None:
    """The server follows a mounted file through links: a new key opens, then seals, and then the old one goes."""
    old, new = new_key(), new_key()
    mount.put(old)
    async with (
        serving(config_for(tmp_path, keyring_file=mount.file), clock) as app,
        AsyncClient(app.address) as client,
    ):
        assert not (tmp_path / "data" / "sessiond.key").exists()
        token = (await client.create(subject="ada")).token

        async def ring() -> list[tuple[str, SealingKeyState]]:
            return [(key.fingerprint, key.state) for key in (await client.key_ring()).keys]

        async def reaches(*wanted: tuple[str, SealingKeyState]) -> None:
            async def is_reached() -> bool:
                return await ring() == list(wanted)

            await until(is_reached)

        mount.put(old, new)
        await reaches((print_of(old), SEALING), (print_of(new), ADDED))
        mount.put(new, old)
        await reaches((print_of(new), SEALING), (print_of(old), OPENING))
        assert (await client.validate(token)).valid
        clock.advance(60_000)
        fresh = (await client.create(subject="ada")).token
        await client.revoke(token=token)
        mount.put(new)
        clock.advance(3_600_000 // 4)
        assert (await client.validate(fresh)).valid
        await reaches((print_of(new), SEALING))
        assert (await client.validate(fresh)).valid


async def test_a_mounted_file_that_breaks_changes_nothing(
    tmp_path: Path, mount: Mount, clock: ManualClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mounted file with other content, or without the sealing key, is reported once, and the keys before stay."""
    old = new_key()
    mount.put(old)
    async with (
        serving(config_for(tmp_path, keyring_file=mount.file), clock) as app,
        AsyncClient(app.address) as client,
    ):
        token = (await client.create(subject="ada")).token
        log = ""

        def says(text: str) -> bool:
            nonlocal log
            log += capsys.readouterr().out
            return text in log

        secret = new_key()
        for content, problem in (
            (secret[:-1], "must contain one to three lines"),
            (secret, "lacks the key"),
            ("", "must contain one to three lines"),
        ):
            log = ""
            mount.put(text=content)
            await until(lambda problem=problem: says(problem))  # type: ignore[misc]
            assert "keys refused" in log
            assert secret[:32] not in log
            assert (await client.validate(token)).valid
            assert await states(client) == [SEALING]
        mount.put(old, secret)
        log = ""
        await until(lambda: says("added"))
        assert (await client.validate(token)).valid


async def test_changes_by_calls_are_refused_and_the_status_is_not(
    tmp_path: Path, mount: Mount, clock: ManualClock
) -> None:
    """With keys from elsewhere the calls that change the ring name the place, in one line, and the status works."""
    mount.put(new_key())
    async with (
        serving(config_for(tmp_path, keyring_file=mount.file), clock) as app,
        AsyncClient(app.address) as client,
    ):
        ring = await client.key_ring()
        assert str(mount.file) in ring.source
        assert str(mount.file) in ring.change
        for change in (
            client.add_sealing_key(),
            client.promote_sealing_key(),
            client.retire_sealing_key(ring.keys[0].fingerprint),
        ):
            with pytest.raises(FailedPrecondition, match=f"change {mount.file}, which server.keyring_file") as refused:
                await change
            assert "\n" not in str(refused.value)


async def test_a_populated_store_without_its_key(tmp_path: Path, mount: Mount, clock: ManualClock) -> None:
    """A populated store is refused at start if the mounted file, or the command's output, lacks its sealing key."""
    old, other = new_key(), new_key()
    mount.put(old)
    config = config_for(tmp_path, keyring_file=mount.file)
    async with serving(config, clock) as app, AsyncClient(app.address) as client:
        token = (await client.create(subject="ada")).token
    mount.put(other)
    with pytest.raises(
        StoreRefused, match=r"server\.keyring_file\) does not contain the key that this database was last written with"
    ):
        async with serving(config, clock):
            pass
    command = script(tmp_path, f"echo {other}\n")
    with pytest.raises(StoreRefused, match="does not contain the key that this database was last written with"):
        async with serving(config_for(tmp_path, keyring_command=command), clock):
            pass
    mount.put(other, old)  # both: the first one is promoted, and everything opens
    async with serving(config, clock) as app, AsyncClient(app.address) as client:
        assert (await client.validate(token)).valid
        assert await states(client) == [SEALING, OPENING]


async def test_replicas_promote_a_mounted_key_once_all_have_it(tmp_path: Path, database: str, mount: Mount) -> None:
    """With mounted files a key that is first in one replica's file seals only once every replica has read it."""
    other = Mount(tmp_path / "other")
    old, new = new_key(), new_key()
    mount.put(old)
    other.put(old)
    async with (
        replicas(tmp_path, database, count=1, keyring_file=mount.file) as (one,),
        replicas(tmp_path / "second", database, count=1, keyring_file=other.file) as (two,),
        AsyncClient(one.address) as first,
        AsyncClient(two.address) as second,
    ):
        mount.put(new, old)

        async def waits() -> bool:
            # The other replica cannot take it from the store: it does not write what it was not given.
            return await states(second) == [SEALING, ADDED]

        await until(waits)
        assert await two.ring.reload()  # the other file has no new key yet, which does not mean that it was taken away
        assert await states(second) == [SEALING, ADDED]
        token = (await first.create(subject="ada")).token
        assert (await second.validate(token)).valid
        other.put(new, old)

        async def is_promoted() -> bool:
            return (await second.key_ring()).keys[0].fingerprint == print_of(new)

        await until(is_promoted)
        assert (await first.validate((await second.create(subject="bob")).token)).valid


# A command


def test_the_output_of_a_command_is_the_ring(tmp_path: Path) -> None:
    """A command's output is the key ring. It runs in a small environment, without the server's variables."""
    key = new_key()
    os.environ["SESSIOND_STORE"] = "postgres://user:password@host/db"
    try:
        command = script(tmp_path, f'env > {tmp_path}/seen; echo "a password" >&2; echo {key}\n')
        ring = CommandKeys(command).load(may_create=False)
    finally:
        del os.environ["SESSIOND_STORE"]
    assert ring.materials() == (bytes.fromhex(key),)
    names = {line.partition("=")[0] for line in (tmp_path / "seen").read_text().splitlines()}
    assert "PATH" in names
    assert names <= {"PATH", "HOME", "LANG", "LC_ALL", "TZ", "PWD", "OLDPWD", "SHLVL", "_"}


@pytest.mark.parametrize(
    ("text", "problem"),
    {
        "fails": ("echo SECRET; echo SECRET >&2; exit 3\n", "ended with code 3"),
        "is killed": ("echo SECRET; kill -9 $$\n", "ended with signal 9"),
        "writes garbage": ("echo SECRET\n", "must contain one to three lines"),
        "writes nothing": ("exit 0\n", "must contain one to three lines"),
        "writes too much": ("while :; do echo SECRETSECRETSECRETSECRET; done\n", "wrote more than 4096 bytes"),
        "hangs": ("echo SECRET; sleep 60\n", "took longer than 1 seconds"),
        "closes its output and hangs": ("exec >&-; sleep 60\n", "took longer than 1 seconds"),
        "leaves a process with its output": ("sleep 60 & echo SECRET\n", "took longer than 1 seconds"),
    }.values(),
    ids=["fails", "killed", "garbage", "nothing", "too-much", "hangs", "closes", "leaves"],
)
def test_a_command_that_does_not_yield_keys(tmp_path: Path, text: str, problem: str) -> None:
    """A command that fails is refused with the reason, in bounded time, and nothing that it wrote is shown."""
    began = time.monotonic()
    with pytest.raises(BadKeyFile, match=problem) as refused:
        CommandKeys(script(tmp_path, text), seconds=1.0).load(may_create=True)
    assert "SECRET" not in str(refused.value)
    assert time.monotonic() - began < 30  # not the minute that it would have taken


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    """A command that cannot be started is refused with the reason of the system."""
    with pytest.raises(BadKeyFile, match="cannot be started: No such file"):
        CommandKeys((str(tmp_path / "none"),)).load(may_create=True)
    file = tmp_path / "not-executable"
    file.touch(0o600)
    with pytest.raises(BadKeyFile, match="cannot be started: Permission denied"):
        CommandKeys((str(file),)).load(may_create=True)


def test_a_command_that_hangs_leaves_no_process(tmp_path: Path) -> None:
    """A command that takes too long is killed together with the processes that it has started."""
    command = script(tmp_path, f"sleep 600 & echo $! > {tmp_path}/child; wait\n")
    with pytest.raises(BadKeyFile, match="took longer"):
        CommandKeys(command, seconds=1.0).load(may_create=False)
    child = int((tmp_path / "child").read_text())
    end = time.monotonic() + 20
    while time.monotonic() < end and _runs(child):
        time.sleep(0.02)
    assert not _runs(child)


def _runs(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


async def test_a_reload_runs_the_command_again(tmp_path: Path, clock: ManualClock) -> None:
    """A rotation by a command: what it writes at the next reload counts; if it fails then, the keys before stay."""
    old, new = new_key(), new_key()
    ring = tmp_path / "ring"
    ring.write_text(old + "\n")
    config = config_for(tmp_path, keyring_command=script(tmp_path, f"cat {ring}\n"))
    async with serving(config, clock) as app, AsyncClient(app.address) as client:
        token = (await client.create(subject="ada")).token
        ring.write_text(f"{new}\n{old}\n")
        assert await states(client) == [SEALING]
        await app.reload(config)
        assert [(key.fingerprint, key.state) for key in (await client.key_ring()).keys] == [
            (print_of(new), SEALING),
            (print_of(old), OPENING),
        ]
        ring.unlink()
        await app.reload(config)
        assert await states(client) == [SEALING, OPENING]
        assert (await client.validate(token)).valid
        with pytest.raises(FailedPrecondition, match=r"change what server\.keyring_command writes; then run"):
            await client.add_sealing_key()


async def test_a_reload_reads_the_key_file_of_the_data_folder(tmp_path: Path, clock: ManualClock) -> None:
    """A key that an operator writes into the file in the data folder counts from the next reload; the mode stays."""
    config = config_for(tmp_path)
    async with serving(config, clock) as app, AsyncClient(app.address) as client:
        file = tmp_path / "data" / "sessiond.key"
        new = new_key()
        file.write_text(file.read_text() + new + "\n")
        await app.reload(config)
        assert await states(client) == [SEALING, ADDED]
        assert prints_in(file)[1] == print_of(new)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def finds(client: AsyncClient, key: str, position: slice = slice(None)) -> Callable[[], Awaitable[bool]]:
    """Return a condition: the ring has this key, among those at a position."""

    async def is_there() -> bool:
        return print_of(key) in [one.fingerprint for one in (await client.key_ring()).keys[position]]

    return is_there


async def test_a_new_key_waits_until_the_ring_has_room(tmp_path: Path, mount: Mount, clock: ManualClock) -> None:
    """If the oldest of three keys is replaced by a new one at once, the new one is not recorded before it is held."""
    oldest, older, old, new = [new_key() for _ in range(4)]
    mount.put(oldest)
    config = config_for(tmp_path, keyring_file=mount.file)
    async with serving(config, clock) as app, AsyncClient(app.address) as client:
        token = (await client.create(subject="ada")).token
        for keys in ((older, oldest), (old, older, oldest)):
            mount.put(*keys)
            await until(finds(client, keys[0], slice(1)))
        mount.put(new, old, older)
        assert await app.ring.reload() is False
        ring = (await client.key_ring()).keys
        assert [key.fingerprint for key in ring] == [print_of(old), print_of(older), print_of(oldest)]
        assert ring[2].state is SealingKeyState.RETIRING
        await client.revoke(token=token)
        clock.advance(3_600_000)
        await until(finds(client, new, slice(1)))


async def test_a_change_during_an_outage_is_not_lost(
    tmp_path: Path, mount: Mount, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the store cannot be reached when the file changes, or reading fails unexpectedly, it is read again later."""
    old, new = new_key(), new_key()
    mount.put(old)
    config = config_for(tmp_path, keyring_file=mount.file)
    async with serving(config, clock) as app, AsyncClient(app.address) as client:
        take_over, failures = KeyRingAdmin._take_over, iter([StoreUnavailable("away"), OSError(5, "I/O error")])

        async def failing(self: KeyRingAdmin, keys: Sequence[bytes]) -> None:
            if (failure := next(failures, None)) is not None:
                raise failure
            await take_over(self, keys)

        monkeypatch.setattr(KeyRingAdmin, "_take_over", failing)
        mount.put(old, new)
        await until(finds(client, new))


async def test_a_change_during_the_start_is_noticed(tmp_path: Path, mount: Mount, clock: ManualClock) -> None:
    """A file that changes after it was read, and before the server watches it, is read again."""
    old, new = new_key(), new_key()
    mount.put(old)
    async with serving(config_for(tmp_path, keyring_file=mount.file), clock) as app:
        mount.put(old, new)  # the task that watches has not begun yet
        async with AsyncClient(app.address) as client:
            await until(finds(client, new))
