"""Fetches the suites: the source distribution of a package, or a commit of a repository. Each once for a clone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

__all__ = ["GIVEN", "NotFetched", "installed_version", "repository", "sources"]

GIVEN = "SESSIOND_TEST_SUITES"
"""The environment variable with a folder of clones, by their names. Without it they are fetched from GitHub."""

_CACHE = Path(__file__).parents[2] / "build/suites"
_SECONDS = 300


class NotFetched(Exception):
    """A suite cannot be had, such as without a network."""


def installed_version(name: str) -> str:
    """The version of a package in this environment: its suite must be of the same version."""
    return version(name)


def sources(name: str, number: str) -> Path:
    """The folder with the unpacked source distribution of a package from the package index. Kept in `build/suites`.

    Raises `NotFetched` with the reason if it cannot be had.
    """
    return _kept(f"{name}-{number}", lambda folder: _unpacked(_downloaded(name, number, folder), folder))


def repository(name: str, address: str, commit: str) -> Path:
    """The folder with the files of a repository at a commit. Kept in `build/suites`.

    If the environment variable `SESSIOND_TEST_SUITES` is set, its folder `name` is the repository, and must have the
    commit; if it is no repository, its files are used as they are. Otherwise the commit is fetched from `address`.
    Raises `NotFetched` with the reason if it cannot be had.
    """
    source = address
    given = os.environ.get(GIVEN, "")
    if given:
        folder = Path(given).absolute() / name
        if not folder.is_dir():
            raise NotFetched(f"{name}: {GIVEN} is {given}, and there is no folder {folder}; clone {address} there")
        if not _is_repository(folder):
            return folder
        source = str(folder)
    return _kept(f"{name}-{commit[:12]}", lambda folder: _checked_out(name, source, commit, folder))


def _kept(name: str, fetch: Callable[[Path], Path]) -> Path:
    """The folder of this name in the cache. If it is missing, what `fetch` puts into a temporary folder becomes it."""
    kept = _CACHE / name
    if not kept.exists():
        _CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_CACHE) as folder:
            fetched = fetch(Path(folder))
            try:
                os.replace(fetched, kept)
            except OSError:
                if not kept.exists():  # otherwise another process was faster
                    raise
    return kept


def _is_repository(folder: Path) -> bool:
    """Whether this is a clone, with or without a work tree. Git itself would also look in the folders above."""
    return (folder / ".git").exists() or ((folder / "HEAD").is_file() and (folder / "objects").is_dir())


def _checked_out(name: str, source: str, commit: str, folder: Path) -> Path:
    tree = folder / "tree"
    # Git's own variables are set if the tests run in a hook, and would name another repository.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment["GIT_TERMINAL_PROMPT"] = "0"
    commands = (
        ["init", "--quiet", str(tree)],
        ["-C", str(tree), "fetch", "--quiet", "--depth", "1", source, commit],
        ["-C", str(tree), "checkout", "--quiet", "FETCH_HEAD"],
    )
    for command in commands:
        try:
            done = subprocess.run(
                ["git", *command], env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False
            )
        except FileNotFoundError:
            raise NotFetched(f"{name}: git is not installed") from None
        except subprocess.TimeoutExpired:
            raise NotFetched(f"{name}: git took more than {_SECONDS} seconds") from None
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            reasons = [line for line in lines if line.startswith(("fatal:", "error:"))] or lines or ["git failed"]
            raise NotFetched(f"{name} {commit[:12]}: {reasons[0]}")
    return tree


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
