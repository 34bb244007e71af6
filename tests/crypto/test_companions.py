"""Companion and CSRF tokens: what they are bound to, when they become invalid, and which requirements are unmet."""

from __future__ import annotations

import re
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest

from sessiond.authority.requirements import Requirements, unmet
from sessiond.crypto import base64url
from sessiond.crypto.companions import Companion, issue_companion, open_companion
from sessiond.crypto.csrf import csrf_digest, csrf_token, csrf_token_matches, csrf_token_of
from sessiond.crypto.tokens import KEY_BYTES, KeyRing, OpenedToken, Token, TokenForged, TokenMalformed, bind
from sessiond.domain.policy import PRESETS
from sessiond.domain.requirements import AuthenticationRequirements, RequirementKind
from sessiond.domain.values import Authentication, Instant, Millis, SessionId
from tests.contracts import samples
from tests.support.clock import START

KEYS = [bytes([number]) * KEY_BYTES for number in range(1, 4)]
RING = KeyRing(KEYS[:1])
SECRET, ROLLED = bytes(range(16)), bytes(range(16, 32))
SESSION, OTHER = samples.session_id(), samples.session_id()
EXPIRES = Instant(START + 1_000)
POLICY = replace(PRESETS["owasp-low"], csrf_overlap=Millis(1_000))
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def opened(session: SessionId = SESSION, secret: bytes = SECRET, generation: int = 0) -> OpenedToken:
    """Return an opened token of that session, secret and generation."""
    return RING.open(RING.seal(session, generation, secret).reveal())


def companion(of: OpenedToken | None = None, purpose: str = "pay", ring: KeyRing = RING) -> Companion:
    """Return a companion token as it comes back from the client."""
    back = open_companion(ring, issue_companion(ring, of or opened(), purpose, EXPIRES).reveal())
    assert back is not None
    return back


# Companion tokens


def test_a_companion_comes_back() -> None:
    """A companion token returns its session, expiry and purpose, and belongs to the token it was issued for."""
    back = companion()
    assert (back.session_id, back.expires) == (SESSION, EXPIRES)
    assert back.is_for("pay")
    assert back.belongs_to(opened())


@pytest.mark.parametrize("purpose", ["", "Pay", "pay ", "payday", "ämter"])
def test_a_companion_is_for_one_purpose(purpose: str) -> None:
    """A companion token is valid for its own purpose only, whatever characters a purpose contains."""
    assert not companion().is_for(purpose)
    assert companion(purpose=purpose).is_for(purpose)


def test_a_companion_outlives_renewals() -> None:
    """A companion token stays valid when the session's token is renewed, because the secret stays the same."""
    assert companion().belongs_to(opened(generation=7))


def test_a_companion_dies_at_a_roll() -> None:
    """A roll changes the secret, so older companion tokens no longer belong to the session's token."""
    assert not companion().belongs_to(opened(secret=ROLLED))


def test_a_companion_is_of_one_session() -> None:
    """A companion token does not belong to another session, even if that session has the same secret."""
    assert not companion().belongs_to(opened(OTHER))
    assert not companion().belongs_to(opened(OTHER, ROLLED))


def test_a_changed_companion_is_none() -> None:
    """Changing any single character of a companion token to any other makes it invalid."""
    text = issue_companion(RING, opened(), "pay", EXPIRES).reveal()
    for position in range(len(text)):
        for character in ALPHABET + "=+/ \0é":
            if character != text[position]:
                assert open_companion(RING, text[:position] + character + text[position + 1 :]) is None


@pytest.mark.parametrize("text", ["", "x", "A" * 95, "A" * 96, "A" * 97, "é" * 96, "\ud800" * 96, "A" * 1_000_000])
def test_what_was_never_issued_is_none(text: str) -> None:
    """Text that was never issued as a companion token is refused without an exception."""
    assert open_companion(RING, text) is None


def test_a_companion_is_no_other_secret() -> None:
    """Session tokens and bytes sealed for other purposes are not companion tokens, and the reverse also holds."""
    issued = issue_companion(RING, opened(), "pay", EXPIRES).reveal()
    assert open_companion(RING, RING.seal(SESSION, 0, SECRET).reveal()) is None
    assert open_companion(RING, RING.seal_bytes(bytes(56), b"sessiond/ticket/v1").reveal()) is None
    with pytest.raises(TokenMalformed):
        RING.open(issued)


def test_a_companion_under_a_rotated_key() -> None:
    """A companion token opens under an older key of the ring, and no longer once that key is removed."""
    text = issue_companion(RING, opened(), "pay", EXPIRES).reveal()
    back = open_companion(KeyRing([KEYS[1], KEYS[0]]), text)
    assert back is not None
    assert back.belongs_to(opened())
    assert open_companion(KeyRing(KEYS[1:]), text) is None


def test_a_companion_shows_nothing() -> None:
    """Neither the companion token nor its opened form shows its purpose or what binds it to the secret."""
    shown = f"{issue_companion(RING, opened(), 'pay', EXPIRES)!r} {companion()!r}"
    assert repr(opened().bind(b"companion")[:16]) not in shown
    assert "binding" not in shown
    assert "purpose" not in shown


# CSRF tokens


def test_the_csrf_token_is_the_same_until_the_next_roll() -> None:
    """A session's CSRF token is 43 characters of base64url and stays the same when the session's token is renewed."""
    token = csrf_token(opened())
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", token.reveal())
    assert token == csrf_token(opened(generation=9)) == csrf_token_of(SESSION, SECRET)
    assert csrf_token_matches(opened(generation=9), token.reveal())


@pytest.mark.parametrize(("session", "secret"), [(SESSION, ROLLED), (OTHER, SECRET), (OTHER, ROLLED)])
def test_the_csrf_token_of_another_session_or_secret(session: SessionId, secret: bytes) -> None:
    """After a roll, and in another session, the CSRF token is different and does not match."""
    assert csrf_token(opened(session, secret)) != csrf_token(opened())
    assert not csrf_token_matches(opened(session, secret), csrf_token(opened()).reveal())


@pytest.mark.parametrize("change", ["", "x", "{}=", "{} ", "é{}", "é" * 43, "\ud800" * 43, "A" * 43, "{}{}"])
def test_other_text_is_no_csrf_token(change: str) -> None:
    """Only the exact text matches, and no text raises an exception."""
    assert not csrf_token_matches(opened(), change.replace("{}", csrf_token(opened()).reveal()))


def test_the_earlier_csrf_token_matches_its_digest() -> None:
    """Beside the current CSRF token, the one whose digest is given matches, and the current one still does."""
    earlier, now = csrf_token(opened()), opened(secret=ROLLED)
    digest = csrf_digest(earlier)
    assert csrf_token_matches(now, earlier.reveal(), digest)
    assert csrf_token_matches(now, csrf_token(now).reveal(), digest)
    assert not csrf_token_matches(now, earlier.reveal())


@pytest.mark.parametrize("change", ["", "x", "{}=", "{} ", "é{}", "é" * 43, "\ud800" * 43, "A" * 43, "{}{}"])
def test_other_text_is_no_earlier_csrf_token(change: str) -> None:
    """Only the exact text of the earlier CSRF token matches its digest, and no text raises an exception."""
    earlier = csrf_token(opened())
    text = change.replace("{}", earlier.reveal())
    assert not csrf_token_matches(opened(secret=ROLLED), text, csrf_digest(earlier))


def test_a_csrf_digest_is_no_csrf_token() -> None:
    """The digest is the SHA-256 of the token's text; whoever reads it in the store has nothing that is accepted."""
    earlier = csrf_token(opened())
    digest = csrf_digest(earlier)
    assert digest == sha256(earlier.reveal().encode()).digest()
    for text in (digest.hex(), base64url.encode(digest), digest.decode("latin-1")):
        assert not csrf_token_matches(opened(secret=ROLLED), text, digest)


def test_the_csrf_token_needs_no_key() -> None:
    """The CSRF token depends on the session's secret and not on the key, so key rotation does not affect pages."""
    other = KeyRing(KEYS[1:2])
    assert csrf_token(other.open(other.seal(SESSION, 0, SECRET).reveal())) == csrf_token(opened())


def test_what_is_derived_is_told_apart() -> None:
    """Each label, session and secret yields 32 different bytes, none of which contain the secret."""
    given = {
        bind(secret, session, label)
        for secret in (SECRET, ROLLED)
        for session in (SESSION, OTHER)
        for label in (b"csrf", b"companion", b"")
    }
    assert len(given) == 12
    assert {len(bound) for bound in given} == {32}
    assert not any(SECRET in bound for bound in given)
    assert opened().bind(b"csrf") == bind(SECRET, SESSION, b"csrf")


# Sealing of other lengths


@pytest.mark.parametrize("length", [0, 1, 2, 3, 36, 54, 55, 56])
def test_bytes_of_any_length_are_sealed(length: int) -> None:
    """Bytes of any length open as they were sealed, but only for their own purpose and length."""
    plain = bytes(range(length))
    text = RING.seal_bytes(plain, b"one").reveal()
    assert RING.open_bytes(text, b"one", length) == plain
    with pytest.raises(TokenForged):
        RING.open_bytes(text, b"two", length)
    for other in (length - 1, length + 1):
        with pytest.raises(TokenMalformed):
            RING.open_bytes(text, b"one", other)


@pytest.mark.parametrize("length", [0, 1, 2])
def test_sealed_bytes_have_one_spelling(length: int) -> None:
    """With any other last character a sealed text does not open, even if it decodes to the same bytes."""
    text = RING.seal_bytes(bytes(length), b"one").reveal()
    for character in ALPHABET:
        if character != text[-1]:
            with pytest.raises((TokenMalformed, TokenForged)):
                RING.open_bytes(text[:-1] + character, b"one", length)


# What a request needs


def missing(
    requirements: Requirements, of: OpenedToken | None = None, after: int = 0, **fields: Any
) -> list[RequirementKind]:
    """Return the requirements that are unmet so many milliseconds after the start."""
    session = samples.session(id=SESSION, **fields)
    return [one.kind for one in unmet(RING, of or opened(), session, requirements, POLICY, Instant(START + after))]


def pay(token: Token | None = None, purpose: str = "pay") -> Requirements:
    """Return the requirement of a companion token, with the token that was presented."""
    return Requirements(companion=(purpose, token or issue_companion(RING, opened(), "pay", EXPIRES)))


def test_nothing_requirements() -> None:
    """A request without requirements has no unmet requirement."""
    assert missing(Requirements()) == []
    assert Requirements().foreign_companion(RING, opened()) is None


@pytest.mark.parametrize(("after", "good"), [(0, True), (999, True), (1_000, False), (1_001, False)])
def test_a_companion_expires(after: int, good: bool) -> None:
    """A companion token is valid until one millisecond before its expiry."""
    assert missing(pay(), after=after) == ([] if good else [RequirementKind.COMPANION_TOKEN])


@pytest.mark.parametrize(
    ("requirements", "of"),
    [
        (pay(Token("")), opened()),
        (pay(Token("é" * 96)), opened()),
        (pay(RING.seal(SESSION, 0, SECRET)), opened()),
        (pay(purpose="delete"), opened()),
        (pay(), opened(secret=ROLLED)),
        (pay(), opened(OTHER)),
    ],
)
def test_a_companion_that_is_not_good_enough(requirements: Requirements, of: OpenedToken) -> None:
    """A companion token that is missing, invalid, for another purpose, rolled away or another session's is refused."""
    assert missing(requirements, of) == [RequirementKind.COMPANION_TOKEN]


def test_a_companion_of_another_session_is_foreign() -> None:
    """A companion token of another session is recognized as such, together with the session it belongs to."""
    foreign = pay().foreign_companion(RING, opened(OTHER))
    assert foreign is not None
    assert (foreign.session_id, foreign.expires) == (SESSION, EXPIRES)


@pytest.mark.parametrize(
    ("requirements", "of"),
    [
        (pay(), opened()),
        (pay(purpose="delete"), opened()),
        (pay(), opened(secret=ROLLED)),
        (pay(Token("")), opened()),
        (pay(Token("A" * 96)), opened()),
        (pay(RING.seal(OTHER, 0, SECRET)), opened()),
    ],
)
def test_a_stale_companion_is_not_foreign(requirements: Requirements, of: OpenedToken) -> None:
    """A companion token of the session itself, or one that was never issued, does not count as another session's."""
    assert requirements.foreign_companion(RING, of) is None


@pytest.mark.parametrize(
    ("presented", "good"),
    [(csrf_token(opened()), True), (csrf_token(opened(OTHER)), False), (Token(""), False), (Token("é"), False)],
)
def test_a_csrf_token_that_is_requirements(presented: Token, good: bool) -> None:
    """If a CSRF token is required, only the session's own is accepted."""
    assert missing(Requirements(csrf=presented)) == ([] if good else [RequirementKind.CSRF_TOKEN])


@pytest.mark.parametrize(("after", "good"), [(0, True), (999, True), (1_000, False), (1_001, False)])
def test_an_earlier_csrf_token_is_accepted_during_the_overlap(after: int, good: bool) -> None:
    """After a step-up the earlier CSRF token meets the requirement until the overlap's end, the current one always."""
    earlier, now = csrf_token(opened()), opened(secret=ROLLED)
    fields: dict[str, Any] = {"earlier_csrf": csrf_digest(earlier), "earlier_csrf_at": START}
    assert missing(Requirements(csrf=earlier), now, after, **fields) == ([] if good else [RequirementKind.CSRF_TOKEN])
    assert missing(Requirements(csrf=csrf_token(now)), now, after, **fields) == []


@pytest.mark.parametrize("presented", [Token(""), csrf_token(opened(OTHER)), csrf_token(opened(secret=b"?" * 16))])
def test_during_the_overlap_only_these_two_are_accepted(presented: Token) -> None:
    """During the overlap no CSRF token meets the requirement but the session's current and earlier one."""
    fields: dict[str, Any] = {"earlier_csrf": csrf_digest(csrf_token(opened())), "earlier_csrf_at": START}
    assert missing(Requirements(csrf=presented), opened(secret=ROLLED), **fields) == [RequirementKind.CSRF_TOKEN]


def test_all_that_is_missing_is_told_together() -> None:
    """All unmet requirements are reported at once, each with a remedy, and no remedy contains a secret."""
    requirements = Requirements(
        AuthenticationRequirements(2, Millis(10)), ("pay", Token("wrong-companion")), Token("wrong-csrf")
    )
    session = samples.session(id=SESSION, authentication=Authentication(1, ("pwd",), START))
    told = unmet(RING, opened(), session, requirements, POLICY, Instant(START + 10))
    assert [one.kind for one in told] == [
        RequirementKind.LEVEL,
        RequirementKind.AUTHENTICATION_AGE,
        RequirementKind.COMPANION_TOKEN,
        RequirementKind.CSRF_TOKEN,
    ]
    assert all(one.remedy for one in told)
    assert not any("wrong" in one.remedy for one in told)
    assert "wrong" not in repr(requirements)


def test_the_session_shows_what_counts() -> None:
    """Level and age are checked against the authentication that the session shows."""
    fresh = Authentication(2, ("pwd", "otp"), START)
    assert missing(Requirements(AuthenticationRequirements(2, Millis(10))), after=9, authentication=fresh) == []
    assert missing(Requirements(AuthenticationRequirements(1)), authentication=None) == [RequirementKind.LEVEL]
