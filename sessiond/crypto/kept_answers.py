"""Kept answers: sealed so that only a repeat of the same call can open them.

An answer may hold a token, and no store may give one away. It is sealed under a key that follows from a secret that
only the caller has (its request id, or the token it presented), of which the store has a digest, and once more under
the authority's own. A stolen database and a stolen key together open nothing.
"""

from __future__ import annotations

from hashlib import sha512

from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from sessiond.crypto.tokens import KeyRing

__all__ = ["open_answer", "seal_answer"]

_PURPOSE = b"sessiond/answer/v1"


def seal_answer(keys: KeyRing, secret: bytes, message: bytes) -> bytes:
    """The answer, as it may be stored."""
    return keys.protect(_cipher(secret).encrypt(message, None), _PURPOSE)


def open_answer(keys: KeyRing, secret: bytes, sealed: bytes) -> bytes:
    """The answer. Raises `TokenForged` if it was sealed under a key of the authority that is no longer there."""
    return _cipher(secret).decrypt(keys.uncover(sealed, _PURPOSE), None)


def _cipher(secret: bytes) -> AESSIV:
    return AESSIV(sha512(b"sessiond/answer/v1\0" + secret).digest())
