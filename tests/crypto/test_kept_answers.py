"""Kept answers: a newer version opens what an older one sealed, and nobody can open one without both secrets."""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidTag

from sessiond.crypto.kept_answers import open_answer, seal_answer
from sessiond.crypto.tokens import KEY_BYTES, KeyRing, TokenForged

KEYS = KeyRing([bytes(range(KEY_BYTES))])
OTHERS = KeyRing([bytes(range(1, KEY_BYTES + 1))])
SEALED = bytes.fromhex("ec4822a8ce7535fc5b6b22c29f42c116049ee935ac83c21c391f8c9b5faa63e43e2484bda39a5f")
"""`message` under the call's secret `secret`, as sealed by the first version."""


def test_the_form_never_changes() -> None:
    """Answers are stored, so a newer version must seal and open them exactly as the first version did."""
    assert seal_answer(KEYS, b"secret", b"message") == SEALED
    assert open_answer(KEYS, b"secret", SEALED) == b"message"


def test_another_call_opens_nothing() -> None:
    """The authority's key alone does not open an answer: the secret of the call is needed too."""
    with pytest.raises(InvalidTag):
        open_answer(KEYS, b"another", SEALED)


def test_another_authority_opens_nothing() -> None:
    """The secret of the call alone does not open an answer: the authority's key is needed too."""
    with pytest.raises(TokenForged):
        open_answer(OTHERS, b"secret", SEALED)
