"""Making untrusted text safe to show to a person."""

from __future__ import annotations

__all__ = ["printable"]


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
