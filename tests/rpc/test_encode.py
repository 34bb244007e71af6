"""Conversion of domain values to messages."""

from __future__ import annotations

import pytest

from sessiond.domain.device import UNKNOWN_DEVICE, Device, DeviceType
from sessiond.domain.policy import PRESETS
from sessiond.rpc.encode import fill_device, policy_message
from sessiond_stubs.v1 import session_authority_pb2 as pb


@pytest.mark.parametrize("kind", list(DeviceType))
def test_a_device(kind: DeviceType) -> None:
    """A device has its description, and the contract's device type of the same name."""
    message = pb.Device()
    fill_device(message, Device("Firefox 140 on Linux", kind))
    assert message.description == "Firefox 140 on Linux"
    assert pb.DeviceType.Name(message.type) == f"DEVICE_TYPE_{kind.name}"


def test_every_kind_of_device_is_there() -> None:
    """The contract and the domain have the same device types."""
    assert {f"DEVICE_TYPE_{kind.name}" for kind in DeviceType} == set(pb.DeviceType.keys())


def test_no_device() -> None:
    """An unknown device is an empty message."""
    message = pb.Device()
    fill_device(message, UNKNOWN_DEVICE)
    assert message == pb.Device()


@pytest.mark.parametrize("preset", PRESETS)
def test_how_long_history_is_kept(preset: str) -> None:
    """The policy shows how long history is kept: 30 days for subjects and one day for guests."""
    message = policy_message(PRESETS[preset], {})
    assert (message.retention.seconds, message.anonymous_retention.seconds) == (30 * 86_400, 86_400)
