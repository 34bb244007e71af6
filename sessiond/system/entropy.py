"""Randomness: the operating system's CSPRNG, asked for a page at a time."""

from __future__ import annotations

import os

__all__ = ["SystemEntropy"]

_PAGE = 4096


class SystemEntropy:
    """An `Entropy` that draws from the operating system in pages: a system call costs as much as sealing a token.

    Each byte is given out once. Not for a process that forks: both sides would give out the same bytes.
    """

    def __init__(self) -> None:
        self._page = b""
        self._at = 0

    def __call__(self, count: int) -> bytes:
        """So many random bytes."""
        if count > _PAGE:
            return os.urandom(count)
        if self._at + count > len(self._page):
            self._page, self._at = os.urandom(_PAGE), 0
        given = self._page[self._at : self._at + count]
        self._at += count
        return given
