"""Session data at rest: a sealed value opens for its own session, key and key ring, and for nothing else."""

from __future__ import annotations

import os

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from hypothesis import given
from hypothesis import strategies as st

from sessiond.crypto.session_data import SEALING_BYTES, DataCipher
from sessiond.crypto.tokens import KEY_BYTES
from sessiond.domain.errors import DataUnreadable
from sessiond.domain.values import SessionId
from tests.contracts import samples

KEYS = [bytes([number]) * KEY_BYTES for number in range(1, 5)]
SESSION = samples.session_id()


def cipher(*keys: bytes, encrypts: bool = True) -> DataCipher:
    """Return a cipher with these keys, or with the first one."""
    return DataCipher(keys or KEYS[:1], os.urandom, encrypts=encrypts)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=80), st.binary(max_size=2000))
def test_what_is_sealed_opens(key: str, value: bytes) -> None:
    """Any value, even an empty one, opens under the session and key that it was sealed for."""
    stored = cipher().seal(SESSION, key, value)
    assert cipher().open(SESSION, key, stored) == value
    assert len(stored) == len(value) + SEALING_BYTES


def test_a_large_value_opens() -> None:
    """A value of the largest size that a policy may allow opens again."""
    value = os.urandom(1024 * 1024)
    assert cipher().open(SESSION, "k", cipher().seal(SESSION, "k", value)) == value


@given(st.binary(min_size=8, max_size=200))
def test_nothing_of_the_value_shows(value: bytes) -> None:
    """A sealed value contains neither the value nor the key it is stored under."""
    stored = cipher().seal(SESSION, "shopping-cart", value)
    assert value not in stored
    assert b"shopping-cart" not in stored


def test_sealing_twice_gives_other_bytes() -> None:
    """Sealing the same value again yields different bytes, so nobody sees that a value was set to an earlier one."""
    seals = {cipher().seal(SESSION, "k", b"value")[4:] for _ in range(100)}
    assert len(seals) == 100


def test_a_repeated_nonce_gives_nothing_away() -> None:
    """If randomness fails and nonces repeat, two sealed values still share no bytes beyond nonce and mark."""
    broken = DataCipher(KEYS[:1], bytes, encrypts=True)
    first, second = (broken.seal(SESSION, "k", b"\0" * 63 + last)[20:] for last in (b"a", b"b"))
    # Under a stream cipher 63 or more bytes would be equal, as in the values; here some are equal by chance only.
    assert sum(one == other for one, other in zip(first, second, strict=True)) < 8


def test_a_value_belongs_to_its_session_and_key() -> None:
    """A value does not open for another session, nor under another key of the same session."""
    stored = cipher().seal(SESSION, "cart", b"value")
    for session_id, key in ((samples.session_id(), "cart"), (SESSION, "carts"), (SESSION, "")):
        with pytest.raises(DataUnreadable, match=str(session_id)):
            cipher().open(session_id, key, stored)


def test_no_changed_byte_opens() -> None:
    """A value does not open if any of its bytes is changed or removed, or if a byte is added."""
    stored = cipher().seal(SESSION, "k", b"value")
    changed = [bytes([*stored[:at], stored[at] ^ 1, *stored[at + 1 :]]) for at in range(len(stored))]
    cut = [stored[:length] for length in range(len(stored))]
    for altered in (*changed, *cut, stored + b"\0", b"\0" + stored, b"plain text as long as a sealed value has it"):
        with pytest.raises(DataUnreadable):
            cipher().open(SESSION, "k", altered)


def test_rotation_keeps_values_readable() -> None:
    """The first key seals and every key of the ring opens, so values sealed under an older key stay readable."""
    old = cipher(KEYS[0]).seal(SESSION, "k", b"old")
    rotated = cipher(KEYS[1], KEYS[0])
    new = rotated.seal(SESSION, "k", b"new")
    assert rotated.open(SESSION, "k", old) == b"old"
    assert rotated.open(SESSION, "k", new) == b"new"
    assert cipher(KEYS[1]).open(SESSION, "k", new) == b"new"


def test_a_key_that_left_the_ring_is_told_apart() -> None:
    """If the sealing key is no longer in the ring, the error says so, and the value opens once the key is back."""
    stored = cipher(KEYS[0]).seal(SESSION, "k", b"value")
    with pytest.raises(DataUnreadable, match="not in the key ring"):
        cipher(KEYS[1]).open(SESSION, "k", stored)
    assert cipher(KEYS[1], KEYS[0]).open(SESSION, "k", stored) == b"value"


def test_the_first_key_alone_decides_the_mark() -> None:
    """Values sealed under one key have the same mark, marks of different keys differ, and no mark is part of a key."""
    marks = {cipher(key).seal(SESSION, "k", b"value")[:4] for key in KEYS for _ in range(3)}
    assert len(marks) == len(KEYS)
    assert not any(mark in key for mark in marks for key in KEYS)


def test_a_cipher_that_seals_nothing_new_still_opens() -> None:
    """After encryption has been turned off, older values still open."""
    stored = cipher().seal(SESSION, "k", b"value")
    assert cipher(encrypts=False).open(SESSION, "k", stored) == b"value"


def test_tokens_and_data_share_no_key() -> None:
    """A key of the ring, which seals tokens, does not open data: each purpose has a key of its own."""
    stored = cipher().seal(SESSION, "k", b"value")
    bound = [b"sessiond/session-data/v1", bytes(SESSION), b"k", stored[4:20]]
    with pytest.raises(InvalidTag):
        AESSIV(KEYS[0]).decrypt(stored[20:], bound)
    assert cipher()._keys[0][1].decrypt(stored[20:], bound) == b"\0value"


@pytest.mark.parametrize("materials", [[], [b""], [bytes(31)], [KEYS[0], bytes(31)]])
def test_weak_materials_are_refused(materials: list[bytes]) -> None:
    """Missing key material, or less than 32 bytes of it, is refused."""
    with pytest.raises(ValueError, match="32 bytes"):
        DataCipher(materials, os.urandom, encrypts=True)


def test_nothing_secret_shows() -> None:
    """Neither a cipher nor an error shows a key, a value or the key of a value."""
    one = cipher()
    stored = one.seal(SESSION, "shopping-cart", b"three apples")
    with pytest.raises(DataUnreadable) as raised:
        one.open(SessionId(bytes(16)), "shopping-cart", stored)
    shown = f"{one!r} {one} {raised.value!r} {raised.value}"
    for secret in ("shopping-cart", "three apples", KEYS[0].hex(), stored.hex()):
        assert secret not in shown
    assert raised.value.__cause__ is None
