"""Somebody at the command line of `sessionctl`."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

from click.testing import CliRunner, Result

from sessionctl import main
from sessionctl.screen import Screen
from sessiond_client import AsyncClient, Created

__all__ = ["Operator"]

SCREEN = Screen(width=250, colours=False, now=lambda: datetime(2027, 1, 15, 8, 0, tzinfo=UTC))
"""A terminal with room for all columns, at the time that the tests' clocks start with."""


class Operator:
    """Runs commands, and remembers every token and everything that was shown."""

    def __init__(self, target: str, client: AsyncClient) -> None:
        self.target = target
        self.client = client
        self.tokens: list[str] = []
        self.shown = ""

    async def open(self, subject: str = "ada", **more: Any) -> Created:
        """A session, opened by the application."""
        created = await self.client.create(subject=subject, **more)
        self.tokens.append(created.token.reveal())
        return created

    async def type(self, *arguments: str, stdin: str | bytes = "") -> Result:
        """Run a command; standard input is not a terminal."""
        return await self.anywhere("--application", "shop", *arguments, stdin=stdin)

    async def anywhere(self, *arguments: str, stdin: str | bytes = "") -> Result:
        """Run a command without --application, unless it is among the arguments."""
        command = ["--target", self.target, *arguments]
        result = await asyncio.to_thread(CliRunner().invoke, main, command, input=stdin, obj=SCREEN)
        self.shown += result.output
        return result

    async def json(self, *arguments: str, stdin: str | bytes = "") -> list[dict[str, Any]]:
        """Run a command with --json; the objects, one a line."""
        result = await self.type(*arguments, "--json", stdin=stdin)
        assert result.stderr == ""
        return [json.loads(line) for line in result.stdout.splitlines()]
