"""Text that somebody else chose, on its way to a person."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str) -> str:
    r"""Text with every character that is not printable replaced by its escape: `\x1b`, `\x9b`, `\u202e`.

    A terminal acts on C0 and C1 controls; bidirectional overrides and invisible characters make text look like other
    text.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
