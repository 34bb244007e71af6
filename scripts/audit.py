"""Ask for known vulnerabilities of the locked packages with pip-audit, and fail if there is one.

Where the service cannot be reached, or knows none of the packages, this says so in one line and does not fail.
requirements/advisories.toml has the advisories that are ignored, each with a reason and an end.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LIST = ROOT / "requirements" / "advisories.toml"
LOCKS = ("server", "run", "dev", "release", "ha", "fuzz")
_NO_ANSWER = re.compile(
    r"requests\.exceptions\.\w+|pip_audit\._service\.interface\.\w+|your network may be blocking this service"
)
"""What pip-audit writes if the service cannot be reached, or its answer is no answer."""
_LIMIT = 60.0
"""Seconds. It takes less than ten if the service answers."""


class BadList(Exception):
    """The list of ignored advisories cannot be used. The text says why."""


class PipAuditFailed(Exception):
    """pip-audit could not do its work, for another reason than the service. The text has its messages."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """One advisory that is ignored."""

    id: str
    reason: str
    until: date
    """The last day."""


@dataclass(frozen=True, slots=True)
class Audit:
    """What the service said."""

    answered: int
    """For how many packages it had an answer."""
    packages: int
    findings: Sequence[tuple[str, frozenset[str], str]]
    """The package with its version, the advisory's names, and what to do."""


def main() -> int:
    """Print what was found. Return 1 if a vulnerability concerns us, or the list cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--osv-url", help="ask this OSV service instead of PyPI")
    parser.add_argument("--lock", type=Path, action="append", help="a lock file; by default all of requirements/")
    parser.add_argument("--list", type=Path, default=LIST, help="the file with the advisories that are ignored")
    arguments = parser.parse_args()
    locks = arguments.lock or [ROOT / "requirements" / f"{name}.lock" for name in LOCKS]
    try:
        ignored = read_ignored(arguments.list)
        service = ["--vulnerability-service", "osv", "--osv-url", arguments.osv_url] if arguments.osv_url else []
        audit = ask(locks, service)
    except (BadList, PipAuditFailed) as error:
        print(f"{arguments.list.name}: {error}" if isinstance(error, BadList) else error, file=sys.stderr)
        return 1
    if audit is None or not audit.answered:
        print("vulnerabilities: not checked, the advisory service cannot be reached from here")
        return 0
    problems = judge(audit, ignored, date.today())
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        known = "none that is not ignored" if audit.findings else "none known"
        print(f"vulnerabilities: {known}, {audit.answered} of {audit.packages} locked packages checked")
    return 1 if problems else 0


def ask(locks: Sequence[Path], service: Sequence[str]) -> Audit | None:
    """Run pip-audit on lock files; return None if the service gave no answer. Raises `PipAuditFailed`."""
    command = [str(Path(sys.executable).parent / "pip-audit"), "--disable-pip", "--require-hashes"]
    command += ["--format", "json", "--desc", "off", "--aliases", "on", "--progress-spinner", "off", "--timeout", "5"]
    for lock in locks:
        command += ["--requirement", str(lock)]
    try:
        done = subprocess.run([*command, *service], capture_output=True, text=True, timeout=_LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return None
    if not done.stdout.strip():
        if _NO_ANSWER.search(done.stderr):
            return None
        raise PipAuditFailed(f"pip-audit failed:\n{done.stderr}".rstrip())
    return parsed(json.loads(done.stdout)["dependencies"])


def parsed(dependencies: Sequence[dict[str, Any]]) -> Audit:
    """Return what pip-audit's report says."""
    findings = []
    for one in dependencies:
        for found in one.get("vulns", ()):
            fixed = " or ".join(found["fix_versions"])
            remedy = f"update it to {fixed}" if fixed else "no version has a correction yet"
            findings.append((f"{one['name']} {one['version']}", frozenset([found["id"], *found["aliases"]]), remedy))
    answered = sum("skip_reason" not in one for one in dependencies)
    return Audit(answered=answered, packages=len(dependencies), findings=findings)


def judge(audit: Audit, ignored: Sequence[Ignored], today: date) -> list[str]:
    """Return a line for each vulnerability that is not ignored today, and for each entry that is not needed."""
    problems = []
    for package, names, remedy in audit.findings:
        entries = [entry for entry in ignored if entry.id in names]
        if not entries:
            known = ", ".join(sorted(names))
            problems.append(f"{package}: {known}: {remedy}, or give a reason in requirements/{LIST.name}")
        problems += [
            f"{package}: {entry.id}: was ignored until {entry.until} ({entry.reason}): {remedy}, or extend it"
            for entry in entries
            if entry.until < today
        ]
    if audit.answered == audit.packages:
        seen = frozenset[str]().union(*(names for _, names, _ in audit.findings))
        unused = [entry.id for entry in ignored if entry.id not in seen]
        problems += [f"{LIST.name}: {one}: concerns no locked package; remove it" for one in unused]
    return sorted(set(problems))


def read_ignored(file: Path) -> list[Ignored]:
    """Return the advisories in a list. Raises `BadList`."""
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise BadList(str(error)) from None
    if unknown := set(document) - {"ignored"}:
        raise BadList(f"{min(unknown)}: no such key")
    if not isinstance(document.get("ignored", []), list):
        raise BadList("ignored: must be a list of tables")
    found = []
    for number, entry in enumerate(document.get("ignored", []), 1):
        kinds = {"id": str, "reason": str, "until": date}
        for key, kind in kinds.items():
            if type(entry.get(key)) is not kind or not entry[key]:  # a time of day is a date to `isinstance`
                raise BadList(f"entry {number}: {key} is missing, or of the wrong type")
        if unknown := set(entry) - set(kinds):
            raise BadList(f"entry {number}: {min(unknown)}: no such key")
        found.append(Ignored(**entry))
    return found


if __name__ == "__main__":
    sys.exit(main())
