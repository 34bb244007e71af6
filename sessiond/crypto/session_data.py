"""Session data at rest: encrypting values before they are stored, and decrypting them.

The cipher is AES-256-SIV (RFC 5297), the same as for tokens. It stays safe if a nonce repeats (after a machine is
restored from a snapshot, or with a weak source of randomness); AES-GCM would then reveal both values and its
authentication key. AES-GCM-SIV has the same property, but needs an OpenSSL version that some systems lack. A random
nonce is passed as the last component (RFC 5297 section 3), so that an observer cannot see that a value was set to an
earlier value again.

This protects the values in a database file, or in a copy of it, from anyone who does not have the key file. It does
not hide the keys of the map, the lengths of the values or the sessions themselves. It does not detect that a value was
replaced by an older value of the same session and key. Anyone who can write the file can also insert plain values.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sessiond.domain.errors import DataUnreadable
from sessiond.domain.values import Entropy, SessionId

__all__ = ["MARK_BYTES", "SEALING_BYTES", "DataCipher"]

_PURPOSE = b"sessiond/session-data/v1"
_MIN_MATERIAL_BYTES = 32
_KEY_BYTES = 64
MARK_BYTES = 4
"""The number of bytes at the beginning of a sealed value that identify its key."""
_NONCE_BYTES = 16
_TAG_BYTES = 16
# A value may be empty, but some versions of the library refuse to encrypt an empty message. So a byte precedes each.
_PREFIX = b"\0"

SEALING_BYTES = MARK_BYTES + _NONCE_BYTES + _TAG_BYTES + len(_PREFIX)
"""The number of bytes by which a sealed value is longer than the plain value."""


class DataCipher:
    """Seals values under the first key and opens values sealed under any key. `encrypts`: whether to seal new values.

    A cipher is needed for reading even if new values are not sealed: turning encryption off leaves old values sealed.
    If a key is removed from the ring, the values sealed under it cannot be read until the key is added again.

    Format of a sealed value: 4 bytes that identify the key, a nonce of 16 bytes, then AES-SIV's tag and ciphertext. The
    associated data are the purpose, the session id and the key in the map.
    """

    def __init__(self, materials: Sequence[bytes], entropy: Entropy, *, encrypts: bool) -> None:
        """Derive one key from each of `materials`, at least 32 bytes each. The first one becomes the sealing key.

        Raise ValueError if there are none, or if one is too short.
        """
        self.encrypts = encrypts
        self._entropy = entropy
        self.replace(materials)

    def replace(self, materials: Sequence[bytes]) -> None:
        """Use the keys derived from these from now on. Raise ValueError as the constructor does."""
        if not materials or any(len(material) < _MIN_MATERIAL_BYTES for material in materials):
            raise ValueError(f"session data needs key material of at least {_MIN_MATERIAL_BYTES} bytes")
        # One assignment of a whole tuple: a store's thread may be opening a value meanwhile.
        self._keys = tuple(map(_derive, materials))

    def marks(self) -> tuple[bytes, ...]:
        """Return the bytes that the values of each key begin with, the sealing key's first."""
        return tuple(mark for mark, _ in self._keys)

    def __repr__(self) -> str:
        return f"<DataCipher with {len(self._keys)} keys, {'sealing' if self.encrypts else 'opening only'}>"

    def seal(self, session_id: SessionId, key: str, value: bytes) -> bytes:
        """Return `value` encrypted for that session and key. Each call returns different bytes."""
        mark, cipher = self._keys[0]
        nonce = self._entropy(_NONCE_BYTES)
        return mark + nonce + cipher.encrypt(_PREFIX + value, _associated_data(session_id, key, nonce))

    def open(self, session_id: SessionId, key: str, stored: bytes) -> bytes:
        """Return the value that was sealed for that session and key. Raise `DataUnreadable` if it cannot be opened."""
        mark, nonce = stored[:MARK_BYTES], stored[MARK_BYTES : MARK_BYTES + _NONCE_BYTES]
        sealed = stored[MARK_BYTES + _NONCE_BYTES :]
        ciphers = [cipher for other, cipher in self._keys if other == mark]
        if not ciphers and len(stored) >= SEALING_BYTES:
            raise DataUnreadable(session_id, "it is sealed under a key that is not in the key ring, or it was altered")
        for cipher in ciphers:
            try:
                return cipher.decrypt(sealed, _associated_data(session_id, key, nonce))[len(_PREFIX) :]
            except InvalidTag:
                continue
        raise DataUnreadable(session_id, "it is not what was stored for this session and key")


def _derive(material: bytes) -> tuple[bytes, AESSIV]:
    """Return the identifying mark of a data key, and its cipher.

    The key differs from the keys that seal tokens. The mark reveals nothing about either of them.
    """
    derived = HKDF(SHA256(), _KEY_BYTES + MARK_BYTES, salt=None, info=_PURPOSE).derive(material)
    return derived[_KEY_BYTES:], AESSIV(derived[:_KEY_BYTES])


def _associated_data(session_id: SessionId, key: str, nonce: bytes) -> list[bytes | bytearray | memoryview]:
    # AES-SIV authenticates a vector of strings, not their concatenation: two different vectors never collide.
    return [_PURPOSE, bytes(session_id), key.encode(), nonce]
