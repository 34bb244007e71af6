"""Watching TLS files: what is read again, what stays, and what the log says."""

from __future__ import annotations

import asyncio
import os
from collections.abc import MutableMapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from sessiond.access.tls import BadTls, TlsFile, TlsFiles
from sessiond.access.tls_watch import TlsWatch
from tests.support.certificates import Authority, Pair
from tests.support.clock import ManualClock
from tests.support.sidecars import until

CA = Authority()
DAY = timedelta(days=1) // timedelta(milliseconds=1)
Lines = list[MutableMapping[str, Any]]


def clock_now() -> ManualClock:
    """Return a clock that is set to the present, because the certificates are."""
    return ManualClock(int(datetime.now(UTC).timestamp() * 1000))


def files_in(folder: Path, pair: Pair) -> TlsFiles:
    """Write a pair and return its files."""
    certificate, key = pair.write(folder, "server")
    return TlsFiles(TlsFile("server.tls.certificate", certificate), TlsFile("server.tls.key", key), None)


def events(lines: Lines) -> list[str]:
    """Return the names of log lines, and remove the lines."""
    found = [str(line["event"]) for line in lines]
    lines.clear()
    return found


class Watched:
    """A watch, its files and its clock."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.folder = folder
        self.clock = clock_now()
        self.watch = TlsWatch(files_in(folder, CA.server(**more)), self.clock)

    def replace(self, pair: Pair) -> None:
        """Replace both files."""
        for name, text in (("server.crt", pair.certificate), ("server.key", pair.key)):
            draft = self.folder / f".{name}"
            draft.touch(mode=0o600)
            draft.write_bytes(text)
            draft.rename(self.folder / name)

    def look(self, after: int = 1_000) -> bool:
        """Look at the files `after` milliseconds."""
        return self.watch.look(self.clock.advance(after))


def test_a_load_is_reported(tmp_path: Path) -> None:
    """The log says which certificate was loaded, for which names and until when."""
    with capture_logs() as lines:
        watched = Watched(tmp_path, end=timedelta(days=90))
    not_after = watched.watch.current.not_after
    assert not_after is not None
    assert lines == [
        {
            "event": "certificate loaded",
            "log_level": "info",
            "file": str(tmp_path / "server.crt"),
            "not_after": datetime.fromtimestamp(not_after / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "names": ["localhost", "127.0.0.1"],
        }
    ]


def test_new_files_are_read_when_they_rest(tmp_path: Path) -> None:
    """Changed files are read at the second look, and only once."""
    watched, new = Watched(tmp_path), CA.server()
    with capture_logs() as lines:
        assert not watched.look()
        watched.replace(new)
        assert not watched.look()
        assert watched.look()
        assert watched.watch.current.certificate == new.certificate
        assert not watched.look()
    assert events(lines) == ["certificate loaded"]


def test_files_that_are_being_written(tmp_path: Path) -> None:
    """A certificate that is written before its key is not read in between, and nothing is reported."""
    watched, new = Watched(tmp_path), CA.server()
    with capture_logs() as lines:
        (tmp_path / "server.crt").write_bytes(new.certificate)
        assert not watched.look()
        (tmp_path / "server.key").write_bytes(new.key)
        assert not watched.look()
        assert watched.look()
    assert events(lines) == ["certificate loaded"]


def test_a_link_that_is_exchanged(tmp_path: Path) -> None:
    """Files behind a symbolic link, as an orchestrator mounts them, are read again when the link changes."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    (tmp_path / "now").symlink_to("old")
    files_in(tmp_path / "old", CA.server())
    new = CA.server()
    files_in(tmp_path / "new", new)
    named = [
        TlsFile(key, tmp_path / "now" / name) for key, name in (("certificate", "server.crt"), ("key", "server.key"))
    ]
    clock = clock_now()
    watch = TlsWatch(TlsFiles(named[0], named[1], None), clock)
    (tmp_path / "next").symlink_to("new")
    (tmp_path / "next").rename(tmp_path / "now")
    assert [watch.look(clock.advance(1_000)) for _ in range(2)] == [False, True]
    assert watch.current.certificate == new.certificate


BROKEN: dict[str, tuple[str, bytes]] = {
    "not PEM": ("server.crt", b"oops"),
    "another key": ("server.key", CA.server().key),
    "expired": ("server.crt", CA.server(begin=timedelta(days=-3), end=timedelta(days=-1)).certificate),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files_change_nothing(tmp_path: Path, kind: str) -> None:
    """Files that cannot be used are reported once, with the reason, and the ones before stay until good ones come."""
    watched, (name, text) = Watched(tmp_path), BROKEN[kind]
    before = watched.watch.current
    with capture_logs() as lines:
        (tmp_path / name).write_bytes(text)
        assert not any(watched.look() for _ in range(200))
        assert watched.watch.current is before
        (line,) = lines
        assert (line["event"], line["effect"]) == ("certificate refused", "the files read before stay in use")
        assert str(tmp_path / name) in line["problem"]
        lines.clear()
        new = CA.server()
        watched.replace(new)
        assert [watched.look() for _ in range(2)] == [False, True]
        assert events(lines) == ["certificate loaded"]
    assert watched.watch.current.certificate == new.certificate


def test_missing_files_change_nothing(tmp_path: Path) -> None:
    """Files that vanish are reported, and the ones before stay."""
    watched = Watched(tmp_path)
    with capture_logs() as lines:
        (tmp_path / "server.key").unlink()
        assert [watched.look() for _ in range(2)] == [False, False]
    assert events(lines) == ["certificate refused"]


def test_a_key_that_is_opened_to_others(tmp_path: Path) -> None:
    """A key whose mode changes so that others can read it is reported."""
    watched = Watched(tmp_path)
    with capture_logs() as lines:
        (tmp_path / "server.key").chmod(0o644)
        assert [watched.look() for _ in range(2)] == [False, False]
    assert "mode 0644" in lines[0]["problem"]


def test_a_certificate_of_the_future(tmp_path: Path) -> None:
    """A certificate that is not valid yet is refused, and taken into use once it is valid, without another change."""
    watched = Watched(tmp_path)
    new = CA.server(begin=timedelta(minutes=10))
    with capture_logs() as lines:
        watched.replace(new)
        assert [watched.look(), watched.look()] == [False, False]
        assert events(lines) == ["certificate refused"]
        assert not watched.look(after=5 * 60_000)
        assert watched.look(after=6 * 60_000)
        assert events(lines) == ["certificate loaded"]


def test_a_look_at_once(tmp_path: Path) -> None:
    """On request changed files are read at the first look, and unchanged ones make no difference."""
    watched, new = Watched(tmp_path), CA.server()
    watched.replace(new)
    assert watched.watch.look_now()
    assert watched.watch.current.certificate == new.certificate
    assert not watched.watch.look_now()


@pytest.mark.parametrize(("end", "warns"), [(timedelta(days=13), True), (timedelta(days=15), False)])
def test_a_warning_at_start(tmp_path: Path, end: timedelta, warns: bool) -> None:
    """A certificate that ends within 14 days is warned of when it is loaded."""
    with capture_logs() as lines:
        Watched(tmp_path, begin=timedelta(days=-70), end=end)
    assert events(lines) == ["certificate loaded", *["certificate expires soon"] * warns]


def test_a_warning_every_day(tmp_path: Path) -> None:
    """The warning begins 14 days before the end, comes once a day, and the end is reported once."""
    watched = Watched(tmp_path, end=timedelta(days=60))
    with capture_logs() as lines:
        for _ in range(45 * 24):
            watched.look(after=DAY // 24)
        assert events(lines) == []
        for _ in range(20 * 24):
            watched.look(after=DAY // 24)
    assert events(lines) == ["certificate expires soon"] * 14 + ["certificate expired"]


def test_a_short_certificate(tmp_path: Path) -> None:
    """A certificate for an hour is warned of in the last third of its time only."""
    watched = Watched(tmp_path, begin=timedelta(0), end=timedelta(hours=1))
    with capture_logs() as lines:
        watched.look(after=35 * 60_000)
        assert events(lines) == []
        watched.look(after=10 * 60_000)
        assert events(lines) == ["certificate expires soon"]


def test_a_bad_start(tmp_path: Path) -> None:
    """With files that cannot be used there is no watch."""
    with pytest.raises(BadTls):
        Watched(tmp_path, end=timedelta(seconds=-5))


async def test_it_looks_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While `run` runs, changed files are taken into use without a request."""
    monkeypatch.setattr("sessiond.access.tls_watch.LOOK_EVERY", 0.01)
    watched, new = Watched(tmp_path), CA.server()
    task = asyncio.create_task(watched.watch.run())
    watched.replace(new)
    await until(lambda: watched.watch.current.certificate == new.certificate)
    task.cancel()


def test_the_time_of_a_file_alone(tmp_path: Path) -> None:
    """A file that is written again with the same content is no new certificate, and nothing is reported."""
    watched = Watched(tmp_path)
    with capture_logs() as lines:
        os.utime(tmp_path / "server.crt", (1, 1))
        assert [watched.look() for _ in range(3)] == [False] * 3
    assert lines == []
