"""The documentation: links lead somewhere, every page can be found, and the examples use what exists."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import sessionctl
import sessiond.cli
from scripts import access_table
from sessiond.app import App
from sessiond.config import load_config
from sessiond_client import AsyncClient, Client, Created, RequirementKind, Verdict

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
_OTHERS = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "clients/python/README.md")
PAGES = [*(ROOT / name for name in _OTHERS), *sorted(DOCS.rglob("*.md"))]
PROGRAMS = {"sessiond": sessiond.cli.main, "sessionctl": sessionctl.main}

_FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_COMMAND = re.compile(r"(?:^ *|; *|bin/)(sessiond|sessionctl) +([^\n)]+)", re.MULTILINE)
_LOG_LINE = re.compile(r'log\.(?:info|warning|error)\(\s*"([^"]+)"|log_failure\(\w+, "([^"]+)"')
_MENTION = re.compile(r"\bdocs/[\w/-]+\.md")
_TEXTS = {".py", ".md", ".toml", ".service", ".sh", ".proto", ".sql"}
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)

# What a reader of a guide replaces, or what would never end.
ADDRESS = "127.0.0.1:7443"
TOKEN = "the token in the request's cookie"
SESSION_ID = "0197b5a0-0000-7000-8000-000000000000"
LOOP = "save(event.cursor)"


def text_of(page: Path) -> str:
    """A page without its code blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def blocks_of(page: Path, language: str) -> list[str]:
    """The code blocks of a page in a language."""
    return [block for name, block in _FENCE.findall(page.read_text(encoding="utf-8")) if name == language]


def blocks(language: str) -> list[Any]:
    """Every code block of a language, named by page and number."""
    return [
        pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}")
        for page in PAGES
        for number, block in enumerate(blocks_of(page, language))
    ]


def guides() -> list[Path]:
    """The pages that have Python examples, except those of frameworks (tests/clients) and of callers (tests/access)."""
    found = [page for page in PAGES if page.is_relative_to(DOCS) and blocks_of(page, "python")]
    elsewhere = ("fastapi", "django", "flask", "grpc", "use-another-framework", "add-callers")
    return [page for page in found if page.stem not in elsewhere]


def anchor_of(heading: str) -> str:
    """The anchor that GitHub gives a heading: lower case, punctuation dropped, hyphens for spaces."""
    words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", words).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    """The anchors of a page; a heading that repeats gets a number."""
    found: set[str] = set()
    for heading in _HEADING.findall(text_of(page)):
        anchor, number = anchor_of(heading), 0
        while (name := f"{anchor}-{number}" if number else anchor) in found:
            number += 1
        found.add(name)
    return found


def links(page: Path) -> Iterator[tuple[str, Path, str]]:
    """Each relative link of a page: as written, its target, and its anchor."""
    for link in _LINK.findall(text_of(page)):
        if not re.match(r"[a-z]+:", link):
            path, _, anchor = link.partition("#")
            yield link, (page.parent / path).resolve() if path else page, anchor


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    """Each relative link names a file of the repository, and each anchor a heading of its page."""
    broken = [
        link
        for link, target, anchor in links(page)
        if not target.is_relative_to(ROOT) or not target.exists() or (anchor and anchor not in anchors(target))
    ]
    assert broken == []


def test_every_page_can_be_found() -> None:
    """Each page of the documentation can be reached from its index."""
    found, ahead = set[Path](), [DOCS / "README.md"]
    while ahead:
        page = ahead.pop()
        if page not in found and page.suffix == ".md" and page.is_relative_to(DOCS) and page.exists():
            found.add(page)
            ahead += [target for _, target, _ in links(page)]
    assert set(DOCS.rglob("*.md")) - found == set()


def test_every_page_that_is_mentioned_exists() -> None:
    """Each page of the documentation that code, tests or the files of deploy/ mention by its path is there."""
    folders = ("sessiond", "sessionctl", "clients", "tests", "scripts", "bench", "demo", "deploy", "protos")
    texts = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in _TEXTS]
    files = [path for path in texts if "node_modules" not in path.parts]  # pages of other projects
    missing = {
        f"{path.relative_to(ROOT)}: {page}"
        for path in (*files, ROOT / "Makefile")
        for page in _MENTION.findall(path.read_text(encoding="utf-8"))
        if not (ROOT / page).exists()
    }
    assert missing == set()


@pytest.mark.parametrize("block", blocks("python"))
def test_every_python_example_calls_what_exists(block: str) -> None:
    """Each example can be compiled, and calls the client with methods and parameters that it has."""
    for call in ast.walk(ast.parse(block)):
        match call:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="authority"), attr=name), keywords=keywords):
                parameters = inspect.signature(getattr(Client, name)).parameters
                if not any(item.kind is item.VAR_KEYWORD for item in parameters.values()):
                    assert {keyword.arg for keyword in keywords} <= set(parameters), name


@dataclass
class Trial:
    """A guide that was run: the names that it bound, what it printed, and the session that it was run with."""

    names: dict[str, Any]
    output: str
    created: Created
    verdict: Verdict
    """The verdict on the session's token afterwards."""


def tutorial_effect(trial: Trial) -> None:
    assert trial.output == "VALID alice PROCEED\nREVOKED\n"


def follow_events_effect(trial: Trial) -> None:
    assert "SESSION_CREATED alice" in trial.output
    assert list(trial.names["copy"]) == [trial.created.session.session_id]
    assert trial.names["position"].read_text() == trial.names["checkpoint"].cursor


def list_devices_effect(trial: Trial) -> None:
    assert trial.output.startswith(trial.created.session.session_id)
    assert "no such session" not in trial.output
    assert trial.verdict is Verdict.REVOKED


def log_out_effect(trial: Trial) -> None:
    assert any("Max-Age=0" in value for _, value in trial.names["headers"])
    assert trial.verdict is Verdict.REVOKED


def log_users_in_effect(trial: Trial) -> None:
    assert trial.names["login"].session.subject == "alice"
    assert trial.names["cookie"] == trial.created.token.reveal()
    assert trial.names["kept"] == trial.names["login"].session.session_id
    assert trial.names["rolled"].verdict is Verdict.VALID
    assert trial.names["rolled"].token.reveal() != trial.names["login"].token.reveal()
    assert trial.verdict is Verdict.REVOKED  # one of the user's other sessions


def validate_requests_effect(trial: Trial) -> None:
    assert trial.output == "serve the request for alice\n"
    kinds = {item.kind for item in trial.names["answer"].unmet}
    assert kinds >= {RequirementKind.LEVEL, RequirementKind.CSRF_TOKEN}
    assert trial.verdict is Verdict.VALID


def near_cache_effect(trial: Trial) -> None:
    """The answer has the data, and the client has a near cache."""
    assert trial.names["answer"].data.values == {"cart": b"3 apples"}
    assert trial.names["stats"].misses + trial.names["stats"].closed == 1


def log_pages_out_effect(trial: Trial) -> None:
    """The application serves the endpoints."""
    (middleware,) = trial.names["app"].user_middleware
    assert middleware.kwargs["browser_path"] == "/session/"


def use_https_everywhere_effect(trial: Trial) -> None:
    """The application in Flask redirects from HTTP, and sends the header over HTTPS; that in FastAPI was built."""
    client = trial.names["app"].test_client()
    redirect = client.get("/", base_url="http://shop.example")
    assert (redirect.status_code, redirect.headers["Location"]) == (308, "https://shop.example/")
    assert "max-age=" in client.get("/", base_url="https://shop.example").headers["Strict-Transport-Security"]


def trace_effect(trial: Trial) -> None:
    """The channels of gRPC are instrumented, so clients that are created later continue a trace."""
    for name in ("GrpcInstrumentorClient", "GrpcAioInstrumentorClient"):
        instrumentor = trial.names[name]()
        assert instrumentor.is_instrumented_by_opentelemetry
        instrumentor.uninstrument()


# By page: what is replaced in it, and a check that the page did what it says.
GUIDES: dict[str, tuple[set[str], Callable[[Trial], None]]] = {
    "trace": (set(), trace_effect),
    "tutorial": ({ADDRESS}, tutorial_effect),
    "follow-events": ({ADDRESS, LOOP}, follow_events_effect),
    "list-devices": ({ADDRESS, SESSION_ID}, list_devices_effect),
    "log-pages-out": ({ADDRESS}, log_pages_out_effect),
    "log-out": ({ADDRESS, TOKEN}, log_out_effect),
    "log-users-in": ({ADDRESS, TOKEN}, log_users_in_effect),
    "use-https-everywhere": ({ADDRESS}, use_https_everywhere_effect),
    "use-the-near-cache": ({ADDRESS}, near_cache_effect),
    "validate-requests": ({ADDRESS, TOKEN}, validate_requests_effect),
}


@pytest.mark.parametrize("page", guides(), ids=lambda page: page.stem)
async def test_every_guide_runs(
    page: Path, app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The Python examples of a guide run one after another against a real authority, and have the effect they show."""
    monkeypatch.chdir(tmp_path)
    async with AsyncClient(app.address) as client:
        created = await client.create(subject="alice")
        values = {
            ADDRESS: app.address,
            TOKEN: created.token.reveal(),
            SESSION_ID: created.session.session_id,
            LOOP: f"{LOOP}; break",
        }
        example = "\n".join(blocks_of(page, "python"))
        placeholders, check = GUIDES[page.stem]
        assert {placeholder for placeholder in values if placeholder in example} == placeholders
        for placeholder in placeholders:
            example = example.replace(placeholder, values[placeholder])
        names: dict[str, Any] = {"__name__": "__main__"}  # Flask looks for the module of this name
        capsys.readouterr()
        try:
            await asyncio.to_thread(exec, compile(example, page.name, "exec"), names)
        finally:
            if "authority" in names:
                names["authority"].close()
        output = capsys.readouterr().out
        check(Trial(names, output, created, (await client.validate(created.token)).verdict))


def test_the_table_of_access_is_that_of_the_rules() -> None:
    """The page about who may call what is what `make generate` writes, and `make check` compares it too."""
    assert access_table.PAGE.read_text(encoding="utf-8") == access_table.table()
    check = [sys.executable, "-m", "scripts.access_table", "--check"]
    assert subprocess.run(check, cwd=ROOT, timeout=60, check=False).returncode == 0
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "-m scripts.access_table --check" in makefile.partition("\ncheck:")[2].partition("\n\n")[0]


@pytest.mark.parametrize("block", blocks("toml"))
def test_every_configuration_example_loads(block: str, tmp_path: Path) -> None:
    """Each example of a configuration is one that the server accepts."""
    file = tmp_path / "sessiond.toml"
    file.write_text(block, encoding="utf-8")
    assert load_config(file).policies


def test_every_line_of_the_log_is_in_the_reference() -> None:
    """The reference of the log has each line that the server writes, except those for debugging."""
    rows = "\n".join(re.findall(r"^\|([^|]+)\|", (DOCS / "reference/log.md").read_text(encoding="utf-8"), re.MULTILINE))
    for file in sorted((ROOT / "sessiond").rglob("*.py")):
        for lines in _LOG_LINE.findall(file.read_text(encoding="utf-8")):
            assert f"`{''.join(lines)}`" in rows, (file, lines)


@pytest.mark.parametrize("block", blocks("sh"))
def test_every_command_exists(block: str) -> None:
    """Each command line of the server and of the operator's tool names a command and options that exist."""
    for program, line in _COMMAND.findall(block.replace("\\\n", "")):
        words = takewhile(lambda word: word[0] not in "<>|&", shlex.split(line, comments=True))
        # With --help nothing is carried out, but an unknown command or option is an error all the same.
        result = CliRunner().invoke(PROGRAMS[program], [*words, "--help"])
        assert result.exit_code == 0, f"{program} {line}\n{result.output}"
