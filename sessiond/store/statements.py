"""Named SQL statements, loaded once from `queries.sql`. Every engine binds parameters by name, in its own style."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from importlib.resources import files
from typing import Any

from sessiond.domain.immutable import immutable

__all__ = ["STATEMENTS", "ParameterStyle", "Statement", "Statements", "insertions", "load_statements"]

_HEADER = re.compile(r"^-- (?P<name>[a-z_]+)\n-- .+?\n(?P<sql>.+?;)\n", re.MULTILINE | re.DOTALL)
_VALUES = re.compile(r"VALUES (\([^()]*\))")
_MOST_KEYS = 500
_PARAMETER = re.compile(r"(?<!:):([a-z_]+)")  # does not match a cast, as in x::text


class ParameterStyle(StrEnum):
    """How an engine writes parameters: `?` for each one, or `$1`, `$2`, with the same number for the same name."""

    QUESTION_MARK = "?"
    NUMBERED = "$"


@immutable
class Statement:
    """One statement.

    template  the text in `queries.sql`
    style     how the engine writes parameters
    sql       the text with placeholders
    names     the names of the parameters that the engine expects, in their order
    """

    template: str
    style: ParameterStyle
    sql: str
    names: tuple[str, ...]

    def bind(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return the parameters in the order of the placeholders. Raise KeyError if one is missing."""
        return tuple([values[name] for name in self.names])

    def times(self, count: int) -> str:
        """Return the text of a single-row INSERT, extended to `count` rows. Each row has parameters of its own."""
        match = _VALUES.search(self.template)
        if match is None:
            raise ValueError("not an INSERT of a single row")
        names = iter(range(1, count * len(self.names) + 1))
        rows = [
            _PARAMETER.sub(lambda _: "?" if self.style is ParameterStyle.QUESTION_MARK else f"${next(names)}", match[1])
            for _ in range(count)
        ]
        return f"{self.template[: match.start(1)]}{', '.join(rows)}{self.template[match.end(1) :]}"

    def among(self, keys: Sequence[bytes]) -> list[tuple[Statement, tuple[Any, ...]]]:
        """Return the statements about the rows {among} keys, with the parameters of each; none if there are no keys.

        There are several if the engine takes each key as a parameter, because the number of parameters is limited.
        """
        if not keys:
            return []
        if self.style is ParameterStyle.NUMBERED:
            return [(self.fill(among="= ANY($1::bytea[])"), (keys,))]
        parts = [keys[start : start + _MOST_KEYS] for start in range(0, len(keys), _MOST_KEYS)]
        return [(self.fill(among=f"IN ({', '.join('?' * len(part))})"), tuple(part)) for part in parts]

    def fill(self, **texts: str) -> Statement:
        """Return the statement with its {braces} replaced. The texts must never come from a caller."""
        return _parse(self.template.format(**texts), self.style)


Statements = Mapping[str, Statement]
"""All statements by name."""


def insertions(statement: Statement, rows: Sequence[tuple[Any, ...]], most: int) -> list[tuple[str, tuple[Any, ...]]]:
    """Return the statements that insert these rows, at most `most` rows each, with the parameters of each.

    `most` is a power of two, and so is the number of rows of each statement, so that few statements are prepared.
    """
    made, start, size = [], 0, most
    while start < len(rows):
        if len(rows) - start < size:
            size //= 2
            continue
        flat = tuple([value for row in rows[start : start + size] for value in row])
        made.append((_times(statement, size), flat))
        start += size
    return made


@lru_cache(maxsize=256)
def _times(statement: Statement, count: int) -> str:
    return statement.times(count)


@lru_cache(maxsize=1024)
def _parse(template: str, style: ParameterStyle) -> Statement:
    names = _PARAMETER.findall(template)
    if style is ParameterStyle.QUESTION_MARK:
        return Statement(template, style, _PARAMETER.sub("?", template), tuple(names))
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names), 1)}
    return Statement(template, style, _PARAMETER.sub(lambda match: f"${numbers[match[1]]}", template), tuple(numbers))


def load_statements(
    style: ParameterStyle = ParameterStyle.QUESTION_MARK, package: str = "sessiond.store"
) -> Statements:
    """Read the statements of a package's `queries.sql`, and return them by name, in that style."""
    text = files(package).joinpath("queries.sql").read_text(encoding="utf-8")
    return {match["name"]: _parse(match["sql"].rstrip(";"), style) for match in _HEADER.finditer(text)}


STATEMENTS: Mapping[ParameterStyle, Statements] = {style: load_statements(style) for style in ParameterStyle}
"""All statements of each style, read at import."""
