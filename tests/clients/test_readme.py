"""The READMEs do what they say."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from sessiond.app import App
from sessiond_client import Verdict

ROOT = Path(__file__).parents[2]
README = ROOT / "clients" / "python" / "README.md"


def blocks(readme: Path) -> list[str]:
    """The Python examples of a page."""
    return re.findall(r"```python\n(.*?)```", readme.read_text(encoding="utf-8"), re.DOTALL)


BLOCKS = blocks(README)


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


async def test_the_first_example_runs(app: App) -> None:
    """The first example, against a real authority: a cart survives the login, and the logout ends the session."""
    example = BLOCKS[0].replace("127.0.0.1:7443", app.address)
    assert example != BLOCKS[0]
    names: dict[str, Any] = {}
    await asyncio.to_thread(exec, compile(example, str(README), "exec"), names)
    assert names["cart"] == ["teapot"]
    assert (names["login"].verdict, names["login"].created) == (Verdict.VALID, False)
    assert names["answer"].valid
    assert [session.subject for session in names["devices"]] == ["alice"]
