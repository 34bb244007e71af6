"""The parts of an authority that count something."""

from __future__ import annotations

from sessiond.access.audit import Audit
from sessiond.access.limit_log import LimitLog
from sessiond.access.tls_watch import TlsWatch
from sessiond.authority.authority import Authority
from sessiond.authority.ring_keeper import RingKeeper
from sessiond.authority.sweeper import Sweeper
from sessiond.domain.immutable import immutable
from sessiond.eventlog.event_counts import EventCounts
from sessiond.rpc.call_stats import CallStats

__all__ = ["Watched"]


@immutable
class Watched:
    """The parts of an authority that count something. `tls` is None if it shows no certificate."""

    authority: Authority
    sweeper: Sweeper
    keeper: RingKeeper
    calls: CallStats
    events: EventCounts
    limits: LimitLog
    audit: Audit
    tls: TlsWatch | None
