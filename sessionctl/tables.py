"""Tables for people: a header, one row a line, never wider than the screen unless the output is `wide`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from sessionctl.output import printable, show
from sessionctl.screen import clipped, columns_of, screen
from sessionctl.settings import settings

__all__ = ["Cell", "Column", "Row", "Table", "show_table", "without_empty"]

Cell = tuple[str, str]
"""A text and its style."""
Row = Sequence[Cell]

_GAP = 2
_NARROWEST = 8
"""A text is cut to fewer columns than this only at the end of a line that does not fit."""
_SAMPLE = 500
"""So many rows decide the widths of a table, so that a long list can be shown while it is read."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    name: str
    cut: bool = False
    """Whether its texts may be cut."""
    cut_start: bool = False
    """Whether the beginning of a text is cut instead of its end."""
    least: int = 12
    """If its texts would have to be cut to fewer columns of the screen, columns with a rank are left out instead."""
    rank: int = 0
    """0: always shown. Others are shown if there is room for them; the highest rank is left out first."""
    typical: int = 0
    """The width in a table whose rows are not known beforehand."""
    typical_wide: int = 0
    """The same if the output is `wide`; 0: `typical`."""


class Table:
    """A table whose widths are decided; write the header first, then the rows."""

    def __init__(self, columns: Sequence[Column], widths: Sequence[int]) -> None:
        """`widths`: what each column needs to be shown uncut."""
        self._columns = columns
        limit = None if settings().wide else screen().width
        self._widths = dict(enumerate(widths)) if limit is None else _fitted(columns, widths, limit)
        self._limit = limit

    @staticmethod
    def for_rows(columns: Sequence[Column], rows: Sequence[Row]) -> Table:
        """A table for rows that are known, or that represent the others."""
        limit = None if settings().wide else screen().width
        widths = [
            max([columns_of(column.name), *(columns_of(_legible(row[index][0], column, limit)) for row in rows)])
            for index, column in enumerate(columns)
        ]
        empty = {index for index in range(len(columns)) if all(not row[index][0] for row in rows)}
        if settings().wide:
            return Table(columns, widths)
        # A column without any content only takes room from the others.
        return Table(
            columns, [0 if column.rank and index in empty else widths[index] for index, column in enumerate(columns)]
        )

    @staticmethod
    def for_stream(columns: Sequence[Column]) -> Table:
        """A table for rows that are not known yet."""
        wide = settings().wide
        typical = [(wide and column.typical_wide) or column.typical for column in columns]
        widths = [max(width, len(column.name)) for width, column in zip(typical, columns, strict=True)]
        # What is left of a broad screen goes to the columns that would be cut.
        spare = max(0, screen().width - sum(width + _GAP for width in widths))
        share = 0 if wide else spare // max(1, sum(column.cut for column in columns))
        return Table(columns, [width + share * column.cut for width, column in zip(widths, columns, strict=True)])

    def header(self) -> None:
        """Write the names of the columns."""
        show(*self.header_parts())

    def row(self, cells: Row) -> None:
        """Write one row."""
        show(*self.parts(cells))

    def header_parts(self) -> list[Cell]:
        """The names of the columns as the parts of a line, as `show` takes them."""
        return self.parts([(column.name, "dim") for column in self._columns])

    def parts(self, cells: Row) -> list[Cell]:
        """One row as the parts of a line."""
        parts: list[Cell] = []
        room = self._limit
        last = max(self._widths, default=0)
        for index, width in self._widths.items():
            text, style = cells[index]
            text = _legible(text, self._columns[index], self._limit)
            if room is not None:
                text = clipped(text, min(width, room), start=self._columns[index].cut_start)
                room -= width + _GAP
            padding = "" if index == last else " " * (max(0, width - columns_of(text)) + _GAP)
            parts += [(text, style), (padding, "")]
        while parts and not parts[-1][0].strip():
            parts.pop()
        return parts


def show_table(columns: Sequence[Column], rows: Iterable[Row]) -> int:
    """Write a table with its header, or nothing if there are no rows; returns the number of rows."""
    remaining = iter(rows)
    first = list(islice(remaining, _SAMPLE))
    if not first:
        return 0
    table = Table.for_rows(columns, first)
    table.header()
    count = 0
    for row in chain(first, remaining):
        table.row(row)
        count += 1
    return count


def without_empty(columns: Sequence[Column], rows: Sequence[Row], name: str) -> tuple[Sequence[Column], Sequence[Row]]:
    """The columns and rows without the column of that name, if no row has a text in it."""
    index = [column.name for column in columns].index(name)
    if any(row[index][0] for row in rows):
        return columns, rows
    return [*columns[:index], *columns[index + 1 :]], [[*row[:index], *row[index + 1 :]] for row in rows]


def _legible(text: str, column: Column, limit: int | None) -> str:
    """The printable form of a text, or of a part of it that takes more than `limit` columns of the screen.

    Texts may be as long as a value of session data, and a screen shows little of them.
    """
    if limit is None or len(text) <= limit:
        return printable(text)
    room = limit
    for count, character in enumerate(reversed(text) if column.cut_start else text, 1):
        room -= columns_of(printable(character))
        if room < 0:
            return printable(text[-count:] if column.cut_start else text[:count])
    return printable(text)  # characters that take no room


def _fitted(columns: Sequence[Column], widths: Sequence[int], limit: int) -> dict[int, int]:
    """The columns that are shown, by index, and the width of each, so that all of them fit into `limit`."""
    # One column that is as wide as the screen leaves no room for the others, however much wider it is.
    shown = {index: min(width, limit) for index, width in enumerate(widths) if width}

    def floor(index: int, least: int) -> int:
        return min(shown[index], max(least, len(columns[index].name))) if columns[index].cut else shown[index]

    def excess() -> int:
        return sum(width + _GAP for width in shown.values()) - _GAP - limit

    while sum(floor(index, columns[index].least) + _GAP for index in shown) - _GAP > limit:
        optional = [index for index in shown if columns[index].rank]
        if not optional:
            break
        del shown[max(optional, key=lambda index: columns[index].rank)]
    while excess() > 0:
        # If this is not enough, the screen is very narrow, and `Table.row` cuts the line at its end.
        flexible = [index for index in shown if shown[index] > floor(index, _NARROWEST)]
        if not flexible:
            break
        widest = max(flexible, key=lambda index: shown[index] - columns[index].least)
        shown[widest] -= 1
    return shown
