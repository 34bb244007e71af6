"""The negative controls for near caches: each takes one protection out of those of this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from sessiond_client.following import Change, Lease
from sessiond_client.near_cache import NearCache, boot_millis

__all__ = ["NEAR_FAULTS", "break_for_good", "without_protection"]


def _keep_outdated(_: NearCache[object], change: Change) -> None:
    """Drop nothing."""
    del change


def _extend_for_ever(lease: Lease, sent: int, duration: int) -> None:
    """Never let a lease end by its time."""
    del duration
    lease.until = sent + 3_600_000


_extend = Lease.extend


def _extend_from_receipt(lease: Lease, sent: int, duration: int) -> None:
    """Count the lease from when its grant arrives."""
    del sent
    _extend(lease, boot_millis(), duration)


NEAR_FAULTS: Mapping[str, tuple[type, str, Callable[..., object]]] = {
    "near-keep-outdated": (NearCache, "apply", _keep_outdated),
    "near-ignore-lease": (Lease, "extend", _extend_for_ever),
    "near-lease-from-receipt": (Lease, "extend", _extend_from_receipt),
}
"""What each fault replaces by what."""


def break_for_good(fault: str) -> None:
    """Break the near caches of this process."""
    owner, name, broken = NEAR_FAULTS[fault]
    setattr(owner, name, broken)


@contextmanager
def without_protection(fault: str) -> Iterator[None]:
    """Break the near caches of this process for the duration of the block."""
    owner, name, _ = NEAR_FAULTS[fault]
    sound = getattr(owner, name)
    break_for_good(fault)
    try:
        yield
    finally:
        setattr(owner, name, sound)
