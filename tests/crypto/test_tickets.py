"""Tickets: valid for one call, until one moment, once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sessiond.crypto.tickets import Ticket, issue_ticket, open_ticket, scope_digest
from sessiond.crypto.tokens import KEY_BYTES, KeyRing, Token
from sessiond.domain.values import Instant
from tests.contracts import samples
from tests.support.clock import START

KEYS = [bytes([number]) * KEY_BYTES for number in range(1, 4)]
RING = KeyRing(KEYS[:1])
SCOPE = ("shop", "ada", "2")
TICKET = Ticket(bytes(range(16)), Instant(START + 120_000), scope_digest(SCOPE))
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@pytest.mark.parametrize("expires", [0, 1, START, 2**53])
def test_a_ticket_comes_back(expires: int) -> None:
    """An opened ticket has the nonce, the expiry to the millisecond, and the scope it was issued with."""
    ticket = replace(TICKET, expires=Instant(expires))
    assert open_ticket(RING, issue_ticket(RING, ticket)) == ticket


def test_a_ticket_is_for_its_call() -> None:
    """A ticket is valid for the call it was issued for."""
    assert TICKET.is_for(SCOPE)


@pytest.mark.parametrize(
    "scope",
    [
        (),
        ("shop", "ada"),
        ("shop", "ada", "1"),
        ("bank", "ada", "2"),
        ("shop", "bob", "2"),
        ("shop", "ada", "2", ""),
        ("", "shop", "ada", "2"),
        ("shopada", "", "2"),
        ("sho", "pada", "2"),
        ("shop", "2", "ada"),
        ("shop\0ada\x002",),
    ],
)
def test_a_ticket_is_for_no_other_call(scope: tuple[str, ...]) -> None:
    """A ticket is not valid for another call, even one whose parts concatenate to the same characters."""
    assert not TICKET.is_for(scope)


def test_a_scope_counts_bytes() -> None:
    """Scopes with any characters have different digests, each of 32 bytes."""
    scopes = [("ä", "b"), ("a\N{COMBINING DIAERESIS}", "b"), ("äb", ""), ("", "äb")]
    assert len({scope_digest(scope) for scope in scopes}) == len(scopes)
    assert {len(scope_digest(scope)) for scope in scopes} == {32}


def test_a_changed_ticket_is_none() -> None:
    """Changing any single character of a ticket to any other makes it invalid."""
    text = issue_ticket(RING, TICKET).reveal()
    for position in range(len(text)):
        for character in ALPHABET + "=+/ \0é":
            if character != text[position]:
                assert open_ticket(RING, Token(text[:position] + character + text[position + 1 :])) is None


@pytest.mark.parametrize("text", ["", "x", "A" * 95, "A" * 96, "é" * 96, "\ud800" * 96, "A" * 1_000_000])
def test_what_was_never_issued_is_none(text: str) -> None:
    """Text that was never issued as a ticket is refused without an exception."""
    assert open_ticket(RING, Token(text)) is None


def test_another_secret_is_no_ticket() -> None:
    """Neither a session token nor the bytes of a companion token open as a ticket."""
    assert open_ticket(RING, RING.seal(samples.session_id(), 0, bytes(16))) is None
    assert open_ticket(RING, RING.seal_bytes(bytes(56), b"sessiond/companion/v1")) is None


def test_a_ticket_is_kept_by_its_nonce() -> None:
    """The key of a ticket among the kept answers depends on its nonce and on nothing else."""
    keys = {replace(TICKET, nonce=bytes([number]) * 16).key for number in range(100)}
    assert len(keys) == 100
    assert {len(key) for key in keys} == {32}
    assert replace(TICKET, expires=START, scope=bytes(32)).key == TICKET.key
    assert TICKET.nonce not in TICKET.key


def test_a_ticket_under_a_rotated_key() -> None:
    """A ticket opens under an older key of the ring, and no longer once that key is removed."""
    token = issue_ticket(RING, TICKET)
    assert open_ticket(KeyRing([KEYS[1], KEYS[0]]), token) == TICKET
    assert open_ticket(KeyRing(KEYS[1:]), token) is None


def test_a_ticket_shows_nothing() -> None:
    """The repr of a ticket shows neither its nonce nor its scope."""
    shown = f"{issue_ticket(RING, TICKET)!r} {TICKET!r}"
    assert repr(TICKET.nonce) not in shown
    assert repr(TICKET.scope) not in shown
