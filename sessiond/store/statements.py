"""Named statements: loaded once from `queries.sql`, bound by name on every engine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from sessiond.domain.immutable import immutable

__all__ = ["STATEMENTS", "Statement", "load_statements"]

_HEADER = re.compile(r"^-- (?P<name>[a-z_]+)\n-- .+?\n(?P<sql>.+?;)\n", re.MULTILINE | re.DOTALL)
_VALUES = re.compile(r"VALUES \([^()]*\)")
_PARAMETER = re.compile(r"(?<!:):([a-z_]+)")  # not the casts of other engines: x::text


@immutable
class Statement:
    """One statement: its text with `?` placeholders, and the names of its parameters in their order.

    `template` is the text as `queries.sql` has it.
    """

    template: str
    sql: str
    names: tuple[str, ...]

    def bind(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """The parameters as the engine takes them. Raises KeyError where one is missing."""
        return tuple([values[name] for name in self.names])

    def times(self, count: int) -> str:
        """The text of an INSERT of one row, for so many rows."""
        return _VALUES.sub(lambda row: "VALUES " + ", ".join([row[0].removeprefix("VALUES ")] * count), self.sql)

    def fill(self, **texts: str) -> Statement:
        """The statement with its {braces} filled. The texts are the store's own, never a caller's."""
        return _parse(self.template.format(**texts))


def _parse(template: str) -> Statement:
    return Statement(template, _PARAMETER.sub("?", template), tuple(_PARAMETER.findall(template)))


def load_statements() -> Mapping[str, Statement]:
    """All statements by name."""
    text = files("sessiond.store").joinpath("queries.sql").read_text(encoding="utf-8")
    return {match["name"]: _parse(match["sql"].rstrip(";")) for match in _HEADER.finditer(text)}


STATEMENTS = load_statements()
"""All statements by name, read once."""
