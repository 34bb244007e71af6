"""Caller keys: what they look like, what is stored of them, and what proves them."""

from __future__ import annotations

import os
import pickle
from hashlib import sha256

import pytest

from sessiond.crypto.caller_keys import new_key, presented_key
from sessiond.domain.access import Credential, CredentialKind
from sessiond.domain.values import Instant
from tests.support.clock import START

NOW = Instant(START)


def zeros(count: int) -> bytes:
    """Entropy that is always zero."""
    return bytes(count)


def test_a_key_proves_its_credential() -> None:
    """A presented key has the id of its credential and proves it, and does not prove that of another key."""
    key, credential = new_key(os.urandom, NOW)
    _, other = new_key(os.urandom, NOW)
    presented = presented_key(key.reveal())
    assert presented is not None
    assert presented.id == credential.id
    assert presented.proves(credential)
    assert not presented.proves(other)
    assert not presented.proves(Credential(credential.id, CredentialKind.KEY, other.value, NOW))


def test_only_a_key_is_proved_by_a_key() -> None:
    """A key proves no credential of another kind, even if its value is the digest of the key."""
    key, credential = new_key(os.urandom, NOW)
    presented = presented_key(key.reveal())
    assert presented is not None
    for kind in (CredentialKind.CERTIFICATE, CredentialKind.UID):
        assert not presented.proves(Credential(credential.id, kind, credential.value, NOW))


def test_the_form_of_a_key() -> None:
    """A key is `sessiond_`, ten characters of its id, and 43 of its secret; all of it fits into a header."""
    key, credential = new_key(zeros, NOW)
    assert key.reveal() == f"sessiond_{'a' * 10}_{'A' * 43}"
    assert (credential.id, credential.kind, credential.created, credential.expires) == (
        "a" * 10,
        CredentialKind.KEY,
        NOW,
        None,
    )


def test_all_of_the_randomness_is_in_a_key() -> None:
    """The id has 50 bits of the randomness and the secret 256: each bit of them makes another key."""

    def key_with(bit: int, where: int) -> tuple[str, str]:
        key, credential = new_key(lambda count: (1 << bit if count == where else 0).to_bytes(count, "big"), NOW)
        return key.reveal(), credential.id

    assert len({key_with(bit, 8)[1] for bit in range(50)}) == 50
    assert len({key_with(bit, 32)[0] for bit in range(256)}) == 256


def test_the_hash_of_the_secret_is_stored() -> None:
    """The credential has SHA-256 of the secret part, so that nobody who reads it can call."""
    key, credential = new_key(os.urandom, NOW)
    secret = key.reveal().split("_", 2)[2]
    assert credential.value == sha256(secret.encode()).digest()
    assert secret not in repr(credential)
    assert credential.value.hex() not in repr(credential)


def test_a_key_does_not_show() -> None:
    """Neither a new key nor a presented one shows its secret or its digest, and a new one cannot be pickled."""
    key, credential = new_key(os.urandom, NOW)
    presented = presented_key(key.reveal())
    assert key.reveal()[-43:] not in repr(key) + repr(presented)
    assert repr(credential.value) not in repr(presented)
    with pytest.raises(TypeError):
        pickle.dumps(key)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sessiond_",
        "sessiond_aaaaaaaaaa_",
        "sessiond_aaaaaaaaaa_" + "A" * 42,
        "sessiond_aaaaaaaaaa_" + "A" * 44,
        "sessiond_aaaaaaaaaa_" + "A" * 42 + "=",
        "sessiond_aaaaaaaaaa_" + "A" * 42 + "é",
        "sessiond_aaaaaaaaa_" + "A" * 43,
        "sessiond_AAAAAAAAAA_" + "A" * 43,
        "sessiond_aaaaaaaaa1_" + "A" * 43,
        "Sessiond_aaaaaaaaaa_" + "A" * 43,
        "sessiond_aaaaaaaaaa_" + "A" * 43 + "\n",
        " sessiond_aaaaaaaaaa_" + "A" * 43,
        "sessiond_aaaaaaaaaa_" + "A" * 43 + "\0",
        "sessiond_" * 1_000,
    ],
)
def test_what_is_no_key(text: str) -> None:
    """A text of any other form is no key."""
    assert presented_key(text) is None
