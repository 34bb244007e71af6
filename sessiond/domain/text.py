"""Making untrusted text safe to show to a person."""

from __future__ import annotations

import re

__all__ = ["looks_like_token", "printable", "without_tokens"]

_LONGEST = 200
_RUN = re.compile(r"[A-Za-z0-9_-]{60,}")  # a token has 70 such characters, an id 36, a cursor about 40
_NOT_IN_A_HASH = re.compile(r"[G-Zg-z]")  # of 70 random characters, at least one is among these
_HIDDEN = "(looks like a token)"


def printable(text: str) -> str:
    r"""Return the text with every non-printable character replaced by its escape: `\x1b`, `\x9b`, `\u202e`.

    Terminals execute C0 and C1 control characters. Bidirectional overrides and invisible characters can make a text
    look like a different one.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def looks_like_token(text: str) -> bool:
    """Return whether the text contains something that may be a token.

    That is a run of 60 to 200 letters, digits, `-` and `_`. Hexadecimal numbers and UUIDs are not tokens, even several
    in a row.
    """
    return any(_may_be_token(run[0]) for run in _RUN.finditer(text))


def without_tokens(text: str) -> str:
    """Return the text with everything that may be a token replaced by `(looks like a token)`."""
    return _RUN.sub(lambda run: _HIDDEN if _may_be_token(run[0]) else run[0], text)


def _may_be_token(run: str) -> bool:
    return len(run) <= _LONGEST and _NOT_IN_A_HASH.search(run) is not None
