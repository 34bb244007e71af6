"""Tokens: sealing and opening the secret bearer values that clients present.

Plaintext: session id (16 bytes), generation (4 bytes, big-endian), secret (16 bytes from a CSPRNG; these are 128 bits,
of which OWASP asks for 64 and ASVS 7.2.3 for 128). It is encrypted with AES-SIV (RFC 5297), with the purpose as
associated data, and encoded as base64url without padding: 70 opaque characters. AES-SIV is deterministic, so every
computation of a token's successor, on any replica, yields the same string.
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
    "fingerprint_of",
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
_WRAPPING = b"sessiond/wrapped-key/v1"


class TokenMalformed(Exception):
    """The text does not have the format of a token. The exception contains nothing of the text."""


class TokenForged(Exception):
    """The text has the format of a token, but no key opens it. The exception contains nothing of the text."""


class Token:
    """The secret bearer value that a client presents.

    All tokens are handled as this type. Its repr does not show the text, it cannot be pickled, and only `reveal`
    returns the text.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the secret text, to send it to its client, open it or compare it. A test lists all callers."""
        return self._text

    def __repr__(self) -> str:
        return "<Token>"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "<Token>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a token cannot be pickled")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Token) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


@immutable
class OpenedToken:
    """The content of a token. `presented` is the part that is judged; the secret is needed to derive other tokens."""

    presented: Presented
    _secret: bytes = field(repr=False)

    def bind(self, label: bytes) -> bytes:
        """Return 32 bytes derived from the session's secret: different for each label, and changed by every roll."""
        return bind(self._secret, self.presented.session_id, label)

    def __reduce__(self) -> NoReturn:
        raise TypeError("an opened token cannot be pickled")


def bind(secret: bytes, session_id: SessionId, label: bytes) -> bytes:
    """Return 32 bytes derived from a session's secret, different for each label (see `mac`)."""
    return mac(secret, label + b"\0" + session_id)


def mac(key: bytes, message: bytes) -> bytes:
    """Return 32 bytes that only a holder of `key` (16 to 64 bytes) can compute: keyed BLAKE2b (RFC 7693).

    `hmac.digest` would release the GIL, however short the message is. The event loop would then wait until the store's
    thread returns the GIL, which takes ten times as long as the computation.
    """
    return blake2b(message, key=key, digest_size=32).digest()


def digest(secret: bytes) -> bytes:
    """Return the SHA-256 of a secret, which the store keeps instead of the secret.

    The secret has 128 random bits, so it needs neither a salt nor key stretching.
    """
    return sha256(secret).digest()


def new_secret(entropy: Entropy) -> bytes:
    """Return a new session secret: 128 random bits."""
    return entropy(_SECRET_BYTES)


def fingerprint_of(key: bytes) -> bytes:
    """Return the fingerprint of a sealing key: 16 bytes that identify it and reveal nothing about it."""
    return sha256(b"sessiond/key-fingerprint/v1\0" + key).digest()[:16]


class KeyRing:
    """The authority's sealing keys, one to three. The first seals; all of them open.

    Raise ValueError for another number of keys, or for a key of the wrong length.
    """

    version = 0
    """Differs after each replacement of the keys. What was found out about a token holds for one version."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self.replace(keys)

    def replace(self, keys: Sequence[bytes]) -> None:
        """Use these keys from now on. Raise ValueError as the constructor does; then nothing has changed."""
        if not 1 <= len(keys) <= 3:
            raise ValueError("a key ring must have one to three keys")
        if any(len(key) != KEY_BYTES for key in keys):
            raise ValueError(f"a key must have {KEY_BYTES} bytes")
        # One assignment each, of a whole tuple: a store's thread may be opening a value meanwhile.
        self._keys: tuple[bytes, ...] = tuple(keys)
        self._ciphers: tuple[AESSIV, ...] = tuple(AESSIV(key) for key in keys)
        self.version += 1

    def __repr__(self) -> str:
        return f"<KeyRing with {len(self._ciphers)} keys>"

    def fingerprints(self) -> tuple[bytes, ...]:
        """Return a fingerprint of each key, 16 bytes, the sealing key's first. A store may keep them to verify keys."""
        return tuple(map(fingerprint_of, self._keys))

    def materials(self) -> tuple[bytes, ...]:
        """Return the material to derive other keys from, the sealing key's first. Never use it as a key directly."""
        return self._keys

    def seal(self, session_id: SessionId, generation: int, secret: bytes) -> Token:
        """Return the token of that session, generation and secret. The same input always yields the same token.

        Raise OverflowError if `generation` does not fit into 32 bits.
        """
        if generation > _MAX_GENERATION:
            raise OverflowError(f"generation {generation} does not fit into 32 bits")
        return self.seal_bytes(session_id + generation.to_bytes(4, "big") + secret, _PURPOSE)

    def successor(self, opened: OpenedToken, generation: int) -> Token:
        """Return the token of the same session and secret at another generation."""
        return self.seal(opened.presented.session_id, generation, opened._secret)

    def open(self, text: str) -> OpenedToken:
        """Return the content of a presented token. This takes microseconds and does not use the store.

        Raise `TokenMalformed` if `text` is not canonical base64url of the right length, and `TokenForged` if no key
        opens it.
        """
        plain = self.open_bytes(text, _PURPOSE, _PLAIN_BYTES)
        secret = plain[20:]
        presented = Presented(SessionId(plain[:16]), int.from_bytes(plain[16:20], "big"), digest(secret))
        return OpenedToken(presented, secret)

    def seal_bytes(self, plain: bytes, purpose: bytes) -> Token:
        """Return `plain` sealed for one purpose, in base64url. The same input always yields the same text."""
        return Token(base64url.encode(self.protect(plain, purpose)))

    def open_bytes(self, text: str, purpose: bytes, length: int) -> bytes:
        """Return the `length` bytes that `seal_bytes` sealed for that purpose.

        Raise `TokenMalformed` and `TokenForged`, as `open` does.
        """
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
        """Return `plain` sealed for one purpose, 16 bytes longer. The same input always yields the same bytes."""
        return self._ciphers[0].encrypt(plain, [purpose])

    def uncover(self, sealed: bytes, purpose: bytes) -> bytes:
        """Return the bytes that `protect` sealed for that purpose. Raise `TokenForged` if no key opens them."""
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(sealed, [purpose])
            except InvalidTag:
                continue
        raise TokenForged

    def renew(self, sealed: bytes, purpose: bytes) -> bytes | None:
        """Return what `protect` would yield now for the same bytes; None if it is the same, or if no key opens them."""
        try:
            renewed = self.protect(self.uncover(sealed, purpose), purpose)
        except TokenForged:
            return None
        return None if renewed == sealed else renewed

    def wrap(self, key: bytes) -> bytes:
        """Return another key, encrypted so that only a holder of the sealing key can read it.

        Its fingerprint is authenticated with it, so that it cannot pass for another key.
        """
        return self._ciphers[0].encrypt(key, [_WRAPPING, fingerprint_of(key)])

    def unwrap(self, wrapped: bytes, fingerprint: bytes) -> bytes | None:
        """Return the key with that fingerprint from what `wrap` returned; None if no key of the ring opens it."""
        for cipher in self._ciphers:
            try:
                key = cipher.decrypt(wrapped, [_WRAPPING, fingerprint])
            except InvalidTag:
                continue
            return key if len(key) == KEY_BYTES and fingerprint_of(key) == fingerprint else None
        return None
