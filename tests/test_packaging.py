"""The two distributions: they are complete, they name their dependencies, and a fresh clone installs."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

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


@pytest.mark.slow
def test_the_documented_command_installs_both(tmp_path: Path) -> None:
    """In a fresh clone `pip install ./clients/python .` installs every module, the server's SQL and both commands."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "pip install ./clients/python .\n" in readme
    clone = fresh_clone(tmp_path / "clone")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    offline = ["--no-index", "--no-build-isolation"]
    resolved = run(clone, *pip, "install", "--dry-run", *offline, "./clients/python", ".")
    assert "sessiond-0.1.0" in resolved
    assert "sessiond-client-0.1.0" in resolved
    run(clone, *pip, "wheel", "--no-deps", *offline, "--wheel-dir", str(tmp_path / "wheels"), "./clients/python", ".")
    wheels = sorted(str(wheel) for wheel in (tmp_path / "wheels").iterdir())
    assert len(wheels) == 2
    target = tmp_path / "installed"
    run(clone, *pip, "install", "--no-deps", "--no-index", "--target", str(target), *wheels)
    for project, contents in CONTENTS.items():
        for content in contents:
            files = {path.relative_to((project / content).parent) for path in (project / content).rglob("*")}
            wanted = {path for path in files if path.suffix in {".py", ".sql", ".typed", ".pyi"}}
            assert [path for path in sorted(wanted) if not (target / path).exists()] == []
    # -P: import nothing from the current folder.
    script = (
        f"import sys; sys.path.insert(0, {str(target)!r}); import sessiond.cli, sessionctl; print(sessiond.__file__)"
    )
    assert run(tmp_path, sys.executable, "-P", "-c", script).startswith(str(target))
    for command in ("sessiond", "sessionctl"):
        help_text = run(tmp_path, str(target / "bin" / command), "--help", PYTHONPATH=str(target))
        assert help_text.startswith(f"Usage: {command} ")


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
