"""The line index of TOML texts, compared with generated documents whose lines are known, and with `tomllib`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sessiond.config.lines import KeyPath, line_index
from tests.support.fuzz import bounded, damaged_text

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_KEYS = st.sampled_from(["a", "b-c", "1", "true", "", "a.b", "[x]", "#", "=", "k'", 'k"', "\\", "\t", "\0\n", "é"])
# Within a string these are not structure, and some of them look like the end of the string.
_LOOKALIKES = ["", "x", "#", "[t]", "[[t]]", "k = 1", "{", "}", "]", ",", ".", "=", "é", "\u2028", "\x85", "\ufeff"]
_ESCAPES = ['\\"', "\\\\", "\\n", "\\u0000", "\\U0001F600"]
_ONE_LINE = st.lists(st.sampled_from(_LOOKALIKES), max_size=4).map("".join)
_BASIC = st.lists(st.sampled_from([*_LOOKALIKES, *_ESCAPES, "'", "'''"]), max_size=4).map("".join)
_LONG_BASIC = st.lists(
    st.sampled_from([*_LOOKALIKES, *_ESCAPES, "'", '"a', '""a', "\n", "\n[t]\n", "\nk = 1\n", "\\\n  ", "\\  \n"]),
    max_size=5,
).map("".join)
_LONG_LITERAL = st.lists(
    st.sampled_from([*_LOOKALIKES, '"', '"""', "'a", "''a", "\n", "\n[t]\n", "\\"]), max_size=5
).map("".join)
_SCALARS = st.one_of(
    st.sampled_from(["1", "-0", "1_000", "0xFF", "1.5", "6.26e-3", "inf", "-nan", "true", "false"]),
    st.sampled_from(["1979-05-27", "07:32:00.5", "1979-05-27T07:32:00Z", "1979-05-27 07:32:00.25-07:00"]),
    _BASIC.map('"{}"'.format),
    _ONE_LINE.map("'{}'".format),
    st.builds('"""{}{}"""'.format, _LONG_BASIC, st.sampled_from(["", '"', '""'])),
    st.builds("'''{}{}'''".format, _LONG_LITERAL, st.sampled_from(["", "'", "''"])),
)
_SPACE = st.sampled_from(["", " ", "\t ", ""])
# Line breaks and comments are allowed between the elements of an array.
_ARRAY_SPACE = st.sampled_from(["", " ", "\n", " \n\t", "# ], '\n", ' #"""\n\n'])
_LINE_END = st.sampled_from(["\n", "\n", "  \n", "# [t]\n", " # k = '''\n", "\n\n", "\n \t\n# k = 1\n"])


class Document:
    """A generated TOML document and the line of each of its keys."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        self.text = draw(st.sampled_from(["", "\n", "# k = 1\n", "\n\n"]))
        self.lines: dict[KeyPath, int] = {}
        self._table((), (), depth=0)
        if draw(st.booleans()):
            self.text = self.text.replace("\n", "\r\n")

    def __repr__(self) -> str:
        return f"<{self.text!r}>"

    def _keys(self, most: int) -> list[str]:
        return self._draw(st.lists(_KEYS, max_size=most, unique=True))

    def _write(self, *parts: str) -> None:
        self.text += "".join(parts)

    def _note(self, path: KeyPath) -> None:
        line = self.text.count("\n") + 1
        for length in range(1, len(path)):
            self.lines.setdefault(path[:length], line)
        self.lines[path] = line

    def _spelled(self, key: str) -> str:
        spellings = ['"' + "".join(_escaped(character) for character in key) + '"']
        if _BARE.fullmatch(key):
            spellings.append(key)
        if not re.search(r"['\0\n]", key):
            spellings.append(f"'{key}'")
        return self._draw(st.sampled_from(spellings))

    def _dotted(self, keys: KeyPath) -> str:
        dot = self._draw(st.sampled_from([".", " . ", "\t."]))
        return dot.join(map(self._spelled, keys))

    def _table(self, header: KeyPath, path: KeyPath, depth: int, *, is_element: bool = False) -> None:
        """Write a table's pairs and the tables in it. `header` is its name in the document, `path` in the result."""
        draw = self._draw
        kinds = {name: draw(st.integers(0, 3 if depth < 2 else 1)) for name in self._keys(4)}
        pairs = [name for name, kind in kinds.items() if kind < 2]
        has_tables = len(pairs) < len(kinds)
        # Its header may follow the tables in it, or be left out if it has no pairs. That of an array's element may not.
        is_late = has_tables and not is_element and draw(st.booleans())
        has_header = bool(header) and not is_element and (bool(pairs) or not has_tables or draw(st.booleans()))
        for writes_pairs in [False, True] if is_late and header else [True, False]:
            if writes_pairs and has_header:
                self._header(header, path, "[", "]")
            for name, kind in kinds.items():
                if writes_pairs and kind < 2:
                    self._statements(path, name, is_dotted=kind == 1)
                elif not writes_pairs and kind == 2:
                    self._table((*header, name), (*path, name), depth + 1)
                elif not writes_pairs and kind == 3:
                    self._array_of_tables((*header, name), (*path, name), depth + 1)

    def _array_of_tables(self, header: KeyPath, path: KeyPath, depth: int) -> None:
        for number in range(self._draw(st.integers(1, 3))):
            element = (*path, str(number))
            self._header(header, element, "[[", "]]")
            self._table(header, element, depth, is_element=True)

    def _statements(self, table: KeyPath, name: str, *, is_dotted: bool) -> None:
        keys = [(name, *self._keys(1), last) for last in self._keys(2)] if is_dotted else []
        # Two of these may not name the same key, one of them a value and the other a table.
        if len({key[:2] for key in keys}) < len(keys) or len({len(key) for key in keys}) > 1:
            keys = keys[:1]
        for key in keys or [(name,)]:
            self._write(self._draw(_SPACE))
            self._pair(table, key, depth=0)
            self._write(self._draw(_LINE_END))

    def _header(self, header: KeyPath, path: KeyPath, begin: str, end: str) -> None:
        self._write(self._draw(_SPACE))
        self._note(path)
        space = self._draw(_SPACE)
        self._write(begin, space, self._dotted(header), space, end, self._draw(_LINE_END))

    def _pair(self, table: KeyPath, keys: KeyPath, depth: int) -> None:
        path = table + keys
        self._note(path)
        self._write(self._dotted(keys), self._draw(_SPACE), "=", self._draw(_SPACE))
        self._value(path, depth)

    def _value(self, path: KeyPath, depth: int) -> None:
        kind = self._draw(st.integers(0, 4)) if depth < 3 else 0
        if kind < 3:
            self._write(self._draw(_SCALARS))
        elif kind == 3:
            self._array(path, depth + 1)
        else:
            self._inline_table(path, depth + 1)

    def _array(self, path: KeyPath, depth: int) -> None:
        self._write("[")
        count = self._draw(st.integers(0, 3))
        for number in range(count):
            self._write(self._draw(_ARRAY_SPACE))
            self._note((*path, str(number)))
            self._value((*path, str(number)), depth)
            self._write(self._draw(_ARRAY_SPACE))
            if number < count - 1 or self._draw(st.booleans()):
                self._write(",")
        self._write(self._draw(_ARRAY_SPACE), "]")

    def _inline_table(self, path: KeyPath, depth: int) -> None:
        self._write("{")
        for number, key in enumerate(self._keys(3)):
            self._write("," if number else "", self._draw(_SPACE))
            self._pair(path, (key, *self._keys(1)), depth)
            self._write(self._draw(_SPACE))
        self._write("}")


def _escaped(character: str) -> str:
    return f"\\u{ord(character):04x}" if character in '"\\\0\n' else character


documents = st.composite(Document)()


def paths_of(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield every key path of a parsed document; the path of an array's element ends in its index."""
    if isinstance(value, list):
        value = {str(number): one for number, one in enumerate(value)}
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield (*path, key)
        yield from paths_of(inner, (*path, key))


@bounded(200)
@given(documents)
def test_each_key_has_its_line(document: Document) -> None:
    """The index has the right line for every key of a document, whatever is around it."""
    assert set(paths_of(tomllib.loads(document.text))) == set(document.lines)
    assert line_index(document.text) == document.lines


_FRAGMENTS = ["a", "b", "1", "0.5", " ", "\n", "\r\n", "=", " = ", ".", ",", "[", "]", "[[", "]]", "{", "}", "#", "\\"]
_FRAGMENTS += ["'", '"', "'''", '"""', "\\\n", "\n[a]\n", "\n[[a]]\n", "\na = 1\n", "\nb = [", "\nb = {", "true", "\t"]
_PIECES = st.lists(st.sampled_from(_FRAGMENTS), max_size=12).map("".join)


@bounded(600)
@given(
    damaged_text(documents.map(lambda document: document.text), "ab1.,=[]{}#'\"\\ \n\t")
    | _PIECES
    | st.builds("k = {}\n".format, _PIECES)
)
def test_any_toml(text: str) -> None:
    """For any text that `tomllib` accepts, the index has every key path and no others."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    assert set(line_index(text)) == set(paths_of(document))
