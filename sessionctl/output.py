"""What commands write: JSON for machines, coloured lines for people.

Every text that comes from elsewhere passes `printable` before it reaches a terminal: a subject, a reason or a user
agent may contain escape sequences meant for an operator's terminal. JSON is read on terminals too, so it escapes the
same characters in its own notation.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import click

from sessionctl.screen import clipped, columns_of, relative, rfc3339, screen, wrapped
from sessionctl.settings import settings
from sessiond.domain.text import printable

__all__ = [
    "as_command",
    "as_json",
    "fitted",
    "plain",
    "printable",
    "show",
    "show_facts",
    "show_note",
    "styled",
    "when",
]

_NARROWEST = 20
"""If values had fewer columns of the screen beside their names, they begin on the next line."""
_FACT_NAMES = 18
"""The width of the names of facts, so that several lists of facts align."""


# For machines


def plain(value: Any) -> Any:
    """A value of the client in the types of JSON. A token becomes null; only an explicit argument shows one."""
    from base64 import b64encode

    from sessiond_client import Token  # these imports are here so that commands start quickly

    match value:
        case Token():
            return None
        case datetime():
            return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        case timedelta():
            return value.total_seconds()
        case bytes():
            return b64encode(value).decode("ascii")
        case str():
            return str(value)
        case Mapping():
            return {key: plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case _ if dataclasses.is_dataclass(value):
            return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        case _:
            return value


def as_json(value: Any, **more: Any) -> None:
    """Write one JSON object as one line."""
    import json

    document = plain(value) | {key: plain(item) for key, item in more.items()}
    text = _escaped(json.dumps(document, ensure_ascii=False))
    click.echo(text if _encodable(text) == text else json.dumps(document))


def _escaped(document: str) -> str:
    r"""The same JSON with every character that is not printable as `\uXXXX`, so that a terminal interprets none."""
    if document.isprintable():
        return document
    import json

    # Only strings can contain such characters. JSON itself requires escapes for U+0000 to U+001F only.
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in document)


# For people


def when(moment: datetime | None) -> str:
    """A moment relative to the current time (`3m ago`), or as RFC 3339 if the output is `wide`; None is `never`."""
    if moment is None:
        return "never"
    return rfc3339(moment) if settings().wide else relative(moment, screen().now())


def show(*parts: str | tuple[str, str]) -> None:
    """Write a line. A part may be a pair of text and style, such as `bold red`.

    Colours go to terminals only, and not if NO_COLOR is set.
    """
    click.echo(styled(*parts), color=screen().colours)


def styled(*parts: str | tuple[str, str]) -> str:
    """The line that `show` writes, with the codes of its colours."""
    colours = screen().colours
    texts = [part if isinstance(part, str) else _styled(*part) if colours else part[0] for part in parts]
    return _encodable("".join(texts))


def _encodable(text: str) -> str:
    """The text with escapes for the characters that the encoding of standard output does not have."""
    encoding = sys.stdout.encoding
    return text if text.isascii() else text.encode(encoding, "backslashreplace").decode(encoding)


def show_note(text: str) -> None:
    """Write a line for people to standard error, such as that nothing was found; nothing if the output is JSON."""
    if not settings().json:
        click.echo(text, err=True)


def as_command(*arguments: str) -> str:
    """A command line that a shell splits into these arguments. It is printable, whatever they contain."""
    return " ".join(map(_quoted, arguments))


def _quoted(argument: str) -> str:
    import shlex

    if argument.isprintable():
        return shlex.quote(argument)
    plain = (
        c if c.isprintable() and c not in "\\'" else "".join(f"\\{byte:03o}" for byte in c.encode()) for c in argument
    )
    return f"$'{''.join(plain)}'"


def fitted(text: str, used: int = 0) -> str:
    """A text cut to the width of the screen, less the columns that are used, unless the output is `wide`."""
    return text if settings().wide else clipped(text, max(0, screen().width - used))


def show_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Write names and values, one pair a line. Values are wrapped on a terminal, unless the output is `wide`."""
    listed = list(facts)
    width = max([_FACT_NAMES, *(columns_of(name) for name, _ in listed)])
    for name, value in listed:
        if settings().wide or not screen().terminal:
            show((f"{name:<{width}}  ", "dim"), printable(value))
            continue
        is_beside = screen().width >= width + 2 + _NARROWEST
        indent = width + 2 if is_beside else min(2, screen().width - 1)
        first, *rest = wrapped(printable(value), screen().width - indent)
        if is_beside:
            show((f"{name:<{width}}  ", "dim"), first)
        else:
            show((fitted(name), "dim"))
            rest.insert(0, first)
        for line in rest:
            show(" " * indent + line)


def _styled(text: str, style: str) -> str:
    words = style.split()
    colour = next((word for word in words if word not in ("bold", "dim")), None)
    return click.style(text, fg=colour, bold="bold" in words or None, dim="dim" in words or None) if words else text
