"""The terminal: its width, its colours and the current time; and text cut to a number of columns."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import click

from sessionctl.clock import now

__all__ = ["ELLIPSIS", "Screen", "clipped", "columns_of", "relative", "rfc3339", "screen", "wrapped"]

ELLIPSIS = "…"
_DEFAULT_WIDTH, _DEFAULT_HEIGHT = 80, 24
_UNITS = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))


@dataclass(frozen=True, slots=True)
class Screen:
    """Where a command writes its result. Pass one as the context's `obj` to replace the terminal."""

    width: int
    """In columns."""
    colours: bool
    now: Callable[[], datetime]
    """The current time, which relative times refer to."""
    terminal: bool = True
    """Whether it is a terminal. Text is wrapped for a terminal only: programs read lines."""
    height: int = _DEFAULT_HEIGHT
    """In lines."""


def screen() -> Screen:
    """The screen of the running command: the one that the caller passed as the context's `obj`, or the terminal."""
    context = click.get_current_context(silent=True)
    given = context.find_object(Screen) if context is not None else None
    terminal = sys.stdout.isatty()
    size = shutil.get_terminal_size((_DEFAULT_WIDTH, _DEFAULT_HEIGHT))
    return given or Screen(
        width=size.columns,
        colours=terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb",
        now=now,
        terminal=terminal,
        height=size.lines,
    )


def columns_of(text: str) -> int:
    """How many columns a terminal needs for printable text. East Asian characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(_columns_of_character(character) for character in text)


def _columns_of_character(character: str) -> int:
    import unicodedata  # here, since most texts are ASCII

    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def clipped(text: str, width: int, *, start: bool = False) -> str:
    """Text cut to at most `width` columns; an ellipsis marks the cut. `start`: cut the beginning instead of the end."""
    if columns_of(text) <= width:
        return text
    if width < 1:
        return ""
    kept: list[str] = []
    room = width - 1
    for character in reversed(text) if start else text:
        room -= _columns_of_character(character)
        if room < 0:
            break
        kept.append(character)
    return ELLIPSIS + "".join(reversed(kept)) if start else "".join(kept) + ELLIPSIS


def wrapped(text: str, width: int) -> list[str]:
    """The lines of a text, none wider than `width` columns. Words that are wider are broken."""
    lines = [""]
    for position, word in enumerate(text.split(" ")):
        longer = f"{lines[-1]} {word}" if position and lines[-1] else word
        if columns_of(longer) <= width:
            lines[-1] = longer
        else:
            pieces = _broken(word, width)
            lines = [*lines, *pieces] if lines[-1] else [*lines[:-1], *pieces]
    return lines


def _broken(word: str, width: int) -> list[str]:
    """The pieces of a word, each as long as fits."""
    pieces = []
    while word:
        count = _fitting(word, width)
        pieces.append(word[:count])
        word = word[count:]
    return pieces or [""]


def _fitting(text: str, width: int) -> int:
    """How many characters of a text fit into `width` columns, at least one."""
    room = width
    for count, character in enumerate(text):
        room -= _columns_of_character(character)
        if room < 0:
            return max(1, count)
    return len(text)


def relative(moment: datetime, current: datetime) -> str:
    """A time as its distance from the current one, rounded down to one unit: `3m ago`, `in 27m`, `now`.

    Hours that are left have minutes too, `in 7h59m`: `in 7h` would look wrong for a session that was just opened for 8.
    """
    distance = moment - current
    seconds = abs(distance) // timedelta(seconds=1)
    for unit, size in _UNITS:
        if seconds >= size:
            count, minutes = seconds // size, seconds % size // 60 if unit == "h" else 0
            more = f"{minutes}m" if minutes else ""
            return f"in {count}{unit}{more}" if distance > timedelta() else f"{count}{unit} ago"
    return "now"


def rfc3339(moment: datetime) -> str:
    """A time in UTC as RFC 3339 writes it, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
