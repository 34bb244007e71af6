"""Fetches the source distribution of a package, once for a clone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

__all__ = ["NotFetched", "installed_version", "sources"]

_CACHE = Path(__file__).parents[2] / "build/suites"
_SECONDS = 300


class NotFetched(Exception):
    """A source distribution cannot be had, such as without a network."""


def installed_version(name: str) -> str:
    """The version of a package in this environment: its suite must be of the same version."""
    return version(name)


def sources(name: str, number: str) -> Path:
    """The folder with the unpacked source distribution of a package from the package index. Kept in `build/suites`.

    Raises `NotFetched` with the reason if it cannot be had.
    """
    kept = _CACHE / f"{name}-{number}"
    if not kept.exists():
        _CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_CACHE) as folder:
            unpacked = _unpacked(_downloaded(name, number, Path(folder)), Path(folder))
            try:
                os.replace(unpacked, kept)
            except OSError:
                if not kept.exists():  # otherwise another process was faster
                    raise
    return kept


def _downloaded(name: str, number: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check", "--no-input"]
    command += ["--retries", "1", "--no-deps", "--no-binary", name, "--dest", str(folder), f"{name}=={number}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise NotFetched(f"{name} {number}: the download took more than {_SECONDS} seconds") from None
    found = list(folder.glob("*.tar.gz"))
    if done.returncode or len(found) != 1:
        last = (done.stderr.strip().splitlines() or ["no source distribution"])[-1]
        raise NotFetched(f"{name} {number}: {re.sub(r'https?://[^ ]+', 'the package index', last)}")
    return found[0]


def _unpacked(archive: Path, folder: Path) -> Path:
    target = folder / "unpacked"
    with tarfile.open(archive) as tar:
        tar.extractall(target, filter="data")
    (top,) = target.iterdir()
    return top
