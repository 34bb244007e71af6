"""A readable description of a client, derived from its user agent."""

from __future__ import annotations

from enum import StrEnum

from sessiond.domain.immutable import immutable

__all__ = ["UNKNOWN_DEVICE", "Device", "DeviceType"]


class DeviceType(StrEnum):
    """The kind of device. BOT is a program that no person operates interactively."""

    UNSPECIFIED = "unspecified"
    DESKTOP = "desktop"
    PHONE = "phone"
    TABLET = "tablet"
    TV = "tv"
    BOT = "bot"


@immutable
class Device:
    """A readable description of a client, for a page that lists a user's devices.

    It proves nothing, because clients choose their user agent freely.

    description  one line of plain text such as `Firefox 140 on Linux`; empty if there is no user agent
    type         the kind of device
    """

    description: str = ""
    type: DeviceType = DeviceType.UNSPECIFIED


UNKNOWN_DEVICE = Device()
"""The device of a client without a user agent."""
