"""Kept answers: what one version sealed the next one opens, and nobody without both secrets."""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidTag

from sessiond.crypto.kept_answers import open_answer, seal_answer
from sessiond.crypto.tokens import KEY_BYTES, KeyRing, TokenForged

KEYS = KeyRing([bytes(range(KEY_BYTES))])
OTHERS = KeyRing([bytes(range(1, KEY_BYTES + 1))])
SEALED = bytes.fromhex("ec4822a8ce7535fc5b6b22c29f42c116049ee935ac83c21c391f8c9b5faa63e43e2484bda39a5f")
"""`message` under the call's secret `secret`, as the first version kept it."""


def test_the_form_never_changes() -> None:
    """Answers are stored, so that a newer version must seal and open as the first one did."""
    assert seal_answer(KEYS, b"secret", b"message") == SEALED
    assert open_answer(KEYS, b"secret", SEALED) == b"message"


def test_another_call_opens_nothing() -> None:
    """The authority's key alone opens nothing: the secret of the call belongs to it."""
    with pytest.raises(InvalidTag):
        open_answer(KEYS, b"another", SEALED)


def test_another_authority_opens_nothing() -> None:
    """The secret of the call alone opens nothing: the authority's key belongs to it."""
    with pytest.raises(TokenForged):
        open_answer(OTHERS, b"secret", SEALED)
