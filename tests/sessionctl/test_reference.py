"""docs/reference/sessionctl.md has every command, option and exit code."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from sessionctl import main
from sessionctl.exits import Exit
from sessionctl.settings import GLOBAL_OPTIONS
from tests.sessionctl.test_screens import commands

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "sessionctl.md").read_text(encoding="utf-8")
SECTIONS: dict[str, str] = dict(re.findall(r"^###? ([^\n]+)\n(.*?)(?=^###? |\Z)", PAGE, re.DOTALL | re.MULTILINE))
"""The text of each section, by its title."""


def found(path: tuple[str, ...]) -> click.Command:
    """A command by its path."""
    command: click.Command | None = main
    for name in path:
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), name)
    assert command is not None
    return command


def options(command: click.Command, *, shared: bool) -> set[str]:
    """The names of a command's options: its own, or those that it shares with the others."""
    return {
        name
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.hidden
        if (parameter.name in (*GLOBAL_OPTIONS, "version")) is shared
        for name in parameter.opts
    }


@pytest.mark.parametrize("path", list(commands(main)), ids=" ".join)
def test_every_command_is_described(path: tuple[str, ...]) -> None:
    """The section of a command has its subcommands and its own options, and no options that do not exist."""
    text = SECTIONS[path[0]]
    assert path[-1] in f"{path[0]} {text}"
    missing = {name for name in options(found(path), shared=False) if f"`{name}" not in text}
    assert missing == set()
    relatives = [found(other) for other in commands(main) if other[0] == path[0]]
    known = {name for command in relatives for kind in (True, False) for name in options(command, shared=kind)}
    assert set(re.findall(r"^\| `(--[a-z-]+)", text, re.MULTILINE)) <= known


def test_every_global_option_is_described() -> None:
    """The section about global options has all of them."""
    assert {name for name in options(main, shared=True) if f"`{name}" not in SECTIONS["Global options"]} == set()


def test_every_exit_code_is_described() -> None:
    """The page and `sessionctl --help` have all exit codes and no others."""
    codes = {str(code.value) for code in Exit}
    assert set(re.findall(r"^\| (\d+) \|", SECTIONS["Exit codes"], re.MULTILINE)) == codes
    assert set(re.findall(r"^ *(\d+) ", main.help or "", re.MULTILINE)) == codes
