"""Callers: who calls, and what of that may be seen."""

from __future__ import annotations

from datetime import timedelta

import pytest

from sessiond.access.book import CallerBook
from sessiond.access.callers import Callers, CallersOfWorkers
from sessiond.access.identity import AuthContext
from sessiond.domain.access import EVERYTHING, CallerRecord, Credential, CredentialKind
from sessiond.domain.call import PEER_KEY, Call, Caller
from sessiond.domain.errors import Unauthenticated
from sessiond.domain.policy import PRESETS
from sessiond.domain.values import NOBODY, Cause, CauseKind, Instant, Revision
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import create, story_of
from tests.support.certificates import Authority
from tests.support.clock import START, ManualClock
from tests.support.server import AsyncStub

METADATA = (("authorization", "Bearer s3cret"), ("trace-bin", b"\0\1"))
CA = Authority()
NOW = Instant(START)


@pytest.mark.parametrize("peer", ["ipv4:192.0.2.1:5000", "unix:/run/app.sock", ""])
def test_everybody_is_the_same_caller(peer: str) -> None:
    """Whoever calls is identified as one caller, with the peer and the metadata of this call."""
    caller = Callers().identify(peer, METADATA)
    assert (caller.name, caller.peer, caller.metadata) == ("caller", peer, METADATA)


def test_a_call_without_metadata() -> None:
    """A transport that gives no metadata is a call with none."""
    assert Callers().identify("", None).metadata == ()


def test_credentials_do_not_show() -> None:
    """Metadata may hold credentials: they are in no repr, neither of the caller nor of its call."""
    caller = Callers().identify("ipv4:192.0.2.1:5000", METADATA)
    call = Call("default", PRESETS["owasp-low"], caller, NOBODY)
    assert "caller" in repr(call)
    assert "s3cret" not in repr(caller) + repr(call)


@pytest.mark.parametrize("name", ["shop", "spiffe://example.org/shop"])
def test_the_caller_is_the_actor(name: str) -> None:
    """What a call does is caused by its caller, for the reason that it gave."""
    call = Call("default", PRESETS["owasp-low"], Caller(name), NOBODY, "logout")
    assert call.cause == Cause(CauseKind.REQUEST, name, "logout")


async def test_events_name_the_caller(stub: AsyncStub) -> None:
    """An event that a call caused bears the caller's name as its actor."""
    mine = await create(stub)
    (event,) = await story_of(stub, mine.token)
    assert (event.cause.actor, event.cause.kind) == ("caller", pb.CAUSE_KIND_REQUEST)


def shown(*names: str, end: timedelta = timedelta(days=3650)) -> AuthContext:
    """The properties of a connection over which a certificate with these names was shown."""
    return {"transport_security_type": [b"ssl"], "x509_pem_cert": [CA.client(*names, end=end).certificate]}


def callers_by(*names: str, clock: ManualClock | None = None) -> Callers:
    """Callers of whom each is proved by the name in a certificate, and is called as the last part of it."""
    records = [
        CallerRecord(
            name.rpartition("/")[2],
            EVERYTHING,
            (Credential(name, CredentialKind.CERTIFICATE, name.encode(), NOW),),
            NOW,
            Revision(7),
        )
        for name in names
    ]
    return Callers(CallerBook(records, (clock or ManualClock()).now), reads_certificates=True)


@pytest.mark.parametrize("name", ["spiffe://test/shop", "https://test/shop", "shop.example"])
def test_a_certificate_proves_a_caller(name: str) -> None:
    """A SPIFFE ID, another URI or a DNS name identifies the caller that has it, whose grants and version count."""
    caller = callers_by(name, "spiffe://test/other").identify("ipv4:192.0.2.1:1", None, shown(name))
    assert (caller.name, caller.grants, caller.version) == (name.rpartition("/")[2], EVERYTHING, 7)
    assert caller.certificate is not None
    assert name in (*caller.certificate.uris, *caller.certificate.dns_names)


@pytest.mark.parametrize(
    "names", [("spiffe://test/stranger",), ("*.shop.example",), ("spiffe://test/shop", "https://x/")]
)
def test_another_name_proves_nobody(names: tuple[str, ...]) -> None:
    """A name of no caller, a wildcard, and a SPIFFE ID beside another URI prove nobody."""
    callers = callers_by("spiffe://test/shop", "a.shop.example")
    with pytest.raises(Unauthenticated, match="no credentials: send the key of a caller"):
        callers.identify("", None, shown(*names))


def test_names_of_two_callers_prove_neither() -> None:
    """A certificate with the names of two callers is refused, with the remedy."""
    callers = callers_by("https://test/shop", "desk.example")
    with pytest.raises(Unauthenticated, match="names of several callers; send a key"):
        callers.identify("", None, shown("https://test/shop", "desk.example"))


def test_a_certificate_ends_while_its_connection_goes_on() -> None:
    """When a certificate has ended, its names prove nobody any more, although the connection is still open."""
    clock = ManualClock()
    callers, proved = callers_by("spiffe://test/shop", clock=clock), shown("spiffe://test/shop")
    ends = callers.identify("", None, proved).certificate
    assert ends is not None
    clock.advance(ends.not_after - clock.now() - 1)
    assert callers.identify("", None, proved).name == "shop"
    clock.advance(1)
    with pytest.raises(Unauthenticated):
        callers.identify("", None, proved)


def test_without_callers_a_certificate_is_kept() -> None:
    """As long as there is no caller, everyone has the same name, and what the connection proves is known."""
    caller = callers_by().identify("", None, shown("spiffe://test/shop"))
    assert caller.name == "caller"
    assert caller.certificate is not None
    assert caller.certificate.spiffe_id == "spiffe://test/shop"


def test_what_reaches_an_owner_proves_no_certificate() -> None:
    """The connection of a worker proves nothing about those whose calls it forwards."""
    book = callers_by("spiffe://test/shop")._book
    with pytest.raises(Unauthenticated):
        CallersOfWorkers(book).identify("unix:", [(PEER_KEY, "ipv4:192.0.2.1:1")], shown("spiffe://test/shop"))
