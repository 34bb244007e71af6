"""Units of maintenance, each against the state that it decides on."""

from __future__ import annotations

from dataclasses import replace

from sessiond.changes.maintenance import Expire
from sessiond.domain.event import EventType
from sessiond.domain.policy import PRESETS
from sessiond.domain.session import Activity
from sessiond.domain.values import ClientContext, Instant, Revision
from sessiond.eventlog.work import Read, Work
from tests.contracts import samples
from tests.eventlog.memory import Memory
from tests.support.clock import START

POLICY = PRESETS["owasp-low"]


def test_the_sweeper_keeps_the_last_client() -> None:
    """Activity that only memory has is written with its client when the sweeper finds the session overdue."""
    stored = samples.session(START - 10, idle_deadline=Instant(START))
    seen = ClientContext("192.0.2.1", "Firefox")
    active = replace(stored, last_active=Instant(START), idle_deadline=Instant(START + 10), last_client=seen)
    work = Work(START, Revision(0), Read({active.id: active}), Memory())
    assert work.run(Expire([stored.id], {}, POLICY)).result == 0
    assert work.changes.activity == {stored.id: Activity(stored.id, Instant(START), Instant(START + 10), seen)}
    assert work.changes.events == []


def test_the_sweeper_ends_what_is_overdue_at_its_deadline() -> None:
    """A session past its deadline ends at the deadline itself, with its event; what has ended before stays so."""
    overdue = samples.session(START - 10, idle_deadline=Instant(START - 5))
    ended = samples.session(START - 10, idle_deadline=Instant(START - 5), ending=samples.ending(START - 7))
    unknown = samples.session_id()
    work = Work(START, Revision(0), Read({overdue.id: overdue, ended.id: ended}), Memory())
    assert work.run(Expire([unknown, ended.id, overdue.id], {"default": POLICY}, POLICY)).result == 1
    [event] = work.changes.events
    assert (event.type, event.session_id) == (EventType.SESSION_EXPIRED, overdue.id)
    [session] = work.changes.sessions.values()
    assert session.ending is not None
    assert (session.id, session.ending.at) == (overdue.id, START - 5)
    assert work.changes.retention == {overdue.id: POLICY.retention}
