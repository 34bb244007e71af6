"""Canaries: known secrets, in all encodings in which they could leak, and the search for them."""

from __future__ import annotations

import uuid
from base64 import b64encode, urlsafe_b64decode
from collections.abc import Iterable
from pathlib import Path

from sessiond.crypto.tokens import KeyRing, TokenForged, TokenMalformed

__all__ = ["Canary"]

_PIECE = 14
"""Characters of a piece of a token. A truncated token is a leak too, and 84 random bits never match by accident."""


_SEALED_BYTES = (52, 32, 72)
"""The lengths in bytes of session tokens, CSRF tokens, and of companion tokens and tickets."""


class Canary:
    """All secrets that a test has seen. Each is reported by a label and never by its text."""

    def __init__(self) -> None:
        self._needles: dict[bytes, str] = {}
        self._keys: KeyRing | None = None
        self.tokens: list[str] = []

    def know_key_file(self, path: Path) -> None:
        """Add the authority's keys to the secrets, and use them to open tokens from now on."""
        keys = [bytes.fromhex(line) for line in path.read_text(encoding="ascii").split()]
        for key in keys:
            self._know_bytes("key", key[:32])
            self._know_bytes("key", key[32:])
        self._keys = KeyRing(keys)
        for token in self.tokens:
            self._know_secret_of(token)

    def know_token(self, text: str) -> str:
        """Add a token, issued or only presented, to the secrets. Return the token."""
        self.tokens.append(text)
        middle = len(text) // 2
        for piece in (text[:_PIECE], text[middle : middle + _PIECE], text[-_PIECE:]):
            self._needles[piece.encode()] = "token text"
        try:
            sealed = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except ValueError:
            sealed = b""
        if len(sealed) in _SEALED_BYTES:
            self._know_bytes("sealed token", sealed[:16])
            self._know_bytes("sealed token", sealed[-16:])
        self._know_secret_of(text)
        return text

    def know_id(self, text: str) -> str:
        """Add a request id, which opens the stored response, to the secrets. Return the id."""
        self.know_text("request id", text)
        self._know_bytes("request id", uuid.UUID(text).bytes)
        return text

    def know_text(self, label: str, text: str) -> None:
        """Add a text to the secrets, in its own encoding only."""
        self._needles[text.encode()] = label

    def found_in(self, place: str, *haystacks: bytes | str) -> list[str]:
        """Return the leaks in a text, one sentence each; empty if there are none."""
        found = set()
        for haystack in haystacks:
            raw = haystack.encode() if isinstance(haystack, str) else haystack
            found |= {f"{label} in {place}" for needle, label in self._needles.items() if needle in raw}
        return sorted(found)

    def found_in_files(self, files: Iterable[Path]) -> list[str]:
        """Return the leaks in the bytes of files."""
        return [leak for file in files for leak in self.found_in(file.name, file.read_bytes())]

    def _know_secret_of(self, text: str) -> None:
        if self._keys is None:
            return
        try:
            opened = self._keys.open(text)
        except (TokenMalformed, TokenForged):
            return
        self._know_bytes("secret", opened._secret)
        self._know_bytes("secret of a login", opened.bind(b"login"))  # opens the response that is stored for retries

    def _know_bytes(self, label: str, raw: bytes) -> None:
        spellings = (
            raw,
            raw.hex().encode(),
            raw.hex().upper().encode(),
            b64encode(raw).rstrip(b"=")[:-1],
            b64encode(raw, b"-_").rstrip(b"=")[:-1],
            repr(raw)[2:-1].encode(),
        )
        for spelling in spellings:
            self._needles[spelling] = label
