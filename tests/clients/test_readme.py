"""The client's README does what it says."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from sessiond.app import App
from sessiond_client import Verdict

README = Path(__file__).parents[2] / "clients" / "python" / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_every_example_is_python(block: str) -> None:
    """Each example can be compiled."""
    assert compile(block, str(README), "exec")


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
