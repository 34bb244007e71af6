"""The READMEs do what they say."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sessiond.app import App
from sessiond_client import Verdict
from tests.support.clock import ManualClock
from tests.support.server import config_for, serving

ROOT = Path(__file__).parents[2]
README = ROOT / "clients" / "python" / "README.md"


def blocks(readme: Path) -> list[str]:
    """The Python examples of a page."""
    return re.findall(r"```python\n(.*?)```", readme.read_text(encoding="utf-8"), re.DOTALL)


BLOCKS = blocks(README)
(FIXTURE,) = (block for block in BLOCKS if "@pytest.fixture" in block)
(LIMIT,) = (block for block in BLOCKS if "except ConcurrencyLimitReached" in block)


async def run(address: str, *examples: str) -> dict[str, Any]:
    """Run examples one after the other, in one namespace, against an authority. Returns their names."""
    names: dict[str, Any] = {}
    for example in examples:
        code = compile(example.replace("127.0.0.1:7443", address), str(README), "exec")
        await asyncio.to_thread(exec, code, names)
    return names


@pytest.mark.parametrize("block", [*BLOCKS, *blocks(ROOT / "README.md")], ids=lambda block: block.split("\n")[0][:40])
def test_every_example_is_python(block: str) -> None:
    """Each example can be compiled."""
    assert compile(block, str(README), "exec")


async def test_the_first_example_of_the_project_runs(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    """The project's first example, against a real authority: it ends when it sees the end of its own session."""
    example = blocks(ROOT / "README.md")[0].replace("127.0.0.1:7443", app.address)
    names: dict[str, Any] = {}
    await asyncio.to_thread(exec, compile(example, "README.md", "exec"), names)
    assert names["login"].token.reveal()
    assert names["event"].subject == "alice"
    assert names["login"].token.reveal() not in capsys.readouterr().out


async def test_the_first_example_runs(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    """The client's first example, against a real authority: a guest's cart survives the login."""
    names = await run(app.address, BLOCKS[0])
    assert (names["login"].verdict, names["login"].created) == (Verdict.VALID, False)
    assert capsys.readouterr().out == "alice ['teapot']\n"


async def test_every_example_runs(app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's examples run one after the other, as a reader would try them, and each has the effect it shows."""
    monkeypatch.chdir(tmp_path)
    names = await run(app.address, *(block for block in BLOCKS if block is not FIXTURE))
    assert (names["name"], names["guest_name"]) == ("__Host-id", "__Host-id")
    assert names["cart"] == ["teapot", "cup"]
    assert sorted(names["updated"].data.values) == ["cart"]
    assert (tmp_path / "cursor").read_text() == names["event"].cursor
    await asyncio.to_thread(names["authority"].close)


async def test_the_example_of_a_limit_ends_what_was_chosen(tmp_path: Path, clock: ManualClock) -> None:
    """With the policy `ask`, the example ends one of the subject's sessions and logs in."""
    text = '[applications.default]\nmax_sessions = 1\non_limit = "ask"\n'
    async with serving(config_for(tmp_path, text), clock) as app:
        imports = "from sessiond_client import Authentication, Client, ClientContext, ConcurrencyLimitReached"
        names = await run(app.address, imports, BLOCKS[1], "first = authority.create(subject='alice')", LIMIT)
        assert names["created"].evicted_session_ids == (names["first"].session.session_id,)
        await asyncio.to_thread(names["authority"].close)


def test_the_fixture_for_applications_works(tmp_path: Path) -> None:
    """The pytest fixture that the page recommends starts an authority and ends it."""
    (tmp_path / "conftest.py").write_text(FIXTURE)
    lines = (
        "from sessiond_client import Client",
        "def test(authority):",
        "    token = authority.create(subject='ada').token",
        "    assert Client.from_environment().validate(token).valid",
    )
    (tmp_path / "test_application.py").write_text("\n".join(lines))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
