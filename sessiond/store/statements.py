"""Named SQL statements, loaded once from `queries.sql`. Every engine binds their parameters by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from sessiond.domain.immutable import immutable

__all__ = ["STATEMENTS", "Statement", "load_statements"]

_HEADER = re.compile(r"^-- (?P<name>[a-z_]+)\n-- .+?\n(?P<sql>.+?;)\n", re.MULTILINE | re.DOTALL)
_VALUES = re.compile(r"VALUES \([^()]*\)")
_PARAMETER = re.compile(r"(?<!:):([a-z_]+)")  # does not match a cast, as in x::text


@immutable
class Statement:
    """One statement.

    template  the text in `queries.sql`
    sql       the text with `?` placeholders
    names     the parameters' names, in the order of the placeholders
    """

    template: str
    sql: str
    names: tuple[str, ...]

    def bind(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return the parameters in the order of the placeholders. Raise KeyError if one is missing."""
        return tuple([values[name] for name in self.names])

    def times(self, count: int) -> str:
        """Return the text of a single-row INSERT, extended to `count` rows."""
        return _VALUES.sub(lambda row: "VALUES " + ", ".join([row[0].removeprefix("VALUES ")] * count), self.sql)

    def fill(self, **texts: str) -> Statement:
        """Return the statement with its {braces} replaced. The texts must never come from a caller."""
        return _parse(self.template.format(**texts))


def _parse(template: str) -> Statement:
    return Statement(template, _PARAMETER.sub("?", template), tuple(_PARAMETER.findall(template)))


def load_statements() -> Mapping[str, Statement]:
    """Read all statements and return them by name."""
    text = files("sessiond.store").joinpath("queries.sql").read_text(encoding="utf-8")
    return {match["name"]: _parse(match["sql"].rstrip(";")) for match in _HEADER.finditer(text)}


STATEMENTS = load_statements()
"""All statements by name, read at import."""
