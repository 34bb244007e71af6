"""Tokens and keys: sealing, opening, rotation, and that neither ever shows."""

from __future__ import annotations

import copy
import os
import pickle
import re
import stat
from base64 import urlsafe_b64decode, urlsafe_b64encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond.crypto.tokens import (
    KEY_BYTES,
    TOKEN_LENGTH,
    BadKeyFile,
    KeyRing,
    Token,
    TokenForged,
    TokenMalformed,
    digest,
    load_key_ring,
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
    """The same session, generation and secret give the same token, always; any difference gives another."""
    session = samples.session_id()
    token = RING.seal(session, 1, SECRET)
    assert token == RING.seal(session, 1, SECRET) == KeyRing(KEYS[:1]).seal(session, 1, SECRET)
    assert token != RING.seal(session, 2, SECRET)
    assert token != RING.seal(samples.session_id(), 1, SECRET)
    assert token != RING.seal(session, 1, bytes(16))


def test_the_successor_is_the_same_wherever_it_is_computed() -> None:
    """The successor has the same session and secret, and equals the token sealed at its generation."""
    session = samples.session_id()
    opened = RING.open(RING.seal(session, 0, SECRET).reveal())
    assert RING.successor(opened, 1) == RING.seal(session, 1, SECRET)


def test_the_last_generation() -> None:
    """A generation that does not fit 32 bits is refused, never wrapped."""
    RING.seal(samples.session_id(), 2**32 - 1, SECRET)
    with pytest.raises(OverflowError):
        RING.seal(samples.session_id(), 2**32, SECRET)


def test_a_changed_token_never_opens() -> None:
    """Whatever single character of a token is changed to whatever other, it is malformed or forged."""
    token = RING.seal(samples.session_id(), 0, SECRET).reveal()
    for position in range(TOKEN_LENGTH):
        for character in ALPHABET + "=+/ \0é":
            if character == token[position]:
                continue
            with pytest.raises((TokenMalformed, TokenForged)):
                RING.open(token[:position] + character + token[position + 1 :])


def test_only_one_spelling_of_the_last_character() -> None:
    """Of the sixteen last characters that decode to the same bytes fifteen are malformed."""
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
    """What is not 70 characters of canonical base64url is malformed."""
    with pytest.raises(TokenMalformed):
        RING.open(text)


@pytest.mark.parametrize("sealed", [bytes(52), b"\xff" * 52])
def test_what_was_never_sealed_is_forged(sealed: bytes) -> None:
    """What has a token's form and opens under no key is forged."""
    with pytest.raises(TokenForged):
        RING.open(urlsafe_b64encode(sealed).decode().rstrip("="))


def test_another_authoritys_token_is_forged() -> None:
    """A token sealed under a key that is not in the ring is forged."""
    with pytest.raises(TokenForged):
        RING.open(KeyRing(KEYS[1:2]).seal(samples.session_id(), 0, SECRET).reveal())


def test_rotation_opens_old_and_seals_with_the_first() -> None:
    """A ring opens tokens of each of its keys and seals with the first; a key that has left the ring opens nothing."""
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
    """A ring of no key, of more than three, or of a key of another length is refused."""
    with pytest.raises(ValueError, match="key"):
        KeyRing(keys)


def test_secrets_have_128_bits_of_the_given_randomness() -> None:
    """A secret is 16 bytes as the source of randomness gives them."""
    assert new_secret(lambda length: b"\xab" * length) == b"\xab" * 16


def test_nothing_secret_shows() -> None:
    """Token, opened token and key ring show nothing of what they hold, however they are printed."""
    token = RING.seal(samples.session_id(), 0, SECRET)
    opened = RING.open(token.reveal())
    shown = f"{token} {token!r} {token!s:>99} {[token]} {opened} {opened!r} {RING!r} {RING}"
    assert token.reveal() not in shown
    assert repr(SECRET) not in shown
    assert repr(digest(SECRET)) not in shown
    assert repr(KEYS[0])[2:20] not in shown
    assert not hasattr(token, "__dict__")


def test_secrets_are_not_pickled() -> None:
    """Neither a token nor an opened token can be pickled or copied by way of pickle."""
    token = RING.seal(samples.session_id(), 0, SECRET)
    for secret in (token, RING.open(token.reveal())):
        with pytest.raises(TypeError):
            pickle.dumps(secret)
        with pytest.raises(TypeError):
            copy.deepcopy(secret)


def test_tokens_compare_by_their_text() -> None:
    """Equal texts are equal tokens; a token is no string."""
    assert Token("a") == Token("a")
    assert Token("a") != Token("b")
    assert Token("a") != "a"
    assert hash(Token("a")) == hash(Token("a"))


# The key file


def test_a_key_file_is_made_once(tmp_path: Path) -> None:
    """The first start makes a key file of mode 0600 and leaves nothing else; the next one opens what it sealed."""
    path = tmp_path / "sessiond.key"
    token = load_key_ring(path, os.urandom).seal(samples.session_id(), 0, SECRET)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["sessiond.key"]
    load_key_ring(path, os.urandom).open(token.reveal())


def test_a_key_file_holds_up_to_three_keys(tmp_path: Path) -> None:
    """Each line of the file is a key: the first seals, all open."""
    path = tmp_path / "sessiond.key"
    path.write_text("".join(key.hex() + "\n" for key in KEYS[:3]))
    path.chmod(0o600)
    ring = load_key_ring(path, os.urandom)
    session = samples.session_id()
    assert ring.seal(session, 0, SECRET) == RING.seal(session, 0, SECRET)
    for key in KEYS[:3]:
        ring.open(KeyRing([key]).seal(session, 0, SECRET).reveal())


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    """A key file open to anybody else is refused, with what to do."""
    path = tmp_path / "sessiond.key"
    load_key_ring(path, os.urandom)
    path.chmod(mode)
    with pytest.raises(BadKeyFile, match="chmod 600"):
        load_key_ring(path, os.urandom)


@pytest.mark.parametrize(
    "content",
    ["", "\n", "zz" * KEY_BYTES, "ab" * 63, "ab" * 65, "é" * 128, "\n".join(key.hex() for key in KEYS[:4])],
)
def test_a_bad_key_file_is_refused(tmp_path: Path, content: str) -> None:
    """A file that holds no one to three keys is refused; the text shows nothing of it, and the file stays as it is."""
    path = tmp_path / "sessiond.key"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(BadKeyFile, match="one to three lines of 128 hex digits") as refused:
        load_key_ring(path, os.urandom)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__
    assert path.read_text() == content


def test_a_key_file_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """A key file below something that is no folder is refused by name."""
    (tmp_path / "file").write_text("in the way")
    path = tmp_path / "file" / "sessiond.key"
    with pytest.raises(BadKeyFile, match=re.escape(str(path))):
        load_key_ring(path, os.urandom)


def test_a_folder_in_place_of_the_key_file_is_refused(tmp_path: Path) -> None:
    """A folder that bears the key file's name is refused."""
    (tmp_path / "sessiond.key").mkdir(mode=0o700)
    with pytest.raises(BadKeyFile, match="cannot read"):
        load_key_ring(tmp_path / "sessiond.key", os.urandom)


def test_of_two_that_make_a_key_file_the_first_wins(tmp_path: Path) -> None:
    """One that loses the race for the key file takes the winner's key, and leaves no draft."""
    path = tmp_path / "sessiond.key"
    winners: list[KeyRing] = []

    def beaten(length: int) -> bytes:
        path.touch(mode=0o600)
        path.write_text(KEYS[0].hex() + "\n")
        winners.append(RING)
        return os.urandom(length)

    ring = load_key_ring(path, beaten)
    session = samples.session_id()
    assert winners
    assert ring.seal(session, 0, SECRET) == RING.seal(session, 0, SECRET)
    assert [file.name for file in tmp_path.iterdir()] == ["sessiond.key"]
