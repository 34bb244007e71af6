"""The contract of a store that several replicas share, beyond that of every store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from sessiond.domain.immutable import immutable
from sessiond.domain.values import Millis, Revision
from sessiond.store.contract import Store

__all__ = ["LEASE", "ReplicaLease", "SharedStore"]

LEASE = Millis(5_000)
"""How long a replica may answer from its cache after it sent a renewal, before the allowance for clock drift."""


@immutable
class ReplicaLease:
    """What the store knows of one replica.

    replica       its id; empty for replicas whose leases may have been lost when the database was replaced
    name          for operators
    version       differs after each renewal
    acknowledged  the newest revision that the replica's cache includes
    policies      the fingerprint of its policies; empty if it has not renewed a lease yet
    keys          the fingerprints of the keys that it holds, the one that it seals with first
    """

    replica: bytes
    name: str
    version: str
    acknowledged: Revision
    policies: str
    keys: Sequence[bytes] = ()


class SharedStore(Store, Protocol):
    """A store that several replicas share.

    A replica may answer from its cache only while it holds a lease. It must call `renew`, then read and apply every
    event up to the log's head, and only then may it count on the lease; the lease ends `LEASE` after the moment before
    it called `renew`. So whoever has committed a change and sees no lease of a replica can be sure that this replica
    reads the change before it answers from its cache again.

    Every method raises `StoreUnavailable` if the store does not respond, and `StoreFailed` if it fails.
    """

    replica: bytes
    """The id of this replica."""

    async def renew(self, acknowledged: Revision, policies: str) -> None:
        """Extend this replica's lease durably. `policies` is the fingerprint of its policies."""

    async def acknowledge(self, revision: Revision) -> None:
        """Record that this replica's cache includes everything up to a revision. The record may be lost in a crash."""

    def hold_keys(self, fingerprints: Sequence[bytes]) -> None:
        """Report with the next renewal that this replica holds these keys durably, the one that it seals with first."""

    async def leases(self) -> Sequence[ReplicaLease]:
        """Return what is known of every replica, this one and those that are gone included, ordered by id."""

    def keep_lease(self) -> None:
        """When the store is closed, let this replica's lease run out by itself: caches may still count on it."""

    def announce(self) -> None:
        """Tell the other replicas, soon and without a guarantee, that there are new events. Must not wait."""

    def on_announcement(self, hint: Callable[[], None]) -> None:
        """Call `hint` when another replica announces new events."""
