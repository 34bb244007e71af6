"""On which line of a TOML text each key stands: the parser does not tell."""

from __future__ import annotations

import re
import tomllib
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["KeyPath", "line_index", "nearest_line"]

KeyPath = tuple[str, ...]

# Long strings before short ones, so that three quotes are not taken for an empty string and one quote.
_TOKEN = re.compile(
    r"""
    [ \t\r]+ | \#[^\n]*                                        # nothing
    | (?P<text>\"{3}(?:\\.|[^\\])*?\"{3,5}(?!\") | '{3}.*?'{3,5}(?!')
        | "(?:\\.|[^"\\\n])*" | '[^'\n]*')                     # strings
    | (?P<mark>[\[\]{},=.\n])
    | (?P<bare>[^\s\[\]{},=.\#"']+)
    """,
    re.VERBOSE | re.DOTALL,
)
_ENDS_SCALAR = ("\n", ",", "]", "}")


class _Token(NamedTuple):
    text: str
    line: int


def line_index(text: str) -> Mapping[KeyPath, int]:
    """The line of every table and key of a TOML text that has been parsed already, inline ones included.

    The elements of an array stand under their number.
    """
    tokens = _tokens(text)
    lines: dict[KeyPath, int] = {}
    table: KeyPath = ()
    while tokens:
        if tokens[0].text == "\n":
            tokens.popleft()
        elif tokens[0].text == "[":
            line = tokens.popleft().line
            table = _key(tokens, "]")
            _note(lines, table, line)
        else:
            _pair(tokens, table, lines)
    return lines


def nearest_line(lines: Mapping[KeyPath, int], path: KeyPath) -> int:
    """The line of a key, else of the table that it would stand in, else the first."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return 1


def _tokens(text: str) -> deque[_Token]:
    found: deque[_Token] = deque()
    line = 1
    for match in _TOKEN.finditer(text):
        if match.lastgroup is not None:
            found.append(_Token(match[0], line))
        line += match[0].count("\n")
    return found


def _note(lines: dict[KeyPath, int], path: KeyPath, line: int) -> None:
    # A table that was only implied so far (`[a.b]` before `[a]`) stands where it is named itself.
    lines[path] = line
    for length in range(1, len(path)):
        lines.setdefault(path[:length], line)


def _key(tokens: deque[_Token], end: str) -> KeyPath:
    """The parts of a key up to the mark that ends it, which is taken too. `[[` and `]]` count as one."""
    parts = []
    while (token := tokens.popleft().text) != end:
        if token[0] in "\"'":
            parts.append(tomllib.loads(f"key = {token}")["key"])
        elif token not in (".", "["):
            parts.append(token)
    if end == "]" and tokens and tokens[0].text == "]":
        tokens.popleft()
    return tuple(parts)


def _pair(tokens: deque[_Token], table: KeyPath, lines: dict[KeyPath, int]) -> None:
    line = tokens[0].line
    path = table + _key(tokens, "=")
    _note(lines, path, line)
    _value(tokens, path, lines)


def _value(tokens: deque[_Token], path: KeyPath, lines: dict[KeyPath, int]) -> None:
    match tokens[0].text:
        case "{":
            _members(tokens, path, lines)
        case "[":
            _elements(tokens, path, lines)
        case _:
            while tokens and tokens[0].text not in _ENDS_SCALAR:
                tokens.popleft()


def _members(tokens: deque[_Token], path: KeyPath, lines: dict[KeyPath, int]) -> None:
    tokens.popleft()
    while tokens[0].text != "}":
        if tokens[0].text in (",", "\n"):
            tokens.popleft()
        else:
            _pair(tokens, path, lines)
    tokens.popleft()


def _elements(tokens: deque[_Token], path: KeyPath, lines: dict[KeyPath, int]) -> None:
    tokens.popleft()
    number = 0
    while tokens[0].text != "]":
        if tokens[0].text in (",", "\n"):
            number += tokens.popleft().text == ","
        else:
            element = (*path, str(number))
            lines[element] = tokens[0].line
            _value(tokens, element, lines)
    tokens.popleft()
