"""The other replicas, as this process sees them: who may still answer from a cache, by this process' own clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sessiond.domain.key_ring import KeyHolder
from sessiond.domain.values import Revision
from sessiond.store.shared import LEASE, ReplicaLease

__all__ = ["Neighbours"]

_ALLOWANCE = LEASE // 50
"""Milliseconds. Another machine's clock may run slower than ours."""


class Neighbours:
    """Watches the leases of the other replicas.

    A lease is over for certain once it was not renewed for its duration by our own monotonic clock, counted from when
    we saw it last change. So no clock of the database and no synchronized clocks are needed.
    """

    def __init__(self, replica: bytes, passed: Callable[[], int]) -> None:
        self._replica = replica
        self._passed = passed
        self._leases: Sequence[ReplicaLease] = ()
        self._seen: dict[bytes, tuple[str, int]] = {}

    def note(self, leases: Sequence[ReplicaLease]) -> None:
        """Take what the store knows of the replicas into account."""
        now, before = self._passed(), self._seen
        self._leases = leases
        self._seen = {}
        for lease in leases:
            version, since = before.get(lease.replica, ("", now))
            self._seen[lease.replica] = (lease.version, since if version == lease.version else now)

    @property
    def leads(self) -> bool:
        """Return whether this replica is the first of those that may be alive, and so does the upkeep for all."""
        mine = [lease for lease in self._leases if lease.replica == self._replica]
        return bool(mine) and all(other.replica > self._replica for other in self._alive() if other.replica)

    @property
    def other_policies(self) -> Sequence[str]:
        """Return the names of the replicas whose policies differ from this replica's."""
        mine = {lease.policies for lease in self._leases if lease.replica == self._replica}
        return tuple(other.name for other in self._alive() if other.policies and other.policies not in mine)

    @property
    def holders(self) -> Sequence[KeyHolder]:
        """Return which keys this replica holds, and those that may be alive."""
        mine = [lease for lease in self._leases if lease.replica == self._replica]
        return [KeyHolder(lease.name, lease.keys) for lease in (*mine, *self._alive()) if lease.replica and lease.keys]

    def lagging(self, revision: Revision) -> Sequence[str]:
        """Return the names of those that may answer from a cache that does not include a revision."""
        return [other.name for other in self._alive() if other.acknowledged < revision]

    def _alive(self) -> list[ReplicaLease]:
        now = self._passed()
        others = (lease for lease in self._leases if lease.replica != self._replica)
        return [other for other in others if now - self._seen[other.replica][1] < LEASE + _ALLOWANCE]
