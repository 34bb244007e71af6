"""`make check` asks for vulnerabilities and licences: what it reports, and what it does where nobody answers."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from scripts.audit import Audit, BadList, Ignored, judge, parsed, read_ignored
from scripts.licences import is_allowed

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / "build" / "release" / "bin"
LOCK = "click==8.1.0 --hash=sha256:" + "0" * 64 + "\nh11==0.14.0 --hash=sha256:" + "0" * 64 + "\n"
ADVISORY = {
    "id": "GHSA-aaaa-bbbb-cccc",
    "aliases": ["CVE-2026-0001"],
    "summary": "a hole",
    "affected": [
        {
            "package": {"name": "h11", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "0.16.0"}]}],
        }
    ],
}


class Service(BaseHTTPRequestHandler):
    """An advisory service in the form of OSV that knows one advisory, about h11."""

    def do_POST(self) -> None:
        """Answer one query."""
        if self.path == "/broken":
            self.send_error(503)
            return
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = json.dumps({"vulns": [ADVISORY]} if asked["package"]["name"] == "h11" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing."""


@pytest.fixture
def service() -> Iterator[str]:
    """The address of an advisory service on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()
        thread.join()


def script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a check with the tools of a release; skip if they are not installed."""
    if not (TOOLS / "pip-audit").exists():
        pytest.skip("the tools of a release are not installed here; `make build/release/.installed` installs them")
    command = [str(TOOLS / "python"), "-m", f"scripts.{name}", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def audit(folder: Path, url: str, ignored: str = "") -> subprocess.CompletedProcess[str]:
    """Run pip-audit on two packages with this service and this list of ignored advisories."""
    (folder / "some.lock").write_text(LOCK, encoding="utf-8")
    (folder / "list.toml").write_text(ignored, encoding="utf-8")
    return script("audit", "--osv-url", url, "--lock", str(folder / "some.lock"), "--list", str(folder / "list.toml"))


def entry(until: date) -> str:
    """An entry of the list of ignored advisories, by the advisory's other name."""
    return f'[[ignored]]\nid = "CVE-2026-0001"\nreason = "we parse nothing with it"\nuntil = {until}\n'


def test_a_vulnerability_fails(service: str, tmp_path: Path) -> None:
    """A known vulnerability fails the check, in one line with the package, the advisory and the remedy."""
    result = audit(tmp_path, service)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert result.stderr.startswith("h11 0.14.0: CVE-2026-0001, GHSA-aaaa-bbbb-cccc: update it to 0.16.0")


def test_an_ignored_vulnerability_passes_until_its_day(service: str, tmp_path: Path) -> None:
    """An advisory in the list passes up to its last day, and fails after it, with the reason that was given."""
    # A day to spare: midnight may come between these lines.
    passed = audit(tmp_path, service, entry(date.today() + timedelta(days=1)))
    assert (passed.returncode, passed.stderr) == (0, "")
    assert passed.stdout == "vulnerabilities: none that is not ignored, 2 of 2 locked packages checked\n"
    late = audit(tmp_path, service, entry(date.today() - timedelta(days=1)))
    assert (late.returncode, late.stderr.count("\n")) == (1, 1)
    assert "we parse nothing with it" in late.stderr


def test_without_a_service_the_check_says_so(tmp_path: Path) -> None:
    """If nothing answers at the service's address, the check passes, and one line says that nothing was checked."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        result = audit(tmp_path, f"http://127.0.0.1:{closed.getsockname()[1]}/v1/query")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "vulnerabilities: not checked, the advisory service cannot be reached from here\n"


def test_a_service_that_fails_is_no_answer(service: str, tmp_path: Path) -> None:
    """If the service answers with an error, as a proxy that blocks it does, nothing was checked either."""
    result = audit(tmp_path, service.replace("/v1/query", "/broken"))
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("vulnerabilities: not checked, ")


def test_an_unusable_list_fails(service: str, tmp_path: Path) -> None:
    """An entry without a reason fails the check, whatever the service says."""
    result = audit(tmp_path, service, '[[ignored]]\nid = "CVE-2026-0001"\nuntil = 2027-01-01\n')
    assert (result.returncode, result.stderr) == (1, "list.toml: entry 1: reason is missing, or of the wrong type\n")


def test_pip_audit_that_fails_is_no_missing_service(service: str, tmp_path: Path) -> None:
    """If pip-audit itself fails, for example because a package has no hash, the check fails."""
    (tmp_path / "bad.lock").write_text("click==8.1.0\n", encoding="utf-8")
    result = script("audit", "--osv-url", service, "--lock", str(tmp_path / "bad.lock"))
    assert result.returncode == 1
    assert "pip-audit failed" in result.stderr


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("ignored = 1\n", "ignored: must be a list of tables"),
        ("[[ignord]]\n", "ignord: no such key"),
        ('[[ignored]]\nid = ""\nreason = "x"\nuntil = 2027-01-01\n', "entry 1: id is missing"),
        ('[[ignored]]\nid = "A"\nreason = "x"\nuntil = "2027-01-01"\n', "entry 1: until is missing"),
        ('[[ignored]]\nid = "A"\nreason = "x"\nuntil = 2027-01-01T00:00:00Z\n', "entry 1: until is missing"),
        ('[[ignored]]\nid = "A"\nreason = "x"\nuntil = 2027-01-01\nwho = "me"\n', "entry 1: who: no such key"),
        ("[[", "at end of document"),
    ],
)
def test_a_bad_list_is_refused(text: str, problem: str, tmp_path: Path) -> None:
    """A list with a misspelt key, or an entry without identifier, reason or last day, is refused."""
    (tmp_path / "list.toml").write_text(text, encoding="utf-8")
    with pytest.raises(BadList) as caught:
        read_ignored(tmp_path / "list.toml")
    assert problem in str(caught.value)


TODAY = date(2026, 12, 1)
FOUND = Audit(answered=2, packages=2, findings=[("h11 0.14.0", frozenset({"A", "B"}), "update it to 0.16.0")])


@pytest.mark.parametrize(
    ("until", "refused"), [(TODAY, False), (TODAY + timedelta(days=9), False), (TODAY - timedelta(days=1), True)]
)
def test_the_last_day_counts(until: date, refused: bool) -> None:
    """An advisory is ignored up to and including its last day."""
    assert bool(judge(FOUND, [Ignored("B", "x", until)], TODAY)) is refused


def test_an_entry_that_concerns_nothing_is_reported() -> None:
    """An ignored advisory that no locked package has any more must be removed, once all packages were checked."""
    old = Ignored("OLD", "x", TODAY)
    nothing = Audit(answered=2, packages=2, findings=[])
    assert judge(nothing, [old], TODAY) == ["advisories.toml: OLD: concerns no locked package; remove it"]
    assert judge(Audit(answered=1, packages=2, findings=[]), [old], TODAY) == []


def test_packages_that_the_service_does_not_know_are_not_checked() -> None:
    """A package that was skipped does not count as checked."""
    report: list[dict[str, Any]] = [
        {"name": "a", "skip_reason": "Dependency not found on PyPI"},
        {"name": "b", "version": "1", "vulns": []},
    ]
    assert parsed(report) == Audit(answered=1, packages=2, findings=[])


def test_every_licence_of_a_server_is_allowed() -> None:
    """Each package that a server with all its options needs has an allowed licence."""
    result = script("licences", "--python", str(ROOT / ".venv" / "bin" / "python"))
    if "no package" in result.stderr:
        pytest.skip("the environment is not .venv here")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("licences: all ")


def test_another_licence_fails(tmp_path: Path) -> None:
    """A package whose licence is not in the list fails the check, and is named with its licence."""
    (tmp_path / "short.toml").write_text('allowed = ["MIT"]\n', encoding="utf-8")
    result = script("licences", "--list", str(tmp_path / "short.toml"))
    assert (result.returncode, result.stdout) == (1, "")
    assert "grpcio: its licence, Apache-2.0, is not in short.toml\n" in result.stderr
    assert "pydantic:" not in result.stderr


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT", True),
        ("Apache-2.0 OR MIT", True),
        ("(MIT AND Apache-2.0)", True),
        ("MIT; Apache-2.0", True),
        ("MIT AND GPL-3.0-only", False),
        ("MIT OR GPL-3.0-only", False),
        ("MIT WITH some-exception", False),
        ("UNKNOWN", False),
        ("", False),
    ],
)
def test_expressions_of_licences(licence: str, allowed: bool) -> None:
    """Each licence of an expression must be allowed; none, or an unknown one, is not."""
    assert is_allowed(licence, ["MIT", "Apache-2.0"]) is allowed
