"""Check docs/requirements.md: each line must name existing tests or an existing page, or be marked `open`.

A line that only the server is responsible for must not be open.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
TABLE = ROOT / "docs" / "requirements.md"
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
_PAGE = re.compile(r"\]\(([\w./-]+)\)")


def problems() -> list[str]:
    """Return the errors in the table, each with its line number."""
    found = []
    for number, line in enumerate(TABLE.read_text(encoding="utf-8").splitlines(), 1):
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) != 3 or cells[0] in ("who", "---"):
            continue
        shown = cells[2]
        tests, pages = _TEST.findall(shown), _PAGE.findall(shown)
        is_open = "open" in re.findall(r"\w+", shown)
        if is_open and cells[0] == "S":
            found.append(f"{number}: a line that only the server is responsible for is marked open")
        if not is_open and not tests and not (pages and "D" in cells[0]):
            found.append(f"{number}: the line names no test and is not marked open")
        for file, name in tests:
            path = ROOT / file
            if not path.exists() or not re.search(rf"def {name}\b", path.read_text(encoding="utf-8")):
                found.append(f"{number}: {file}::{name} does not exist")
        found += [f"{number}: {page} does not exist" for page in pages if not (TABLE.parent / page).exists()]
    return found


def main() -> int:
    """Print the errors. Return exit code 1 if there are any."""
    found = problems()
    for problem in found:
        print(f"docs/requirements.md:{problem}", file=sys.stderr)
    if not found:
        print("docs/requirements.md: every line names existing tests or is marked open; no line of the server is open")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
