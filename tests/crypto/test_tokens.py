"""Tokens and keys: sealing, opening and rotation, and that neither is ever shown."""

from __future__ import annotations

import copy
import pickle
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond.crypto.tokens import (
    KEY_BYTES,
    TOKEN_LENGTH,
    KeyRing,
    Token,
    TokenForged,
    TokenMalformed,
    digest,
    new_secret,
)
from sessiond.domain.values import SessionId
from tests.contracts import samples

KEYS = [bytes([number]) * KEY_BYTES for number in range(1, 5)]
RING = KeyRing(KEYS[:1])
SECRET = bytes(range(16))
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@given(st.binary(min_size=16, max_size=16), st.integers(0, 2**32 - 1), st.binary(min_size=16, max_size=16))
def test_what_is_sealed_opens(session_id: bytes, generation: int, secret: bytes) -> None:
    """A token opens to the session, generation and digest it was sealed with, and is 70 characters of base64url."""
    token = RING.seal(SessionId(session_id), generation, secret).reveal()
    assert re.fullmatch(r"[A-Za-z0-9_-]{70}", token)
    opened = RING.open(token)
    assert opened.presented.session_id == session_id
    assert opened.presented.generation == generation
    assert opened.presented.digest == digest(secret)


def test_sealing_is_deterministic() -> None:
    """The same session, generation and secret always yield the same token, and any difference yields another."""
    session = samples.session_id()
    token = RING.seal(session, 1, SECRET)
    assert token == RING.seal(session, 1, SECRET) == KeyRing(KEYS[:1]).seal(session, 1, SECRET)
    assert token != RING.seal(session, 2, SECRET)
    assert token != RING.seal(samples.session_id(), 1, SECRET)
    assert token != RING.seal(session, 1, bytes(16))


def test_the_successor_is_the_same_wherever_it_is_computed() -> None:
    """The successor has the same session and secret, and equals the token that is sealed at its generation."""
    session = samples.session_id()
    opened = RING.open(RING.seal(session, 0, SECRET).reveal())
    assert RING.successor(opened, 1) == RING.seal(session, 1, SECRET)


def test_the_last_generation() -> None:
    """A generation that does not fit into 32 bits is refused and never wraps around."""
    RING.seal(samples.session_id(), 2**32 - 1, SECRET)
    with pytest.raises(OverflowError):
        RING.seal(samples.session_id(), 2**32, SECRET)


def test_a_changed_token_never_opens() -> None:
    """Changing any single character of a token to any other makes it malformed or forged."""
    token = RING.seal(samples.session_id(), 0, SECRET).reveal()
    for position in range(TOKEN_LENGTH):
        for character in ALPHABET + "=+/ \0é":
            if character == token[position]:
                continue
            with pytest.raises((TokenMalformed, TokenForged)):
                RING.open(token[:position] + character + token[position + 1 :])


def test_only_one_spelling_of_the_last_character() -> None:
    """Of the sixteen last characters that decode to the same bytes, fifteen make the token malformed."""
    token = RING.seal(samples.session_id(), 0, SECRET).reveal()
    same = [c for c in ALPHABET if urlsafe_b64decode(token[:-1] + c + "==") == urlsafe_b64decode(token + "==")]
    assert len(same) == 16
    for character in same:
        if character != token[-1]:
            with pytest.raises(TokenMalformed):
                RING.open(token[:-1] + character)
    RING.open(token)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "A" * 69,
        "A" * 71,
        "A" * 68 + "==",
        "A" * 1_000_000,
        "é" * 70,
        "\0" * 70,
        " " * 70,
        "A" * 69 + "\n",
        "+" * 69 + "A",
        "/" * 69 + "A",
        "A" * 69 + "B",
        "\ud800" * 70,
    ],
)
def test_what_has_not_a_tokens_form_is_malformed(text: str) -> None:
    """Text other than 70 characters of canonical base64url is malformed."""
    with pytest.raises(TokenMalformed):
        RING.open(text)


@pytest.mark.parametrize("sealed", [bytes(52), b"\xff" * 52])
def test_what_was_never_sealed_is_forged(sealed: bytes) -> None:
    """Text in the format of a token that opens under no key is forged."""
    with pytest.raises(TokenForged):
        RING.open(urlsafe_b64encode(sealed).decode().rstrip("="))


def test_another_authoritys_token_is_forged() -> None:
    """A token sealed under a key that is not in the ring is forged."""
    with pytest.raises(TokenForged):
        RING.open(KeyRing(KEYS[1:2]).seal(samples.session_id(), 0, SECRET).reveal())


def test_rotation_opens_old_and_seals_with_the_first() -> None:
    """A ring seals with its first key and opens tokens of all its keys; a removed key opens nothing."""
    session = samples.session_id()
    old = RING.seal(session, 0, SECRET)
    rotated = KeyRing([KEYS[1], KEYS[0]])
    assert rotated.open(old.reveal()).presented.session_id == session
    new = rotated.successor(rotated.open(old.reveal()), 1)
    assert new == KeyRing([KEYS[1]]).seal(session, 1, SECRET)
    three = KeyRing([KEYS[2], KEYS[1], KEYS[0]])
    assert three.open(old.reveal()).presented == rotated.open(old.reveal()).presented
    with pytest.raises(TokenForged):
        KeyRing([KEYS[2], KEYS[1]]).open(old.reveal())


@pytest.mark.parametrize("keys", [[], KEYS[:4], [b"short"], [bytes(KEY_BYTES + 1)]])
def test_a_ring_has_one_to_three_keys(keys: list[bytes]) -> None:
    """A ring with no key, with more than three, or with a key of another length is refused."""
    with pytest.raises(ValueError, match="key"):
        KeyRing(keys)


def test_secrets_have_128_bits_of_the_given_randomness() -> None:
    """A secret is 16 bytes, exactly as the source of randomness returns them."""
    assert new_secret(lambda length: b"\xab" * length) == b"\xab" * 16


def test_nothing_secret_shows() -> None:
    """Token, opened token and key ring never show their content, however they are printed."""
    token = RING.seal(samples.session_id(), 0, SECRET)
    opened = RING.open(token.reveal())
    shown = f"{token} {token!r} {token!s:>99} {[token]} {opened} {opened!r} {RING!r} {RING}"
    assert token.reveal() not in shown
    assert repr(SECRET) not in shown
    assert repr(digest(SECRET)) not in shown
    assert repr(KEYS[0])[2:20] not in shown
    assert not hasattr(token, "__dict__")


def test_secrets_are_not_pickled() -> None:
    """Neither a token nor an opened token can be pickled, or copied by means of pickle."""
    token = RING.seal(samples.session_id(), 0, SECRET)
    for secret in (token, RING.open(token.reveal())):
        with pytest.raises(TypeError):
            pickle.dumps(secret)
        with pytest.raises(TypeError):
            copy.deepcopy(secret)


def test_tokens_compare_by_their_text() -> None:
    """Tokens with equal texts are equal, and a token is not equal to a string."""
    assert Token("a") == Token("a")
    assert Token("a") != Token("b")
    assert Token("a") != "a"
    assert hash(Token("a")) == hash(Token("a"))
