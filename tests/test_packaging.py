"""The two distributions: they are complete, they name their dependencies, and a fresh clone installs."""

from __future__ import annotations

import ast
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from sessiond import __version__
from tests.support.server import ServerProcess

ROOT = Path(__file__).parents[1]
CLIENT = ROOT / "clients" / "python"
CONTENTS = {ROOT: ["sessiond", "sessionctl"], CLIENT: ["src/sessiond_client", "src/sessiond_stubs"]}
OURS = {"sessiond", "sessionctl", "sessiond_client", "sessiond_stubs"}
USED_EXTRAS = ("native", "envoy", "http", "metrics", "asgi", "django", "fastapi", "flask")
"""Extras with packages that modules of a distribution import when a setting asks for them."""


def imported(folder: Path) -> set[str]:
    """Return the packages outside of the standard library that the modules in a folder import."""
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names)


def normal(requirement: str) -> str:
    """Return the normalized name of a distribution."""
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name is not None
    return re.sub(r"[-_.]+", "-", name[0]).lower()


@pytest.mark.parametrize("project", CONTENTS, ids=["server", "client"])
def test_everything_that_is_imported_is_required(project: Path) -> None:
    """Each distribution requires the packages that its modules import, at least by an extra, and no others."""
    metadata = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = {normal(requirement) for requirement in metadata["dependencies"]}
    for extra in USED_EXTRAS:
        required |= {normal(requirement) for requirement in metadata.get("optional-dependencies", {}).get(extra, ())}
    packages = set().union(*(imported(project / content) for content in CONTENTS[project]))
    packages -= {Path(content).name for content in CONTENTS[project]}
    providers = packages_distributions()
    unused = set(required)
    for package in packages:
        names = {"sessiond-client"} if package in OURS else {normal(name) for name in providers[package]}
        assert names & required, f"{package} is imported and not required"
        unused -= names
    assert unused == set()


def test_the_servers_lock_file_has_all_options() -> None:
    """Whatever a server requires, by itself or by an extra that its modules use, is pinned in server.lock."""
    metadata = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = set(metadata["dependencies"])
    for extra in USED_EXTRAS:
        required |= set(metadata["optional-dependencies"].get(extra, ()))
    lock = (ROOT / "requirements" / "server.lock").read_text(encoding="utf-8")
    locked = {normal(line) for line in lock.splitlines() if re.match(r"[\w.-]+==", line)}
    assert {normal(one) for one in required} - {"sessiond-client"} - locked == set()


@pytest.mark.slow
def test_the_documented_command_installs_both(tmp_path: Path) -> None:
    """In a fresh clone `pip install ./clients/python .` installs every module, the server's SQL and both commands."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "pip install ./clients/python .\n" in readme
    clone = fresh_clone(tmp_path / "clone")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    offline = ["--no-index", "--no-build-isolation"]
    resolved = run(clone, *pip, "install", "--dry-run", *offline, "./clients/python", ".")
    assert f"sessiond-{__version__}" in resolved
    assert f"sessiond-client-{__version__}" in resolved
    run(clone, *pip, "wheel", "--no-deps", *offline, "--wheel-dir", str(tmp_path / "wheels"), "./clients/python", ".")
    wheels = sorted(str(wheel) for wheel in (tmp_path / "wheels").iterdir())
    assert len(wheels) == 2
    target = tmp_path / "installed"
    run(clone, *pip, "install", "--no-deps", "--no-index", "--target", str(target), *wheels)
    for project, contents in CONTENTS.items():
        for content in contents:
            files = {path.relative_to((project / content).parent) for path in (project / content).rglob("*")}
            wanted = {path for path in files if path.suffix in {".py", ".sql", ".typed", ".pyi", ".js"}}
            assert [path for path in sorted(wanted) if not (target / path).exists()] == []
    # -P: import nothing from the current folder.
    script = (
        f"import sys; sys.path.insert(0, {str(target)!r}); import sessiond.cli, sessionctl; print(sessiond.__file__)"
    )
    assert run(tmp_path, sys.executable, "-P", "-c", script).startswith(str(target))
    for command in ("sessiond", "sessionctl"):
        help_text = run(tmp_path, str(target / "bin" / command), "--help", PYTHONPATH=str(target))
        assert help_text.startswith(f"Usage: {command} ")


PROGRAMS = ("make", "git")
CLIENT_SCRIPT = """
import sys
from importlib.util import find_spec

import sessiond_stubs
from sessiond_client import Client
from sessiond_stubs.v1.session_authority_pb2_grpc import SessionAuthorityStub

with Client(sys.argv[1], application="shop") as authority:
    created = authority.create(subject="ada", data={"cart": b"[]"})
    answer = authority.validate(created.token, data=True)
    print(answer.verdict.name, answer.session.subject, answer.data.values["cart"], find_spec("sessiond"))
"""
TYPED_SCRIPT = """
from sessiond_client import Client
from sessiond_stubs.v1.session_authority_pb2 import ValidateSessionRequest

with Client("127.0.0.1:1") as authority:
    reveal_type(authority.validate("x").valid)
reveal_type(ValidateSessionRequest().token)
"""


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the tree as a commit, and what `make dist` made of it in `dist`.

    The processes of one test run share it: it takes half a minute.
    """
    if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
        pytest.skip(f"{missing[0]} is not installed here")
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    clone = shared / "release"
    with (shared / "release.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (clone / "dist").exists():
            shutil.rmtree(clone, ignore_errors=True)
            make_release(clone)
    return clone


def make_release(clone: Path) -> None:
    """Copy the tree, commit it, and build it with the tools of `make dist`. Skip if they cannot be installed."""
    tools = subprocess.run(
        ["make", "build/release/.installed"], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    if tools.returncode:
        pytest.skip(f"the tools of a release cannot be installed here: {tools.stderr.strip().splitlines()[-1]}")
    fresh_clone(clone)
    commit(clone)
    run(clone, str(ROOT / "build" / "release" / "bin" / "python"), "-m", "scripts.dist")


def commit(folder: Path) -> None:
    """Make a commit of all files in a folder, of a time of its own."""
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"]
    run(folder, "git", "init", "-q", ".")
    run(folder, "git", "add", "-A", "--force", ".")
    dates = dict.fromkeys(("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"), "2026-01-02T03:04:06Z")
    run(folder, *git, "commit", "-q", "-m", "release", **dates)


def wheels(release: Path) -> dict[str, Path]:
    """The wheel of each distribution, by its name."""
    return {wheel.name.partition("-")[0]: wheel for wheel in (release / "dist").glob("*.whl")}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, release: Path) -> Path:
    """The Python of a fresh environment with the server's locked dependencies, and nothing of ours."""
    python = fresh_environment(tmp_path_factory.mktemp("server"))
    lock = str(release / "requirements" / "server.lock")
    needed = subprocess.run(
        [*pip(python), "install", "-q", "--require-hashes", "-r", lock], capture_output=True, text=True, check=False
    )
    if needed.returncode:
        pytest.skip(f"the dependencies cannot be installed here: {needed.stderr.strip().splitlines()[-1]}")
    return python


def fresh_environment(folder: Path) -> Path:
    """Return the Python of a new virtual environment."""
    run(folder, sys.executable, "-m", "venv", str(folder / "venv"))
    return folder / "venv" / "bin" / "python"


def pip(python: Path) -> list[str]:
    """The pip of an environment."""
    return [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input"]


class InstalledServer(ServerProcess):
    """A server that was installed from wheels."""

    def __init__(self, folder: Path, programs: Path) -> None:
        (folder / "sessiond.toml").write_text("[applications.shop]\n", encoding="utf-8")
        super().__init__(folder, cwd=folder, python=str(programs / "python"), program=("-P", "-m", "sessiond"))


@pytest.mark.slow
async def test_the_wheels_are_whole(release: Path, bare: Path, tmp_path: Path) -> None:
    """The wheels work without the repository: a server, the operator's commands, and a client that has only its own."""
    run(tmp_path, *pip(bare), "install", "-q", "--no-index", *map(str, wheels(release).values()))
    client = fresh_environment(tmp_path)
    run(tmp_path, *pip(client), "install", "-q", str(wheels(release)["sessiond_client"]))
    server = InstalledServer(tmp_path, bare.parent)
    try:
        target = await server.address()
        status = run(tmp_path, str(bare.parent / "sessionctl"), "--target", target, "-o", "json", "status")
        assert json.loads(status)["version"] == __version__
        answer = run(tmp_path, str(client), "-P", "-c", CLIENT_SCRIPT, target)
        assert answer == "VALID ada b'[]' None\n"
        assert await server.terminate() == 0
    finally:
        server.kill()


@pytest.mark.slow
def test_the_clients_wheel_is_typed(release: Path, tmp_path: Path) -> None:
    """A type checker takes the types of the client and of the stubs from the installed wheel."""
    client = fresh_environment(tmp_path)
    run(tmp_path, *pip(client), "install", "-q", "--no-deps", "--no-index", str(wheels(release)["sessiond_client"]))
    (tmp_path / "typed.py").write_text(TYPED_SCRIPT, encoding="utf-8")
    mypy = [sys.executable, "-P", "-m", "mypy", "--strict", "--no-incremental", "--python-executable", str(client)]
    shown = run(tmp_path, *mypy, "typed.py")
    assert 'Revealed type is "bool"' in shown
    assert 'Revealed type is "str"' in shown


@pytest.mark.slow
def test_a_release_is_the_same_for_the_same_commit(release: Path, tmp_path: Path) -> None:
    """The same commit, built in another folder, later and with another umask, gives the same packages."""
    other = tmp_path / "another-folder"
    run(tmp_path, "git", "clone", "-q", str(release), str(other))
    python = ROOT / "build" / "release" / "bin" / "python"
    run(other, "bash", "-c", f"umask 077 && exec {python} -m scripts.dist --packages-only")
    sums = {name: text for text, name in map(str.split, (release / "dist" / "SHA256SUMS.txt").read_text().splitlines())}
    again = {name: text for text, name in map(str.split, (other / "dist" / "SHA256SUMS.txt").read_text().splitlines())}
    assert len(again) == 4
    assert again == {name: text for name, text in sums.items() if name.endswith((".whl", ".tar.gz"))}
    run(release / "dist", "sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS.txt")


@pytest.mark.slow
def test_a_release_has_exactly_what_git_has(release: Path) -> None:
    """Sdists have the packages with their data and licence, and what an operator copies; wheels have the packages."""
    listed = run(release, "git", "ls-files", "sessiond", "sessionctl", "clients/python/src").splitlines()
    for project, name in ((".", "sessiond"), ("clients/python", "sessiond_client")):
        root = Path(project)
        files = {str(Path(file).relative_to(root)) for file in listed if Path(file).is_relative_to(root)}
        files = {file for file in files if project != "." or not file.startswith("clients/")}
        with zipfile.ZipFile(wheels(release)[name]) as wheel:
            packed = {file for file in wheel.namelist() if ".dist-info/" not in file}
            assert any(file.endswith(".dist-info/licenses/LICENSE") for file in wheel.namelist())
        assert packed == {file.removeprefix("src/") for file in files}
        with tarfile.open(next((release / "dist").glob(f"{name}-*.tar.gz"))) as sdist:
            inside = {file.partition("/")[2] for file in sdist.getnames()}
        copied = (
            {"deploy/sessiond.service", "deploy/sessiond.toml", "requirements/server.lock", "requirements/overlap.lock"}
            if project == "."
            else set()
        )
        assert files | copied | {"LICENSE", "README.md", "pyproject.toml"} <= inside
        assert not {file for file in inside if file.startswith(("tests", "data", "build", "."))} - {".gitignore"}


@pytest.mark.slow
def test_the_bill_of_materials_has_every_dependency(release: Path) -> None:
    """The bill of materials and the licences have each package of server.lock, and no path of the machine."""
    bill = (release / "dist" / f"sessiond-{__version__}.cdx.json").read_text(encoding="utf-8")
    document = json.loads(bill)
    assert (document["bomFormat"], document["metadata"]["component"]["name"]) == ("CycloneDX", "sessiond")
    assert document["metadata"]["timestamp"].startswith("2026-01-02T03:04:06")
    found = {normal(one["name"]): one["version"] for one in document["components"]}
    lock = (release / "requirements" / "server.lock").read_text(encoding="utf-8")
    locked = {normal(name): version for name, version in re.findall(r"^([\w.-]+)==([\w.]+)", lock, re.MULTILINE)}
    ours = {"sessiond-client": __version__}
    elsewhere = {name for name in locked if name not in found}
    assert found == {name: version for name, version in locked.items() if name in found} | ours
    assert elsewhere <= {"async-timeout", "colorama", "exceptiongroup", "tomli"}  # for other systems or Pythons
    licences = (release / "dist" / f"sessiond-{__version__}.licences.txt").read_text(encoding="utf-8")
    headings = {normal(line) for line in licences.splitlines() if re.fullmatch(r"[\w.-]+", line)}
    assert set(found) - set(ours) <= headings
    for text in (bill, licences):
        assert str(release) not in text
        assert tempfile.gettempdir() not in text


@pytest.mark.slow
def test_a_release_replaces_only_a_release(release: Path, tmp_path: Path) -> None:
    """`make dist` does not empty a folder with files that no release wrote there."""
    (tmp_path / "notes.txt").write_text("keep me", encoding="utf-8")
    python = str(ROOT / "build" / "release" / "bin" / "python")
    refused = subprocess.run(
        [python, "-m", "scripts.dist", "--packages-only", "--to", str(tmp_path)],
        cwd=release,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (refused.returncode, [path.name for path in tmp_path.iterdir()]) == (1, ["notes.txt"])
    assert "has notes.txt, which no release wrote" in refused.stderr


def versions() -> dict[str, str]:
    """Each place that has the version of the release."""
    server = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    client = tomllib.loads((CLIENT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (required,) = (one for one in server["dependencies"] if normal(one) == "sessiond-client")
    found = {
        "pyproject.toml": server["version"],
        "pyproject.toml, the client that it requires": required.removeprefix("sessiond-client=="),
        "clients/python/pyproject.toml": client["version"],
        "sessiond/__init__.py": __version__,
    }
    for package in ("clients/express", "clients/browser"):
        text = (ROOT / package / "package.json").read_text(encoding="utf-8")
        found[f"{package}/package.json"] = json.loads(text)["version"]
    return found


def test_there_is_one_version() -> None:
    """All distributions and packages, and the server's own requirement, have the version in pyproject.toml."""
    found = versions()
    assert found == dict.fromkeys(found, found["pyproject.toml"])


def test_the_changelog_has_the_form_of_a_release() -> None:
    """CHANGELOG.md has what is unreleased, then the releases with their dates, newest first, none above the version."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    first, *rest = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert first == "[Unreleased]"
    releases = [re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\] - (\d{4}-\d{2}-\d{2})", heading) for heading in rest]
    assert None not in releases, rest
    numbers = [tuple(map(int, one.groups()[:3])) for one in releases if one]
    assert numbers == sorted(set(numbers), reverse=True)
    version = tuple(map(int, versions()["pyproject.toml"].split(".")))
    assert all(number <= version for number in numbers)
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= kinds


def test_the_client_has_the_licence() -> None:
    """The client's distribution has a copy of the licence, because a wheel holds only files of its own folder."""
    assert (CLIENT / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def fresh_clone(folder: Path) -> Path:
    """Copy the project's files to a folder, without those that git ignores; return the folder."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout, or git is not installed here")
    for name in run(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0"):
        source, copy = ROOT / name, folder / name
        if source.is_file():  # not one that was removed and is still in the index
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, copy)
    return folder


def run(folder: Path, *command: str, **environment: str) -> str:
    """Run a command in a folder, with these variables set; return its standard output."""
    result = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout
