"""Build a release from the current commit: packages of both distributions, bill of materials, licences, checksums.

`make dist` runs this with the pinned tools of requirements/release.lock. The packages are the same, byte for byte,
for the same commit: they are built from what git has, with the commit's time.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECTS = ("clients/python", ".")
"""The folders of both distributions. The client is first, because the server requires it."""

SUMS = "SHA256SUMS.txt"


class Failed(Exception):
    """A step failed. The text has the command, or what to do."""


def main() -> int:
    """Build into the folder that the command line names."""
    parser = argparse.ArgumentParser(prog="make dist", description=__doc__)
    parser.add_argument("--to", type=Path, default=ROOT / "dist", help="the folder for the files (default: ./dist)")
    parser.add_argument("--packages-only", action="store_true", help="neither bill of materials nor licences")
    arguments = parser.parse_args()
    try:
        build(arguments.to.resolve(), packages_only=arguments.packages_only)
    except Failed as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


def build(folder: Path, *, packages_only: bool) -> None:
    """Write the files of the release of the current commit to a folder, in place of an earlier release."""
    _check_replaceable(folder)
    if _run("git", "status", "--porcelain"):
        print("note: there are changes that are not committed; the release does not have them", file=sys.stderr)
    commit, seconds = _run("git", "log", "-1", "--format=%H %ct").split()
    os.environ["SOURCE_DATE_EPOCH"] = seconds
    with tempfile.TemporaryDirectory(prefix="sessiond-dist-") as temporary:
        tree, environment, made = (Path(temporary) / name for name in ("tree", "environment", "made"))
        _export(commit, tree)
        for project in PROJECTS:
            # First the sdist, then the wheel from the sdist: this shows that the sdist has everything.
            _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(made), str(tree / project))
        version = _version(tree)
        if not packages_only:
            _install(tree, made, environment, version)
            _describe(tree, made, environment / "bin" / "python", version)
        names = sorted(path.name for path in made.iterdir())
        sums = [f"{hashlib.sha256((made / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
        (made / SUMS).write_text("".join(sums), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(made, folder)
    print(f"sessiond {version}, commit {commit[:12]}, in {folder}:")
    print("".join(sums), end="")


def _check_replaceable(folder: Path) -> None:
    """Raise `Failed` if a folder has anything that no release wrote there."""
    if not folder.exists():
        return
    sums = folder / SUMS
    listed = {line.split()[1] for line in sums.read_text(encoding="utf-8").splitlines()} if sums.is_file() else set()
    if others := {path.name for path in folder.iterdir()} - listed - {SUMS}:
        raise Failed(f"{folder} has {min(others)}, which no release wrote; remove it, or name another folder with --to")


def _export(commit: str, tree: Path) -> None:
    """Write the files of a commit to a folder."""
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(tree, filter="data")


def _version(tree: Path) -> str:
    version: str = tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    return version


def _install(tree: Path, folder: Path, environment: Path, version: str) -> None:
    """Install the built wheels, and what a server with all its options needs, into a new environment."""
    venv.create(environment, symlinks=True)  # without pip, which is no part of a server
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"), "install", "-qq"]
    pip += ["--no-input", "--no-compile"]
    _run(*pip, "--require-hashes", "-r", str(tree / "requirements" / "server.lock"))
    ours = [f"{name}=={version}" for name in ("sessiond", "sessiond-client")]
    _run(*pip, "--no-deps", "--no-index", "--find-links", str(folder), *ours)


def _describe(tree: Path, folder: Path, python: Path, version: str) -> None:
    """Write the bill of materials and the licences of everything in an environment."""
    tools, name = Path(sys.executable).parent, f"sessiond-{version}"
    _run(
        *(str(tools / "cyclonedx-py"), "environment", "--output-reproducible", "--pyproject"),
        *(str(tree / "pyproject.toml"), "-o", str(folder / f"{name}.cdx.json"), str(python)),
    )
    # Without our own, whose licence is in the wheels: it would take sessionctl/copying.py for the text of a licence.
    _run(
        *(str(tools / "pip-licenses"), "--python", str(python), "--from", "mixed", "--format", "plain-vertical"),
        *("--with-urls", "--with-license-file", "--no-license-path", "--with-notice-file"),
        *("--ignore-packages", "sessiond", "sessiond-client"),
        *("--output-file", str(folder / f"{name}.licences.txt")),
    )


def _run(*command: str) -> str:
    """Run a command in the repository; return what it printed. Raises `Failed` with its messages."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"{' '.join(command)}\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
