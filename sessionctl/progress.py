"""How far long work is, shown on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from sessionctl.settings import settings

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar

__all__ = ["Progress", "bytes_of", "rows_of"]


def rows_of(done: int, total: int) -> str:
    """How many rows are done, in words."""
    return f"{done} of {total} rows"


def bytes_of(done: int, total: int) -> str:
    """How many bytes are done, in words."""
    return f"{done / 1e6:,.1f} of {total / 1e6:,.1f} MB"


class Progress:
    """Shows the progress of work: a bar on a terminal, otherwise some lines; nothing if a program asks for JSON.

    `amount` puts how much is done, and the total, in words.
    """

    def __init__(self, amount: Callable[[int, int], str] = rows_of) -> None:
        self.began = False
        self._amount = amount
        self._last: tuple[str, str, int] = ("", "", 0)
        self._bar: ProgressBar[int] | None = None
        self._done = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def show(self, stage: str, done: int, total: int, what: str = "") -> None:
        """Show how far a stage of the work is. `what` it is about now, such as the name of a table."""
        self.began = True
        if sys.stderr.isatty():
            self._draw(stage, done, total)
        elif not settings().json:
            self._write(stage, done, total, what)

    def close(self) -> None:
        """End the line of the bar."""
        if self._bar is not None:
            self._bar.render_finish()
            self._bar = None

    def _draw(self, stage: str, done: int, total: int) -> None:
        if self._bar is None or stage != self._last[0]:
            self.close()
            self._bar = click.progressbar(
                length=total, label=f"{stage:<9}", show_pos=self._amount is rows_of, file=sys.stderr
            )
            self._done = 0
        self._last = (stage, "", 0)
        self._bar.update(done - self._done)
        self._done = done

    def _write(self, stage: str, done: int, total: int, what: str) -> None:
        """Write a line for each thing that the work is about, and for each tenth of all of it."""
        line = (str(stage), what, 10 * done // max(1, total))
        if (what or self._amount is not rows_of) and line != self._last:
            click.echo(f"{stage}{f' {what}' if what else ''}: {self._amount(done, total)}", err=True)
        self._last = line
