"""Text that somebody else chose."""

from __future__ import annotations

import sys

import pytest

from sessiond.domain.text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ada", "ada"),
        ("Zoë 株式会社 🐧", "Zoë 株式会社 🐧"),
        ("\x1b[2J", r"\x1b[2J"),
        ("a\nb\tc\x7f", r"a\nb\tc\x7f"),
        ("\x9b2J", r"\x9b2J"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\u2066\u200b\u2028", r"\u2066\u200b\u2028"),
        ("\U000e0041", r"\U000e0041"),
        ("\ud800", r"\ud800"),
    ],
)
def test_what_is_not_printable_is_escaped(text: str, shown: str) -> None:
    """Controls, overrides and invisible characters become escapes; everything else stays."""
    assert printable(text) == shown


def test_no_character_gets_past() -> None:
    """Whatever the character, what is shown is printable."""
    assert all(printable(chr(code)).isprintable() for code in range(sys.maxunicode + 1))
