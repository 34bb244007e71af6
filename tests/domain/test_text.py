"""Text that somebody else chose."""

from __future__ import annotations

import sys

import pytest

from sessiond.domain.text import looks_like_token, printable, without_tokens


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


TOKEN = "aZ-_9" * 14


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (TOKEN, "(looks like a token)"),
        (f"unix:/{TOKEN}: no, {TOKEN[:60]}", "unix:/(looks like a token): no, (looks like a token)"),
        (TOKEN[:59], None),
        ("0123456789abcdef" * 8, None),
        ("01a1ffcf-d799-7113-b468-5af8f30eb242_01A1FFCF-d799-7113-b468-5af8f30eb242", None),
        ("x" * 201, None),
        ("", None),
    ],
    ids=["token", "within", "short", "hash", "ids", "long", "nothing"],
)
def test_what_looks_like_a_token(text: str, shown: str | None) -> None:
    """A run of 60 to 200 characters of a token's alphabet is hidden, unless it is hexadecimal."""
    assert looks_like_token(text) is (shown is not None)
    assert without_tokens(text) == (text if shown is None else shown)
