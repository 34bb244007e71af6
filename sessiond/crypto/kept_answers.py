"""Kept answers: the stored responses of calls that may be retried, sealed so that only a retry can open them.

A response may contain a token, and a token must not be readable in the store. So the response is encrypted twice. The
inner key is derived from a secret that only the caller has (its request id, or the token it presented) and of which
the store holds only a digest. The outer key is the authority's own. A stolen database together with a stolen key file
does not reveal any response.
"""

from __future__ import annotations

from hashlib import sha512

from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from sessiond.crypto.tokens import KeyRing

__all__ = ["open_answer", "renew_answer", "seal_answer"]

_PURPOSE = b"sessiond/answer/v1"


def seal_answer(keys: KeyRing, secret: bytes, message: bytes) -> bytes:
    """Return a response, encrypted so that it may be stored."""
    return keys.protect(_cipher(secret).encrypt(message, None), _PURPOSE)


def open_answer(keys: KeyRing, secret: bytes, sealed: bytes) -> bytes:
    """Return a response that `seal_answer` encrypted.

    Raise `TokenForged` if no key of the ring opens it, for example because its key has been removed from the ring.
    Raise `cryptography.exceptions.InvalidTag` if `secret` is not the one that it was sealed with.
    """
    return _cipher(secret).decrypt(keys.uncover(sealed, _PURPOSE), None)


def renew_answer(keys: KeyRing, sealed: bytes) -> bytes | None:
    """Return the same answer with the sealing key outside; None if it has that already, or if no key opens it.

    The inner key, and so the response itself, is not needed.
    """
    return keys.renew(sealed, _PURPOSE) if sealed else None


def _cipher(secret: bytes) -> AESSIV:
    return AESSIV(sha512(b"sessiond/answer/v1\0" + secret).digest())
