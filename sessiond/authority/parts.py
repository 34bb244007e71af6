"""The components that the use cases share. `app` constructs them."""

from __future__ import annotations

from sessiond.authority.policy_book import PolicyBook
from sessiond.authority.token_gate import TokenGate
from sessiond.cache.activity import UnsavedActivity
from sessiond.cache.sessions import SessionCache
from sessiond.crypto.tokens import KeyRing
from sessiond.detection.suspicions import ReportedSignals, Suspicions
from sessiond.domain.immutable import immutable
from sessiond.domain.values import Entropy
from sessiond.eventlog.caches import FollowingCaches
from sessiond.eventlog.feed import Feed
from sessiond.eventlog.follower import Follower
from sessiond.eventlog.journal import Journal
from sessiond.store.contract import Store
from sessiond.system.clock import Clock

__all__ = ["Parts"]


@immutable
class Parts:
    """The components of one authority process over one store. `follower` is None if no other process writes to it."""

    store: Store
    journal: Journal
    feed: Feed
    cache: SessionCache
    activity: UnsavedActivity
    keys: KeyRing
    policies: PolicyBook
    gate: TokenGate
    suspicions: Suspicions
    reported: ReportedSignals
    clock: Clock
    entropy: Entropy
    caches: FollowingCaches
    follower: Follower | None = None
