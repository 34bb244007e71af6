"""Checks of the machine: its clock, the disk below the data folder, and what the server's process may open."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sessionctl.findings import Finding, ok, problem, warning

__all__ = ["Start", "check_clock", "check_disk", "check_limits", "check_unit", "may_look_into", "start_of"]

_MEBIBYTE = 1024 * 1024
_LITTLE, _LITTLE_SHARE = 1024 * _MEBIBYTE, 0.05
_TOO_LITTLE = 80 * _MEBIBYTE
"""The write-ahead log of the embedded database may take 64 MiB."""
_TOO_LITTLE_FOR_KEYS = _MEBIBYTE
_FEW_FILES = 100
_NETWORKS = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs", "glusterfs", "lustre", "nfs"}
    | {"nfs4", "smb3", "smbfs"}
)
_VOLATILE = {"ramfs": "memory", "tmpfs": "memory", "overlay": "the layer of a container"}
_USED_SHARE = 0.8
_UNIT = "sessiond.service"
_MORE_FILES = "set LimitNOFILE=65536 in the systemd unit (`systemctl edit sessiond`), and restart"
_SECONDS = 5.0


def check_clock() -> Iterator[Finding]:
    """Whether this machine's clock is synchronized, if systemd knows."""
    match _said_by("timedatectl", "show", "--property=NTPSynchronized", "--value").strip():
        case "yes":
            yield ok("clock", "synchronized, as timedatectl says")
        case "no":
            yield warning(
                "clock",
                "timedatectl says that the clock is not synchronized; deadlines of sessions are times of this clock",
                "run `timedatectl set-ntp true`, or check the NTP service of this machine",
            )
        case _:
            pass  # no systemd to ask, as in a container


def _said_by(name: str, *arguments: str) -> str:
    """The output of a program of systemd; empty if there is none, or if it has nothing to say."""
    program = shutil.which(name)
    if program is None:
        return ""
    try:
        run = subprocess.run(  # noqa: S603 - nothing in it comes from outside
            [program, *arguments], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout


def check_disk(folder: Path, *, has_database: bool) -> Iterator[Finding]:
    """The space below the data folder, and whether its file system keeps what is written."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return  # `check_folder` reports it
    free, total = found.f_bavail * found.f_frsize, max(1, found.f_blocks * found.f_frsize)
    least = _TOO_LITTLE if has_database else _TOO_LITTLE_FOR_KEYS
    text = f"{_size(free)} ({100 * free // total} %) free for {folder}"
    remedy = "free some space, or move the data folder to a larger file system while the server is stopped"
    if found.f_flag & os.ST_RDONLY:
        yield problem("disk", f"the file system of {folder} is read-only", "mount it writable; the disk may be failing")
    elif free < least:
        yield problem("disk", f"{text}; the server stops when a commit finds the disk full", remedy)
    elif has_database and (free < _LITTLE or free < _LITTLE_SHARE * total):
        yield warning("disk", text, remedy)
    else:
        yield ok("disk", text)
    if found.f_files and found.f_favail < _FEW_FILES:
        yield problem("disk", f"the file system of {folder} has room for {found.f_favail} more files", "remove files")
    yield from _kind(folder, has_database=has_database)


def _kind(folder: Path, *, has_database: bool) -> Iterator[Finding]:
    kind = _file_system(folder)
    what = "the database and the keys" if has_database else "the key file"
    if kind in _NETWORKS and has_database:
        yield warning(
            "disk",
            f"{folder} is on a network file system ({kind}), whose locks and whose durability may not hold",
            "use a local disk, or Postgres for the store",
        )
    elif kind in _VOLATILE:
        yield warning(
            "disk",
            f"{folder} is in {_VOLATILE[kind]} ({kind}), and {what} will be lost with it",
            "use a folder on a disk, such as a mounted volume",
        )


def _file_system(folder: Path) -> str:
    """The type of the file system of a folder; empty if the kernel does not say (see proc_pid_mountinfo(5))."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    place, best, kind = folder.resolve(), -1, ""
    for line in lines:
        mount, _, source = line.partition(" - ")
        point = Path(mount.split()[4].encode().decode("unicode_escape"))
        if place.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), source.split()[0]
    return kind


def check_limits(process: int, needed: int) -> Iterator[Finding]:
    """How many files the server's process may have open. `needed`: what the configuration allows it to serve."""
    try:
        limits = Path(f"/proc/{process}/limits").read_text(encoding="ascii")
    except OSError:
        return
    line = next((line for line in limits.splitlines() if line.startswith("Max open files")), "")
    soft = line.removeprefix("Max open files").split()[:1]
    if soft == ["unlimited"] or not soft:
        return
    limit, used = int(soft[0]), _open_files(process)
    text = f"process {process} may have {limit:,} files open" + ("" if used is None else f" and has {used:,}")
    if used is not None and used > _USED_SHARE * limit:
        yield problem("limits", f"{text}; without a free one, connections are refused", _MORE_FILES)
    elif limit < needed:
        yield warning("limits", f"{text}; as many calls as the configuration allows may need {needed:,}", _MORE_FILES)
    else:
        yield ok("limits", text)


def check_unit(needed: int) -> Iterator[Finding]:
    """The same of a server that is stopped, if systemd has a unit for it."""
    said = _said_by("systemctl", "show", _UNIT, "--property=LoadState", "--property=LimitNOFILESoft")
    found = dict(line.partition("=")[::2] for line in said.splitlines())
    limit = found.get("LimitNOFILESoft", "")
    if found.get("LoadState") != "loaded" or not limit.isdecimal():  # `infinity` is one that has no limit
        return
    text = f"{_UNIT} may have {int(limit):,} files open"
    if int(limit) < needed:
        yield warning("limits", f"{text}; as many calls as the configuration allows may need {needed:,}", _MORE_FILES)
    else:
        yield ok("limits", text)


def _open_files(process: int) -> int | None:
    try:
        return len(os.listdir(f"/proc/{process}/fd"))
    except OSError:
        return None


def may_look_into(folder: Path) -> bool:
    """Whether this user may open the files in a data folder, which are for its owner alone; yes if it is not there."""
    try:
        return os.geteuid() in (0, folder.stat().st_uid)
    except FileNotFoundError:
        return True
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class Start:
    """How a process was started."""

    environment: Mapping[str, str]
    arguments: Sequence[str]
    folder: Path
    """Its current folder, which relative paths refer to."""


def start_of(process: int) -> Start | None:
    """How a process was started; None if this user may not know, or if the kernel is not Linux."""
    try:
        environment = _texts(Path(f"/proc/{process}/environ"))
        arguments = _texts(Path(f"/proc/{process}/cmdline"))
        folder = Path(f"/proc/{process}/cwd").readlink()
    except OSError:
        return None
    pairs = (entry.partition("=") for entry in environment)
    return Start({name: value for name, _, value in pairs}, arguments, folder)


def _texts(file: Path) -> list[str]:
    return [entry.decode("utf-8", "surrogateescape") for entry in file.read_bytes().split(b"\0") if entry]


def _size(count: int) -> str:
    amount = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
