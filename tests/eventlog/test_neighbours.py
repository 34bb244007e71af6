"""Who may still answer from a cache, judged by the clock of the process that asks."""

from __future__ import annotations

import pytest

from sessiond.domain.values import Revision
from sessiond.eventlog.neighbours import Neighbours
from sessiond.store.shared import LEASE, ReplicaLease

ME, OTHER, THIRD = b"b" * 16, b"c" * 16, b"d" * 16


class Watch:
    """What a replica sees, with a clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1_000
        self.neighbours = Neighbours(ME, lambda: self.now)

    def note(self, *leases: ReplicaLease) -> None:
        self.neighbours.note(leases)


def lease(replica: bytes, version: str = "1", acknowledged: int = 7, policies: str = "p") -> ReplicaLease:
    return ReplicaLease(replica, replica[:1].decode(), version, Revision(acknowledged), policies)


def test_a_replica_that_has_not_acknowledged_lags() -> None:
    """Only another replica whose cache does not include the revision lags."""
    watch = Watch()
    watch.note(lease(ME, acknowledged=0), lease(OTHER, acknowledged=8), lease(THIRD, acknowledged=7))
    assert watch.neighbours.lagging(Revision(8)) == ["d"]
    assert watch.neighbours.lagging(Revision(7)) == []


def test_a_replica_that_renews_no_more_lags_until_its_lease_is_over() -> None:
    """The lease of a silent replica is over its duration, and an allowance, after its last renewal was seen here."""
    watch = Watch()
    for _ in range(3):
        watch.note(lease(OTHER))
        watch.now += LEASE // 2
    assert watch.neighbours.lagging(Revision(8)) == []
    watch.note(lease(OTHER, version="2"))
    assert watch.neighbours.lagging(Revision(8)) == ["c"]
    watch.now += LEASE
    assert watch.neighbours.lagging(Revision(8)) == ["c"]
    watch.now += LEASE // 50
    assert watch.neighbours.lagging(Revision(8)) == []


@pytest.mark.parametrize(("others", "leads"), [([], True), ([OTHER], True), ([b"a" * 16], False), ([b""], True)])
def test_the_first_of_the_living_leads(others: list[bytes], leads: bool) -> None:
    """The replica with the smallest id leads, until it has been silent for as long as a lease."""
    watch = Watch()
    assert not watch.neighbours.leads
    leases = [lease(ME), *(lease(other) for other in others)]
    watch.note(*leases)
    assert watch.neighbours.leads is leads
    watch.now += 2 * LEASE
    watch.note(*leases)
    assert watch.neighbours.leads


def test_other_policies_are_named() -> None:
    """A living replica with other policies is named; one that has not said which it has is not."""
    watch = Watch()
    watch.note(lease(ME), lease(OTHER, policies="q"), lease(THIRD, policies=""))
    assert list(watch.neighbours.other_policies) == ["c"]
    watch.now += 2 * LEASE
    assert list(watch.neighbours.other_policies) == []
