"""Check the licences of everything that a server with all its options needs: requirements/licences.toml has the list.

pip-licenses reads them from what is installed. `make check` runs this.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Collection
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements" / "server.lock"
LIST = ROOT / "requirements" / "licences.toml"
_NAME = re.compile(r"^([A-Za-z0-9._-]+)==", re.MULTILINE)
_BETWEEN = re.compile(r"\s+(?:AND|OR)\s+|\s*;\s*|[()]")
"""What stands between the licences of one package. Each of several must be allowed, also if one would do."""


def main() -> int:
    """Print the packages with other licences. Return 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", type=Path, default=ROOT / ".venv" / "bin" / "python", help="whose packages")
    parser.add_argument("--list", type=Path, default=LIST, help="the file with the licences that are allowed")
    arguments = parser.parse_args()
    allowed: list[str] = tomllib.loads(arguments.list.read_text(encoding="utf-8"))["allowed"]
    wanted = [normal(name) for name in _NAME.findall(LOCK.read_text(encoding="utf-8"))]
    found = licences(arguments.python, wanted)
    wrong = {name: licence for name, licence in found.items() if not is_allowed(licence, allowed)}
    for name, licence in sorted(wrong.items()):
        print(f"{name}: its licence, {licence}, is not in {arguments.list.name}", file=sys.stderr)
    # A package for another system or an older Python is in the lock file, and not installed.
    missing = sorted(set(wanted) - set(found))
    note = f"; not installed here, and not checked: {', '.join(missing)}" if missing else ""
    if not found:
        print("no package of requirements/server.lock is installed", file=sys.stderr)
        return 1
    if not wrong:
        print(f"licences: all {len(found)} packages of a server have allowed licences{note}")
    return 1 if wrong else 0


def licences(python: Path, names: Collection[str]) -> dict[str, str]:
    """Return the licence of each of these packages that is installed, by its normalized name."""
    tool = Path(sys.executable).parent / "pip-licenses"
    command = [str(tool), "--python", str(python), "--from", "mixed", "--format", "json", "--packages", *names]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {normal(one["Name"]): one["License"] for one in json.loads(shown)}


def is_allowed(licence: str, allowed: Collection[str]) -> bool:
    """Return whether each licence in an expression is allowed. No licence is not."""
    parts = [part.strip() for part in _BETWEEN.split(licence) if part.strip()]
    return bool(parts) and set(parts) <= set(allowed)


def normal(name: str) -> str:
    """Return the normalized name of a package."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main())
