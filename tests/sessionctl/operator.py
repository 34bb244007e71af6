"""Somebody at the command line of `sessionctl`."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from click.testing import CliRunner, Result

from sessionctl import main
from sessiond_client import AsyncClient, Created

__all__ = ["Operator"]


class Operator:
    """Somebody at the command line, who remembers every token and everything that was shown."""

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

    async def type(self, *arguments: str, stdin: str = "") -> Result:
        """Run a command; standard input is no terminal."""
        return await self.anywhere("--application", "shop", *arguments, stdin=stdin)

    async def anywhere(self, *arguments: str, stdin: str = "") -> Result:
        """Run a command that names no application unless it says so itself."""
        command = ["--target", self.target, *arguments]
        result = await asyncio.to_thread(CliRunner().invoke, main, command, input=stdin)
        self.shown += result.output
        return result

    async def json(self, *arguments: str, stdin: str = "") -> list[dict[str, Any]]:
        """Run a command with --json; the objects, one a line."""
        result = await self.type(*arguments, "--json", stdin=stdin)
        assert result.stderr == ""
        return [json.loads(line) for line in result.stdout.splitlines()]
