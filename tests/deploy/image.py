"""The root file system of a container image, made by the steps of its Containerfile, and processes in it.

No image registry can be reached from here, so this machine's Python, and its /usr, stand in for the base image. They
are mounted read-only, as the whole root file system is when the image runs. Everything else is as the file says: each
step is carried out, and one that this module does not know is an error.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path

import pytest
from dockerfile_parse import DockerfileParser

__all__ = ["Container", "Image", "needs_namespaces"]

_DEVICES = ("null", "zero", "random", "urandom")
_NO_REGISTRY = re.compile(r"No matching distribution found|Could not find a version|Connection|Temporary failure")
_PIP_SETTINGS = re.compile(r"PIP_.*|REQUESTS_CA_BUNDLE|SSL_CERT_.*|https?_proxy|HTTPS?_PROXY")
_MOUNT = """
set -e
root=$1 python=$2; shift 2
mount --bind "$root" "$root"
mount --bind /usr "$root/usr"
for place in ${python:+/usr/local "$python"}; do
    mount --bind "$python" "$root$place"
    mount -o remount,bind,ro "$root$place"
done
mount -o remount,bind,ro "$root/usr"
mount -t proc proc "$root/proc"
for device in null zero random urandom; do mount --bind "/dev/$device" "$root/dev/$device"; done
"""
_BUILD = """
while [ "$1" != -- ]; do mkdir -p "$root$2"; mount --bind "$1" "$root$2"; shift 2; done
shift
exec chroot "$root" "$@"
"""
_START = """
mount -t tmpfs tmpfs "$root/tmp"
mount --bind "$1" "$root$2"; shift 2
mount -o remount,bind,ro "$root"
exec chroot "$root" "$@"
"""


def needs_namespaces() -> None:
    """Skip the test if this user or this machine cannot mount file systems for a process alone."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to start a process as another user")
    if shutil.which("setpriv") is None or not _succeeds("unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"):
        pytest.skip("needs mount namespaces, and setpriv (Debian package util-linux)")
    if not _succeeds(f"{sys.base_prefix}/bin/python3", "-m", "pip", "--version"):
        pytest.skip("this machine's Python has no pip, as the base image has (Debian package python3-pip)")


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@dataclass(frozen=True)
class Image:
    """What a Containerfile makes: the root file system of its last stage, and how it is started."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "0:0"
    volume: str = ""
    stop_signal: str = "SIGTERM"
    health_check: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()

    @classmethod
    def build(cls, containerfile: Path, context: Path, folder: Path) -> Image:
        """Carry out the steps of a file on a context, in an empty folder. Skip the test if there is no registry."""
        parser = DockerfileParser(fileobj=BytesIO(containerfile.read_bytes()), env_replace=False)
        stages: dict[str, Image] = {}
        image, name = cls(folder), ""
        for step in parser.structure:
            instruction, value = step["instruction"], step["value"]
            if instruction == "FROM":
                name = value.partition(" AS ")[2] or "last"
                image = cls(_skeleton(folder / name))
            elif instruction == "COPY":
                image._copy(value, context, stages)
            elif instruction == "RUN":
                image._run(value)
            elif instruction not in ("COMMENT", "ARG", "LABEL", "EXPOSE"):
                image = image._with(instruction, value)
            stages[name] = image
        return image

    def _with(self, instruction: str, value: str) -> Image:
        """Return the image with what an instruction sets."""
        match instruction:
            case "ENV":
                pairs = dict(pair.split("=", 1) for pair in shlex.split(value))
                return replace(self, environment=self.environment | pairs)
            case "WORKDIR":
                (self.root / value.lstrip("/")).mkdir(parents=True, exist_ok=True)
                return replace(self, workdir=value)
            case "USER":
                return replace(self, user=value)
            case "VOLUME":
                return replace(self, volume=value)
            case "STOPSIGNAL":
                return replace(self, stop_signal=value)
            case "HEALTHCHECK":
                return replace(self, health_check=_exec_form(value.partition("CMD ")[2]))
            case "ENTRYPOINT":
                return replace(self, entrypoint=_exec_form(value))
            case "CMD":
                return replace(self, command=_exec_form(value))
        raise AssertionError(f"{instruction} is not known here: teach tests/deploy/image.py what it does")

    def _copy(self, value: str, context: Path, stages: dict[str, Image]) -> None:
        options, (*sources, target) = _options(value)
        assert options.keys() <= {"from"}
        origin = stages[options["from"]].root if "from" in options else context
        if "from" not in options:
            _refuse_ignored(sources, context)
        into = self.root / self.workdir.lstrip("/") / target.lstrip("/") if target[0] != "/" else self.root / target[1:]
        for source in sources:
            path = origin / source.lstrip("/")
            if path.is_dir():
                # Files of an earlier stage, which nothing changes any more, need no copy.
                copy = os.link if "from" in options else shutil.copy2
                ignore = shutil.ignore_patterns("__pycache__") if "from" not in options else None
                shutil.copytree(path, into, symlinks=True, ignore=ignore, copy_function=copy, dirs_exist_ok=True)
            else:
                into.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, into / path.name)

    def _run(self, value: str) -> None:
        options, words = re.findall(r"--mount=(\S+)", value), re.sub(r"--mount=\S+", "", value).strip()
        binds = ["/etc", "/etc"]
        caches = {option["target"] for option in (dict(p.split("=") for p in one.split(",")) for one in options)}
        for target in sorted(caches):
            # The cache of this machine, so that the test downloads nothing twice.
            cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / Path(target).name
            cache.mkdir(parents=True, exist_ok=True)
            binds += [str(cache), target]
        environment = {name: text for name, text in os.environ.items() if _PIP_SETTINGS.fullmatch(name)}
        environment |= {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/root"} | self.environment
        shell = ["/usr/bin/env", "-i", "-C", self.workdir, *_pairs(environment), "/bin/sh", "-c", words]
        run = subprocess.run(
            _in_namespace(self.root, _MOUNT + _BUILD, *binds, "--", *shell), capture_output=True, text=True, check=False
        )
        if run.returncode and _NO_REGISTRY.search(run.stderr):
            pytest.skip(f"no package registry can be reached: {run.stderr.strip().splitlines()[-1]}")
        assert run.returncode == 0, run.stdout + run.stderr

    def new_volume(self, path: Path) -> Path:
        """Return a folder as a container engine makes a volume: with the owner and mode that it has in the image."""
        like = (self.root / self.volume.lstrip("/")).stat()
        path.mkdir()
        os.chown(path, like.st_uid, like.st_gid)
        path.chmod(like.st_mode & 0o7777)
        return path

    def line(self, volume: Path, *command: str, **variables: str) -> list[str]:
        """Return the command line that runs a command in the image as its user, with a read-only root."""
        user, _, group = self.user.partition(":")
        confined = ["/usr/bin/setpriv", "--reuid", user, "--regid", group, "--clear-groups", "--no-new-privs"]
        confined += ["--bounding-set=-all", "--inh-caps=-all", "/usr/bin/env", "-i", "-C", self.workdir]
        words = [*confined, *_pairs(self.environment | variables), *command]
        return _in_namespace(self.root, _MOUNT + _START, str(volume), self.volume, *words)


class Container:
    """The image, started with its own entry point."""

    def __init__(self, image: Image, volume: Path, log: Path, **variables: str) -> None:
        self.image, self.log_path = image, log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                image.line(volume, *image.entrypoint, *image.command, **variables), stdout=output, stderr=output
            )

    def facts(self) -> dict[str, str]:
        """Return the line of the log that says where it serves; empty: not yet. Raise AssertionError if it ended."""
        code, text = self.process.poll(), self.log_path.read_text(encoding="utf-8")
        for line in text.splitlines():
            if line.startswith("{") and json.loads(line).get("event") == "serving":
                return dict(json.loads(line))
        assert code is None, f"the container ended with {code}: {text}"
        return {}

    def status(self) -> dict[str, str]:
        """Return what the kernel says of the process: its users, its capabilities."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii").splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def writable(self) -> set[str]:
        """Return the mounts that it can write to, apart from /proc and devices."""
        mounts = Path(f"/proc/{self.process.pid}/mountinfo").read_text(encoding="utf-8").splitlines()
        found = {words[4] for words in map(str.split, mounts) if "rw" in words[5].split(",")}
        return found - {"/proc", *(f"/dev/{device}" for device in _DEVICES)}


def _skeleton(root: Path) -> Path:
    """Make an empty root file system on which the base image can be mounted."""
    for name in ("usr", "etc", "proc", "dev", "tmp", "var", "opt", "root"):
        (root / name).mkdir(parents=True)
    for path in (root, *root.iterdir()):
        path.chmod(0o755)
    for name in ("bin", "lib", "lib64", "sbin"):
        if Path("/", name).is_symlink():
            (root / name).symlink_to(os.readlink(f"/{name}"))
    for device in _DEVICES:
        (root / "dev" / device).touch()
    return root


def _in_namespace(root: Path, script: str, *arguments: str) -> list[str]:
    """Return the command line that runs a script with mounts of its own."""
    # A Python of another folder is found in /usr/local, as in the base image, and finds its own library where it was.
    python = "" if sys.base_prefix in ("/usr", "/usr/local") else sys.base_prefix
    (root / python.lstrip("/")).mkdir(parents=True, exist_ok=True)
    return ["unshare", "--mount", "/bin/sh", "-c", script, "sh", str(root), python, *arguments]


def _options(value: str) -> tuple[dict[str, str], list[str]]:
    """Return the options of an instruction, and its other words."""
    words = shlex.split(value)
    options = [word for word in words if word.startswith("--")]
    return dict(word[2:].split("=", 1) for word in options), [word for word in words if word not in options]


def _exec_form(value: str) -> tuple[str, ...]:
    """Return a command that needs no shell."""
    return tuple(json.loads(value))


def _pairs(environment: dict[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in environment.items()]


def _refuse_ignored(sources: list[str], context: Path) -> None:
    """Raise AssertionError if an engine would not get one of these paths."""
    lines = (context / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    kept = [Path(rule[1:]) for rule in rules if rule.startswith("!")]
    missing = [source for source in sources if not any(Path(source).is_relative_to(path) for path in kept)]
    assert missing == []
