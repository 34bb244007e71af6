"""Caller keys: secrets that callers send with each call. The store holds only a hash of each."""

from __future__ import annotations

from dataclasses import field
from hashlib import sha256
from hmac import compare_digest

from sessiond.crypto import base64url
from sessiond.crypto.tokens import Token
from sessiond.domain.access import KEY_FORM, Credential, CredentialKind
from sessiond.domain.immutable import immutable
from sessiond.domain.values import Entropy, Instant

__all__ = ["PresentedKey", "new_key", "presented_key"]

_PREFIX = "sessiond"
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_ID_LENGTH = 10
_SECRET_BYTES = 32


@immutable
class PresentedKey:
    """A key that a caller has sent. `id` is public; neither the secret nor its digest shows."""

    id: str
    digest: bytes = field(repr=False)

    def proves(self, credential: Credential) -> bool:
        """Return whether this is the key of the credential. Takes constant time."""
        return credential.kind is CredentialKind.KEY and compare_digest(self.digest, credential.value)


def new_key(entropy: Entropy, created: Instant) -> tuple[Token, Credential]:
    """Return a new key, to be shown once, and its credential, to be stored.

    The key is `sessiond_ID_SECRET`: scanners for leaked secrets can recognize it, and the id names it in lists. 50
    random bits make ids differ, and 256 bits cannot be guessed.
    """
    number = int.from_bytes(entropy(8), "big")
    key_id = "".join(_ALPHABET[(number >> (5 * position)) & 31] for position in range(_ID_LENGTH))
    secret = base64url.encode(entropy(_SECRET_BYTES))
    credential = Credential(key_id, CredentialKind.KEY, _digest(secret), created)
    return Token(f"{_PREFIX}_{key_id}_{secret}"), credential


def presented_key(text: str) -> PresentedKey | None:
    """Return the key in a text that a caller sent; None if it is none."""
    found = KEY_FORM.fullmatch(text)
    return None if found is None else PresentedKey(found[1], _digest(found[2]))


def _digest(secret: str) -> bytes:
    # A plain hash is enough: the secret is random, so there is nothing to guess.
    return sha256(secret.encode()).digest()
