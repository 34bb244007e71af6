"""The book of callers: who is calling, by what it proves."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from sessiond.access.book import CallerBook
from sessiond.access.proof import Identified
from sessiond.crypto.caller_keys import new_key
from sessiond.crypto.tokens import Token
from sessiond.domain.access import EVERYTHING, CallerRecord, Credential, CredentialKind
from sessiond.domain.errors import Unauthenticated, Unavailable
from sessiond.domain.values import Instant, Revision
from tests.support.clock import START, ManualClock

NOW = Instant(START)


def key_of(expires: int | None = None) -> tuple[Token, Credential]:
    """A new key and its credential."""
    key, credential = new_key(os.urandom, NOW)
    return key, replace(credential, expires=None if expires is None else Instant(expires))


def record(name: str, *credentials: Credential, revision: int = 1) -> CallerRecord:
    """A caller that may do everything."""
    return CallerRecord(name, EVERYTHING, credentials, NOW, Revision(revision))


def book_of(records: Iterable[CallerRecord], clock: ManualClock | None = None) -> CallerBook:
    """A book with these callers."""
    return CallerBook(records, (clock or ManualClock()).now)


def record_of(found: Identified | None) -> CallerRecord | None:
    """Who was identified."""
    return None if found is None else found.record


def bearer(*keys: Token | str) -> list[tuple[str, str | bytes]]:
    """The metadata of a call with these keys."""
    texts = [key.reveal() if isinstance(key, Token) else key for key in keys]
    return [("authorization", f"Bearer {text}") for text in texts]


def test_an_empty_book_is_open() -> None:
    """Without callers nobody is identified, whatever is sent; with one, the book is not open."""
    key, credential = key_of()
    book = book_of([])
    assert book.is_open
    assert book.identify(bearer(key)) is None
    assert book.identify(None) is None
    book.replace([record("ops", credential)])
    assert not book.is_open


def test_each_of_several_keys_proves_the_caller() -> None:
    """A caller is identified by any of its keys, and not by one that has expired, whose remedy is named."""
    clock = ManualClock()
    (old, ending), (new, lasting), (gone, ended) = key_of(NOW + 10), key_of(), key_of(NOW)
    shop = record("shop", ended, ending, lasting)
    book = book_of([shop, record("ops", key_of()[1])], clock)
    for key in (old, new):
        assert record_of(book.identify(bearer(key))) is shop
    with pytest.raises(Unauthenticated, match="the key has expired; ask an admin"):
        book.identify(bearer(gone))
    clock.advance(10)
    with pytest.raises(Unauthenticated, match="the key has expired"):
        book.identify(bearer(old))
    assert record_of(book.identify(bearer(new))) is shop


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER ", "Bearer  "])
def test_the_scheme_has_any_case(scheme: str) -> None:
    """The scheme may be in any case, and spaces around the key do not matter (RFC 9110, section 11.1)."""
    key, credential = key_of()
    ops = record("ops", credential)
    assert record_of(book_of([ops]).identify([("authorization", f"{scheme}{key.reveal()} ")])) is ops


def test_a_wrong_key_and_an_unknown_one_are_not_told_apart() -> None:
    """A key with the id of a known one and another secret gets the same error as one with an unknown id."""
    key, credential = key_of()
    book = book_of([record("ops", credential)])
    stranger = key_of()[0]
    wrong = key.reveal()[:-1] + ("A" if key.reveal()[-1] != "A" else "B")
    errors = []
    for sent in (wrong, stranger.reveal()):
        with pytest.raises(Unauthenticated) as caught:
            book.identify(bearer(sent))
        errors.append(str(caught.value))
        assert sent not in errors[-1]
    assert errors == ["the key is unknown or revoked; ask an admin for a new one (sessionctl callers rotate)"] * 2


def test_what_is_sent_wrongly() -> None:
    """Two keys, bytes, another scheme and other texts are refused with the form, which shows nothing that was sent."""
    key, credential = key_of()
    book = book_of([record("ops", credential)])
    cases: list[Any] = [
        bearer(key, key),
        [("authorization", key.reveal())],
        [("authorization", f"Basic {key.reveal()}")],
        [("authorization", f"Bearer {key.reveal()}".encode())],
        [("authorization", f"Bearer{key.reveal()}")],
        [("authorization", "")],
        bearer("canary"),
    ]
    for metadata in cases:
        with pytest.raises(Unauthenticated, match="send it once, as `Bearer KEY`") as caught:
            book.identify(metadata)
        assert key.reveal() not in str(caught.value)
        assert "canary" not in str(caught.value)


def named(kind: CredentialKind, name: str, expires: int | None = None) -> Credential:
    """A credential that a connection proves."""
    return Credential(name, kind, name.encode(), NOW, None if expires is None else Instant(expires))


def test_a_connection_may_prove_the_caller() -> None:
    """A name that the connection proves identifies its caller; two names of one caller do too, two callers do not."""
    spiffe, uid = named(CredentialKind.CERTIFICATE, "spiffe://a/shop"), named(CredentialKind.UID, "1000")
    shop, edge = record("shop", spiffe, uid), record("edge", named(CredentialKind.UID, "1001"))
    book = book_of([shop, edge])
    proof, mine, other = (
        (CredentialKind.CERTIFICATE, "spiffe://a/shop"),
        (CredentialKind.UID, "1000"),
        (CredentialKind.UID, "1001"),
    )
    assert record_of(book.identify((), [mine])) is shop
    assert record_of(book.identify(None, [proof, mine])) is shop
    assert record_of(book.identify((), [other])) is edge
    with pytest.raises(Unauthenticated, match="names of several callers; send a key"):
        book.identify((), [mine, other])
    for proofs in ([(CredentialKind.CERTIFICATE, "1000")], [(CredentialKind.UID, "spiffe://a/shop")], []):
        with pytest.raises(Unauthenticated, match="no credentials: send the key of a caller"):
            book.identify((), proofs)


def test_a_key_counts_before_the_connection() -> None:
    """A key decides whatever the connection proves, and a wrong key is refused although the connection proves one."""
    key, credential = key_of()
    ops, edge = record("ops", credential), record("edge", named(CredentialKind.UID, "1001"))
    book = book_of([ops, edge])
    proofs = [(CredentialKind.UID, "1001")]
    assert record_of(book.identify(bearer(key), proofs)) is ops
    with pytest.raises(Unauthenticated):
        book.identify(bearer(key_of()[0]), proofs)


def test_an_expired_name_proves_nothing() -> None:
    """A name whose credential has expired does not identify its caller."""
    book = book_of([record("edge", named(CredentialKind.UID, "1001", NOW))])
    with pytest.raises(Unauthenticated, match="no credentials"):
        book.identify((), [(CredentialKind.UID, "1001")])


def test_what_a_connection_proves_may_end_before_it() -> None:
    """What a connection proves counts until the end that is given, and not any more at that moment; a key goes on."""
    clock = ManualClock()
    key, credential = key_of()
    ops, edge = record("ops", credential), record("edge", named(CredentialKind.CERTIFICATE, "edge.example"))
    book = book_of([ops, edge], clock)
    proofs, until = [(CredentialKind.CERTIFICATE, "edge.example")], Instant(NOW + 10)
    clock.advance(9)
    assert record_of(book.identify((), proofs, until)) is edge
    clock.advance(1)
    with pytest.raises(Unauthenticated, match="no credentials"):
        book.identify((), proofs, until)
    assert record_of(book.identify(bearer(key), proofs, until)) is ops


def test_a_change_counts_for_what_is_proved() -> None:
    """After a rotation the new key counts and the old one does not; after a removal neither; others are untouched."""
    (old, first), (new, second), (other, third) = key_of(), key_of(), key_of()
    ops = record("ops", third)
    book = book_of([record("shop", first), ops])
    rotated = record("shop", second, revision=2)
    book.apply({"shop": rotated})
    assert record_of(book.identify(bearer(new))) is rotated
    assert record_of(book.identify(bearer(other))) is ops
    with pytest.raises(Unauthenticated):
        book.identify(bearer(old))
    book.apply({"shop": None})
    assert book.records == [ops]
    for key in (old, new):
        with pytest.raises(Unauthenticated):
            book.identify(bearer(key))


def test_a_change_counts_for_a_connection_that_is_known() -> None:
    """What a connection proved before counts no more after a change of its caller, or after the name has expired."""
    clock = ManualClock()
    name = named(CredentialKind.CERTIFICATE, "edge.example", NOW + 10)
    edge = record("edge", name)
    book = book_of([edge, record("ops", key_of()[1])], clock)
    proofs = [(CredentialKind.CERTIFICATE, "edge.example")]
    assert record_of(book.identify((), proofs)) is edge
    changed = record("edge", name, revision=2)
    book.apply({"edge": changed})
    assert record_of(book.identify((), proofs)) is changed
    clock.advance(10)
    with pytest.raises(Unauthenticated):
        book.identify((), proofs)
    clock.advance(-5)
    book.apply({"edge": None})
    with pytest.raises(Unauthenticated):
        book.identify((), proofs)


def test_who_changed_is_announced() -> None:
    """A listener gets the names of callers that came, changed or went, once for each change, and of no others."""
    (_, first), (_, second) = key_of(), key_of()
    ops, shop = record("ops", first), record("shop", second)
    book = book_of([ops])
    heard: list[frozenset[str]] = []
    book.listen(heard.append)
    book.replace([ops])
    book.apply({})
    book.replace([ops, shop])
    book.replace([replace(ops, revision=Revision(2)), shop])
    book.apply({"shop": None})
    assert heard == [{"shop"}, {"ops"}, {"shop"}]


def test_callers_that_may_have_changed_are_not_trusted() -> None:
    """While other processes may have changed callers, a good key is UNAVAILABLE; without callers nothing is refused."""
    key, credential = key_of()
    ops = record("ops", credential)
    book = book_of([ops])
    book.is_confirmed = lambda: False
    with pytest.raises(Unavailable, match="cannot tell who may call"):
        book.identify(bearer(key))
    book.is_confirmed = lambda: True
    assert record_of(book.identify(bearer(key))) is ops
    book.replace([])
    book.is_confirmed = lambda: False
    assert book.identify(bearer(key)) is None


def test_the_last_caller_opens_the_book_again() -> None:
    """If all callers are gone, the book is open again, and no key of before is known."""
    key, credential = key_of()
    book = book_of([record("ops", credential)])
    book.replace([])
    assert book.is_open
    assert book.identify(bearer(key)) is None
