"""Forms that outlive an upgrade: what one version issued or stored, every later one makes and opens."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sessiond.crypto.companions import issue_companion, open_companion
from sessiond.crypto.csrf import csrf_token, csrf_token_of
from sessiond.crypto.session_data import DataCipher
from sessiond.crypto.tickets import Ticket, issue_ticket, open_ticket, scope_digest
from sessiond.crypto.tokens import KEY_BYTES, KeyRing, OpenedToken, Token, digest
from sessiond.domain.judge import Presented
from sessiond.domain.values import Instant, SessionId

KEYS = KeyRing([bytes(range(KEY_BYTES))])
SESSION = SessionId(bytes(range(16)))
SECRET = bytes(range(16, 32))
EXPIRES = Instant(1_800_000_000_000)


def opened() -> OpenedToken:
    """The session's token, opened."""
    return KEYS.open(KEYS.seal(SESSION, 7, SECRET).reveal())


def ticket() -> Ticket:
    """A ticket of a guest's login."""
    return Ticket(SECRET, EXPIRES, scope_digest(("default", "ada", "")))


def cipher() -> DataCipher:
    """A cipher whose nonces are known."""
    return DataCipher(KEYS.materials(), lambda size: bytes(range(size)), encrypts=True)


# Each is made in the test: lines that run when the tests are collected belong to no test.
FORMS: dict[str, tuple[Callable[[], Token | bytes], str]] = {
    "fingerprint": (
        lambda: KeyRing([bytes(range(KEY_BYTES))]).fingerprints()[0],
        "50e4ae6e91e7ff1b6c312bf459b9b869",
    ),
    "digest": (lambda: digest(SECRET), "fc2e2c73072bfa2bda03ff9307472debd3cc8105028a8a9e235e35ba8d2e37f4"),
    "token": (
        lambda: KEYS.seal(SESSION, 7, SECRET),
        "5ZuePe3J0CbjKLPQa8FYYMxdawvb1F0AezfsTGOrIvx0PFAucqHrVYOjUrOBBukLCAp9bA",
    ),
    "csrf": (lambda: csrf_token(opened()), "Ukk0eRh85anjCCWOR5G2kT1x-4m6fPtVJJjlJ4zbSOg"),
    "csrf of a new secret": (
        lambda: csrf_token_of(SESSION, SECRET),
        "Ukk0eRh85anjCCWOR5G2kT1x-4m6fPtVJJjlJ4zbSOg",
    ),
    "companion": (
        lambda: issue_companion(KEYS, opened(), "pay", EXPIRES),
        "Bq4wuTzUoOtNuQw0DqDWwfTvsTTx5JGhb4SjR9FmUk0FdRY5s3Y5FjS0GHobVVBSpjj5cZAOBvFwA2C9A9a9U9iEoWe1ITwH",
    ),
    "ticket": (
        lambda: issue_ticket(KEYS, ticket()),
        "F08TOvXU04YUtHPONaLZz8Byg97_EtZrDiHtpNZ8ACsmrki1j74pTVx46oOO5mXjkgufZ4p1ypQ_MIzTBwkIDX7bAYou293d",
    ),
    "ticket's key": (lambda: ticket().key, "f9aceef4fc840a9dad6f6e71c68b465ad27b70afdb918379d02a955905ac41dd"),
    "ticket's scope": (
        lambda: ticket().scope,
        "05011f06417aadaf01ae118c35965a3f00446474aecb24d3acdc2d50e708a346",
    ),
    "session data": (
        lambda: cipher().seal(SESSION, "cart", b"three"),
        "3ffc6987000102030405060708090a0b0c0d0e0f8299ef7c6bf7a5adae7e5535e2c7dd908a31c3778654",
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_form_never_changes(form: str) -> None:
    """From the same keys, session, secret and time every version makes the same bytes."""
    make, known = FORMS[form]
    made = make()
    assert (made.reveal() if isinstance(made, Token) else made.hex()) == known


def test_what_another_version_made_opens() -> None:
    """A token, a companion token, a ticket and a value that another version made mean what they meant to it."""
    token = KEYS.open(FORMS["token"][1])
    assert token.presented == Presented(SESSION, 7, digest(SECRET))
    companion = open_companion(KEYS, FORMS["companion"][1])
    assert companion is not None
    assert (companion.session_id, companion.expires) == (SESSION, EXPIRES)
    assert companion.is_for("pay")
    assert companion.belongs_to(token)
    assert open_ticket(KEYS, Token(FORMS["ticket"][1])) == ticket()
    assert cipher().open(SESSION, "cart", bytes.fromhex(FORMS["session data"][1])) == b"three"
