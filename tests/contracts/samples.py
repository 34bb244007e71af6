"""Sessions and events for tests: one call makes a whole one, and a test names only what it is about."""

from __future__ import annotations

import ipaddress
import itertools
import string
from typing import Any

from hypothesis import strategies as st

from sessiond.domain.event import Event, EventType
from sessiond.domain.session import Elevation, Ending, Session
from sessiond.domain.signals import Reaction, Signal, SignalType
from sessiond.domain.values import (
    Authentication,
    Cause,
    CauseKind,
    ClientContext,
    Instant,
    Labels,
    Lifetimes,
    Millis,
    Revision,
    SessionId,
)
from sessiond.store.contract import KeptAnswer
from tests.support.clock import START

_numbers = itertools.count(1)
_MOST = 2**53  # milliseconds: far beyond the year 9999

REVOKED = Cause(CauseKind.REQUEST, "caller", "logout")


def session_id(at: int = START) -> SessionId:
    """A fresh id of a session opened at that time; ids made later are greater."""
    return SessionId(at.to_bytes(6, "big") + b"\x70\x00\x80" + next(_numbers).to_bytes(7, "big"))


def session(created: int = START, **fields: Any) -> Session:
    """A live session without deadlines, opened at `created`, with these fields."""
    values: dict[str, Any] = {
        "id": session_id(created),
        "application": "default",
        "subject": "ada",
        "created": created,
        "last_active": created,
        "idle_deadline": None,
        "absolute_deadline": None,
        "generation": 0,
        "generation_began": created,
        "digest": bytes(32),
    }
    return Session(**(values | fields))


def ending(at: int, kind: CauseKind = CauseKind.REQUEST) -> Ending:
    """An ending of that kind."""
    return Ending(Instant(at), Cause(kind, "caller", "logout") if kind is CauseKind.REQUEST else Cause(kind))


def event(revision: int, at: int = START, **fields: Any) -> Event:
    """An event of a subject's session, with these fields."""
    values: dict[str, Any] = {
        "type": EventType.SESSION_CREATED,
        "application": "default",
        "subject": "ada",
        "session_id": session_id(at),
        "cause": REVOKED,
        "client": ClientContext(),
    }
    return Event(revision=Revision(revision), at=Instant(at), **(values | fields))


def other_event(revision: int, at: int = START, **fields: Any) -> Event:
    """An event about no single session: a source that is locked, with these fields."""
    values: dict[str, Any] = {
        "type": EventType.SOURCE_LOCKED,
        "subject": "",
        "session_id": None,
        "source": "192.0.2.0/24",
    }
    return event(revision, at, **(values | fields))


def answer(expires: int, **fields: Any) -> KeptAnswer:
    """A kept answer under a key of its own, with these fields."""
    number = next(_numbers)
    values: dict[str, Any] = {
        "key": number.to_bytes(32, "big"),
        "parameters": number.to_bytes(32, "little"),
        "sealed": b"sealed answer %d" % number,
    }
    return KeptAnswer(expires=Instant(expires), **(values | fields))


def ip_range(network: str) -> tuple[str, str]:
    """The first and last address of a network, as a query has them."""
    parsed = ipaddress.ip_network(network)
    base = 0xFFFF << 32 if parsed.version == 4 else 0
    return f"{base + int(parsed[0]):032x}", f"{base + int(parsed[-1]):032x}"


# Any value that the types allow, for round trips.

_instants = st.integers(0, _MOST).map(Instant)
_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
_words = st.text(string.ascii_letters + string.digits + "-_.", min_size=1, max_size=12)
_digests = st.binary(min_size=32, max_size=32)
_clients = st.builds(
    ClientContext,
    ip_address=st.just("") | st.ip_addresses().map(str),
    user_agent=_texts,
    certificate_thumbprint=st.just(b"") | _digests,
    device_id=_texts,
)
_authentications = st.builds(Authentication, st.integers(0, 3), st.lists(_words, max_size=4).map(tuple), _instants)
_causes = st.builds(Cause, st.sampled_from(CauseKind), _texts, _texts)
_elevations = st.builds(Elevation, _authentications, _instants)
_signals = st.builds(Signal, st.sampled_from(SignalType), _texts, _texts)
_revisions = st.integers(0, _MOST).map(Revision)
_timeouts = st.none() | st.integers(1, _MOST).map(Millis)


def _sorted(labels: dict[str, str]) -> Labels:
    return tuple(sorted(labels.items()))


_labels = st.dictionaries(_texts, _texts, max_size=8).map(_sorted)

any_live_session = st.builds(
    Session,
    id=st.builds(session_id),
    application=_words,
    subject=_texts,
    created=_instants,
    last_active=_instants,
    idle_deadline=st.none() | _instants,
    absolute_deadline=st.none() | _instants,
    generation=st.integers(0, 2**32 - 1),
    generation_began=_instants,
    digest=_digests,
    rolled_digest=st.none() | _digests,
    rolled_at=st.none() | _instants,
    authentication=st.none() | _authentications,
    client=_clients,
    data_version=st.integers(0, 2**53),
    data_bytes=st.integers(0, 2**31),
    persistent=st.booleans(),
    must_authenticate=st.booleans(),
    login_page=st.booleans(),
    elevation=st.none() | _elevations,
    old_token=st.none() | st.integers(0, 2**32 - 1),
    earlier_csrf=st.none() | _digests,
    earlier_csrf_at=st.none() | _instants,
    last_client=st.builds(ClientContext, ip_address=st.just("") | st.ip_addresses().map(str), user_agent=_texts),
    labels=_labels,
    lifetimes=st.builds(Lifetimes, _timeouts, _timeouts),
    revision=_revisions,
)
any_ending = st.builds(Ending, _instants, _causes)
any_event = st.builds(
    Event,
    revision=st.just(Revision(0)),
    type=st.sampled_from(EventType),
    at=_instants,
    application=_words,
    subject=_texts,
    session_id=st.none() | st.builds(session_id),
    cause=_causes,
    client=_clients,
    generation=st.integers(0, 2**32 - 1),
    authentication=st.none() | _authentications,
    signals=st.lists(_signals, max_size=3).map(tuple),
    reaction=st.none() | st.sampled_from(Reaction),
    source=_texts,
    labels=_labels,
)
any_answer = st.builds(
    KeptAnswer,
    key=_digests,
    parameters=_digests,
    sealed=st.binary(max_size=100),
    expires=_instants,
    session_id=st.none() | st.builds(session_id),
    generation=st.integers(0, 2**32 - 1),
)
