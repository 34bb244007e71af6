"""The two distributions: what the documented command installs is complete, and says what it needs."""

from __future__ import annotations

import ast
import re
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


def imported(folder: Path) -> set[str]:
    """The packages outside of the standard library that modules in a folder import."""
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names)


def normal(requirement: str) -> str:
    """The name of a distribution, as an index compares it."""
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name is not None
    return re.sub(r"[-_.]+", "-", name[0]).lower()


@pytest.mark.parametrize("project", CONTENTS, ids=["server", "client"])
def test_everything_that_is_imported_is_required(project: Path) -> None:
    """Each distribution requires what its modules import, and nothing that none of them does."""
    metadata = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = {normal(requirement) for requirement in metadata["dependencies"]}
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
    """`pip install ./clients/python .` finds everything, and the wheels have every module and the server's SQL."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "pip install ./clients/python .\n" in readme
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    offline = ["--no-index", "--no-build-isolation"]
    resolved = run(*pip, "install", "--dry-run", *offline, "./clients/python", ".")
    assert "sessiond-0.1.0" in resolved
    assert "sessiond-client-0.1.0" in resolved
    run(*pip, "wheel", "--no-deps", *offline, "--wheel-dir", str(tmp_path / "wheels"), "./clients/python", ".")
    wheels = sorted(str(wheel) for wheel in (tmp_path / "wheels").iterdir())
    assert len(wheels) == 2
    target = tmp_path / "installed"
    run(*pip, "install", "--no-deps", "--no-index", "--target", str(target), *wheels)
    for project, contents in CONTENTS.items():
        for content in contents:
            files = {path.relative_to((project / content).parent) for path in (project / content).rglob("*")}
            wanted = {path for path in files if path.suffix in {".py", ".sql", ".typed", ".pyi"}}
            assert [path for path in sorted(wanted) if not (target / path).exists()] == []
    # -P: nothing of the tree that the test runs in.
    script = (
        f"import sys; sys.path.insert(0, {str(target)!r}); import sessiond.cli, sessionctl; print(sessiond.__file__)"
    )
    assert run(sys.executable, "-P", "-c", script).startswith(str(target))


def run(*command: str) -> str:
    """Run a command in the project's folder; what it says."""
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout
