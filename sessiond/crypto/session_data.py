"""Session data at rest: sealing values before a store keeps them, and opening them again.

AES-256-SIV (RFC 5297), as tokens have it: it stays safe where a nonce repeats (a machine restored from a snapshot, a
weak source of randomness), where AES-GCM would give away both values and its authentication key. AES-GCM-SIV promises
the same, but needs an OpenSSL that some systems do not have yet. A random nonce goes in as the last component
(RFC 5297 section 3), so that nobody can see that a value was set to what it had been before.

What this protects: values in a database file, or a copy of it, in the hands of somebody without the key file. It does
not hide keys of the map, lengths, or the sessions themselves, and cannot tell a value from an older one of the same
session and key that was put back. Who can write the file can also put plain values into it.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sessiond.domain.errors import DataUnreadable
from sessiond.domain.values import Entropy, SessionId

__all__ = ["SEALING_BYTES", "DataCipher"]

_PURPOSE = b"sessiond/session-data/v1"
_MIN_MATERIAL_BYTES = 32
_KEY_BYTES = 64
_MARK_BYTES = 4
_NONCE_BYTES = 16
_TAG_BYTES = 16
# Some versions of the library refuse to encrypt nothing, and a value may be empty: each has a byte before it.
_LEAD = b"\0"

SEALING_BYTES = _MARK_BYTES + _NONCE_BYTES + _TAG_BYTES + len(_LEAD)
"""By how many bytes a stored value is longer than the plain one."""


class DataCipher:
    """Seals values under the first key and opens those of every key; `encrypts` says whether new values are sealed.

    It is there for reading even where new values are not sealed: switching encryption off leaves the old ones.
    A key that left the ring takes with it the values sealed under it, until the key is put back.

    A sealed value: 4 bytes that mark the key, 16 bytes of nonce, then AES-SIV's tag and ciphertext. Bound to it as
    associated data are the purpose, the session id and the key in the map.
    """

    def __init__(self, materials: Sequence[bytes], entropy: Entropy, *, encrypts: bool) -> None:
        """`materials` are what keys are derived from, the sealing one first: 32 bytes or more each.

        Raises ValueError where there is none, or a shorter one.
        """
        if not materials or any(len(material) < _MIN_MATERIAL_BYTES for material in materials):
            raise ValueError(f"session data is sealed under keys from at least {_MIN_MATERIAL_BYTES} bytes")
        self.encrypts = encrypts
        self._entropy = entropy
        self._keys = [_derive(material) for material in materials]

    def __repr__(self) -> str:
        return f"<DataCipher of {len(self._keys)}, {'sealing' if self.encrypts else 'opening only'}>"

    def seal(self, session_id: SessionId, key: str, value: bytes) -> bytes:
        """The value as it may be stored for that session and key; another time it is other bytes."""
        mark, cipher = self._keys[0]
        nonce = self._entropy(_NONCE_BYTES)
        return mark + nonce + cipher.encrypt(_LEAD + value, _bound(session_id, key, nonce))

    def open(self, session_id: SessionId, key: str, stored: bytes) -> bytes:
        """The value that was sealed for that session and key. Raises `DataUnreadable`."""
        mark, nonce = stored[:_MARK_BYTES], stored[_MARK_BYTES : _MARK_BYTES + _NONCE_BYTES]
        sealed = stored[_MARK_BYTES + _NONCE_BYTES :]
        ciphers = [cipher for other, cipher in self._keys if other == mark]
        if not ciphers and len(stored) >= SEALING_BYTES:
            raise DataUnreadable(session_id, "it is sealed under a key that is not in the key ring, or was altered")
        for cipher in ciphers:
            try:
                return cipher.decrypt(sealed, _bound(session_id, key, nonce))[len(_LEAD) :]
            except InvalidTag:
                continue
        raise DataUnreadable(session_id, "it is not what was stored for this session and key")


def _derive(material: bytes) -> tuple[bytes, AESSIV]:
    """A key that no token is sealed under, and a mark to know it by that says nothing of either."""
    derived = HKDF(SHA256(), _KEY_BYTES + _MARK_BYTES, salt=None, info=_PURPOSE).derive(material)
    return derived[_KEY_BYTES:], AESSIV(derived[:_KEY_BYTES])


def _bound(session_id: SessionId, key: str, nonce: bytes) -> list[bytes | bytearray | memoryview]:
    # A vector, which AES-SIV takes as such: no two different ones run together into the same bytes.
    return [_PURPOSE, bytes(session_id), key.encode(), nonce]
