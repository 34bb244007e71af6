"""The line of each key in a TOML text, which `tomllib` does not report."""

from __future__ import annotations

import re
import tomllib
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["KeyPath", "line_index", "nearest_line"]

KeyPath = tuple[str, ...]

# Multi-line strings come first: otherwise three quotes would be read as an empty string and one quote.
_TOKEN = re.compile(
    r"""
    [ \t\r]+ | \#[^\n]*                                        # skipped
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
    """Return the line of every table and key of a TOML text, those of inline tables included.

    The text must be valid TOML. The path of an element of an array, or of an array of tables, ends in its index.
    """
    tokens = _tokens(text)
    lines: dict[KeyPath, int] = {}
    elements: dict[KeyPath, int] = {}
    table: KeyPath = ()
    while tokens:
        if tokens[0].text == "\n":
            tokens.popleft()
        elif tokens[0].text == "[":
            line = tokens[0].line
            table = _header(tokens, elements)
            _note(lines, table, line)
        else:
            _pair(tokens, table, lines)
    return lines


def nearest_line(lines: Mapping[KeyPath, int], path: KeyPath) -> int:
    """Return the line of a key; if it is not in the text, that of the table that it belongs to; else 1."""
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
    # A table that was only implied (`[a.b]` before `[a]`) gets the line of its own header.
    lines[path] = line
    for length in range(1, len(path)):
        lines.setdefault(path[:length], line)


def _header(tokens: deque[_Token], elements: dict[KeyPath, int]) -> KeyPath:
    """Return the path of the table that a header begins. `elements` counts the tables of each array so far."""
    tokens.popleft()
    is_element = tokens[0].text == "["
    if is_element:
        tokens.popleft()
    *outer, last = _key(tokens, "]")
    if is_element:
        tokens.popleft()
    path: KeyPath = ()
    for part in outer:
        path = (*path, part)
        if path in elements:  # a header below an array of tables belongs to the array's last element
            path = (*path, str(elements[path] - 1))
    path = (*path, last)
    if is_element:
        elements[path] = elements.get(path, 0) + 1
        path = (*path, str(elements[path] - 1))
    return path


def _key(tokens: deque[_Token], end: str) -> KeyPath:
    """Take the tokens of a key and the mark that ends it; return the parts of the key."""
    parts = []
    while (part := tokens.popleft().text) != end:
        if part[0] in "\"'":
            parts.append(tomllib.loads(f"key = {part}")["key"])
        elif part != ".":
            parts.append(part)
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
            tokens.popleft()
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
