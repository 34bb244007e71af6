"""Randomness from the operating system's CSPRNG, read one page at a time."""

from __future__ import annotations

import os

__all__ = ["SystemEntropy"]

_PAGE = 4096


class SystemEntropy:
    """An `Entropy` that reads from the operating system in pages: a system call takes as long as sealing a token.

    Each byte is returned once. It must not be used in a process that forks: both processes would return the same bytes.
    """

    def __init__(self) -> None:
        self._page = b""
        self._at = 0

    def __call__(self, count: int) -> bytes:
        """Return `count` random bytes."""
        if count > _PAGE:
            return os.urandom(count)
        if self._at + count > len(self._page):
            self._page, self._at = os.urandom(_PAGE), 0
        taken = self._page[self._at : self._at + count]
        self._at += count
        return taken
