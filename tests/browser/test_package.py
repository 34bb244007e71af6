"""The package for npm, and the copy of the script that servers have."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "clients" / "browser"


def test_servers_have_the_script_of_the_package() -> None:
    """`make generate` copies the script; the copy is the same, byte by byte."""
    copy = files("sessiond_client.browser").joinpath("session.js").read_bytes()
    assert copy == (PACKAGE / "session.js").read_bytes()


def test_the_script_stands_alone() -> None:
    """The script imports nothing, and has nothing that a strict content security policy forbids."""
    text = (PACKAGE / "session.js").read_text(encoding="utf-8")
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith(("*", "/*", "//")))
    for forbidden in ("import ", "eval(", "new Function", "innerHTML", "document.write", "document.cookie", ".style ="):
        assert forbidden not in code, forbidden


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_what_the_package_contains() -> None:
    """The package has the script, its documentation and nothing else, and no dependency."""
    command = ["npm", "pack", "--dry-run", "--json", "--ignore-scripts"]
    packed = json.loads(subprocess.run(command, cwd=PACKAGE, check=True, capture_output=True, text=True).stdout)
    assert sorted(file["path"] for file in packed[0]["files"]) == ["README.md", "package.json", "session.js"]
    described = json.loads((PACKAGE / "package.json").read_text(encoding="utf-8"))
    assert not [name for name in described if name.endswith("ependencies")]
    assert described["type"] == "module"
