"""Tokens: sealing and opening the secret bearer values that clients present.

Plaintext: session id (16 bytes), generation (4 bytes, big-endian), secret (16 bytes from a CSPRNG: 128 bits, OWASP
asks for 64, ASVS 7.2.3 for 128). Sealed with AES-SIV (RFC 5297), the purpose as associated data, in base64url
without padding: 70 characters in which nothing can be read. AES-SIV is deterministic, so that the successor of a
token is the same string however often and wherever it is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from hashlib import blake2b, sha256
from typing import NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from sessiond.crypto import base64url
from sessiond.domain.immutable import immutable
from sessiond.domain.judge import Presented
from sessiond.domain.values import Entropy, SessionId

__all__ = [
    "KEY_BYTES",
    "TOKEN_LENGTH",
    "KeyRing",
    "OpenedToken",
    "Token",
    "TokenForged",
    "TokenMalformed",
    "bind",
    "digest",
    "mac",
    "new_secret",
]

KEY_BYTES = 64  # AES-256-SIV: two AES-256 keys
TOKEN_LENGTH = 70
_SECRET_BYTES = 16
_PLAIN_BYTES = 36
_TAG_BYTES = 16
_MAX_GENERATION = 2**32 - 1
_PURPOSE = b"sessiond/session/v1"


class TokenMalformed(Exception):
    """Not of a token's form. Carries nothing of what was presented."""


class TokenForged(Exception):
    """Of a token's form, but it opens under no key: never issued. Carries nothing of what was presented."""


class Token:
    """The secret bearer value that a client presents.

    The one type that tokens live in: it prints as nothing, cannot be pickled, and gives its text to `reveal` alone.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The secret text: for handing it to its client, opening or comparing it. A test lists who does."""
        return self._text

    def __repr__(self) -> str:
        return "<Token>"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "<Token>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a token is not to be pickled")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Token) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


@immutable
class OpenedToken:
    """A token's content. `presented` is what may be judged; the secret is only there to seal the successor."""

    presented: Presented
    _secret: bytes = field(repr=False)

    def bind(self, label: bytes) -> bytes:
        """32 bytes that only the holder of the secret could have made, another for each label, new at every roll."""
        return bind(self._secret, self.presented.session_id, label)

    def __reduce__(self) -> NoReturn:
        raise TypeError("an opened token is not to be pickled")


def bind(secret: bytes, session_id: SessionId, label: bytes) -> bytes:
    """32 bytes derived from a session's secret, another for each label (see `mac`)."""
    return mac(secret, label + b"\0" + session_id)


def mac(key: bytes, message: bytes) -> bytes:
    """Return 32 bytes that only the holder of `key` (16 to 64 bytes) can compute: BLAKE2b with a key (RFC 7693).

    Not `hmac.digest`, which releases the interpreter's lock whatever the length: the event loop then waits for the
    store's thread to give the lock back, ten times as long as the computation takes.
    """
    return blake2b(message, key=key, digest_size=32).digest()


def digest(secret: bytes) -> bytes:
    """What the store keeps of a secret: its SHA-256. The secret has 128 random bits, so no salt or stretching."""
    return sha256(secret).digest()


def new_secret(entropy: Entropy) -> bytes:
    """128 fresh random bits."""
    return entropy(_SECRET_BYTES)


class KeyRing:
    """The authority's sealing keys: the first seals, all open; at most three (design section 3)."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not 1 <= len(keys) <= 3:
            raise ValueError("a key ring has one to three keys")
        if any(len(key) != KEY_BYTES for key in keys):
            raise ValueError(f"a key has {KEY_BYTES} bytes")
        self._keys = tuple(keys)
        self._ciphers = [AESSIV(key) for key in keys]

    def __repr__(self) -> str:
        return f"<KeyRing of {len(self._ciphers)}>"

    def fingerprints(self) -> tuple[bytes, ...]:
        """What a store may keep to know the keys again: 16 bytes each, the sealing key's first."""
        return tuple(sha256(b"sessiond/key-fingerprint/v1\0" + key).digest()[:16] for key in self._keys)

    def materials(self) -> tuple[bytes, ...]:
        """What other keys are derived from, the first first; never to be used as keys."""
        return self._keys

    def seal(self, session_id: SessionId, generation: int, secret: bytes) -> Token:
        """The token of that session, generation and secret. The same input gives the same token, always."""
        if generation > _MAX_GENERATION:
            raise OverflowError("a session's generations are used up")
        return self.seal_bytes(session_id + generation.to_bytes(4, "big") + secret, _PURPOSE)

    def successor(self, opened: OpenedToken, generation: int) -> Token:
        """The token of the same session and secret at another generation."""
        return self.seal(opened.presented.session_id, generation, opened._secret)

    def open(self, text: str) -> OpenedToken:
        """What a presented token says. Costs microseconds and no store.

        Raises `TokenMalformed` where `text` is not base64url of the right length, in its one canonical spelling, and
        `TokenForged` where it opens under no key.
        """
        plain = self.open_bytes(text, _PURPOSE, _PLAIN_BYTES)
        secret = plain[20:]
        presented = Presented(SessionId(plain[:16]), int.from_bytes(plain[16:20], "big"), digest(secret))
        return OpenedToken(presented, secret)

    def seal_bytes(self, plain: bytes, purpose: bytes) -> Token:
        """Bytes sealed for one purpose, in base64url. The same input gives the same text, always."""
        return Token(base64url.encode(self.protect(plain, purpose)))

    def open_bytes(self, text: str, purpose: bytes, length: int) -> bytes:
        """That many bytes, sealed for that purpose. Raises `TokenMalformed` and `TokenForged`, as `open` does."""
        sealed_length = length + _TAG_BYTES
        if len(text) != (sealed_length * 4 + 2) // 3:
            raise TokenMalformed
        try:
            sealed = base64url.decode(text)
        except ValueError:
            raise TokenMalformed from None
        if len(sealed) != sealed_length:
            raise TokenMalformed
        return self.uncover(sealed, purpose)

    def protect(self, plain: bytes, purpose: bytes) -> bytes:
        """Bytes sealed for one purpose, 16 bytes longer. The same input gives the same bytes, always."""
        return self._ciphers[0].encrypt(plain, [purpose])

    def uncover(self, sealed: bytes, purpose: bytes) -> bytes:
        """What `protect` was given. Raises `TokenForged` where it opens under no key."""
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(sealed, [purpose])
            except InvalidTag:
                continue
        raise TokenForged
