"""The networks of clients: their addresses and operators, and how devices move between them in a day.

All addresses are from the ranges for benchmarks and documentation (RFC 2544, RFC 3849).
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from random import Random

import netaddr  # type: ignore[import-untyped]  # ships no types
from mmdb_writer import MMDBWriter

from tests.simulation.bounds import DAY, HOUR, MINUTE, SECOND, Bounds

__all__ = ["Attachment", "Whereabouts", "desk", "second_network", "walk", "write_databases"]

_OPERATORS = {
    64500: ("198.18.0.0/16", "2001:db8::/34"),  # homes
    64501: ("198.19.0.0/17", "2001:db8:4000::/34"),  # offices
    64502: ("198.19.128.0/17", "2001:db8:8000::/34"),  # a mobile carrier
}


@dataclass(frozen=True, slots=True)
class Attachment:
    """A client on a network. `ipv6` is empty if the network has none; otherwise browsers use both (RFC 8305)."""

    kind: str
    ipv4: str
    ipv6: str

    @property
    def mobile(self) -> bool:
        """Whether this is a carrier's network."""
        return self.kind == "mobile"


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """The networks of a device over time, and the times at which it moves while its user is active."""

    times: tuple[int, ...]
    attachments: tuple[Attachment, ...]
    walks: tuple[int, ...]

    def at(self, now: int) -> Attachment:
        """Return the network at a time."""
        return self.attachments[max(0, bisect_right(self.times, now) - 1)]


def _host(random: Random) -> int:
    return random.randrange(2, 255)


class _Networks:
    def __init__(self, random: Random, number: int) -> None:
        self._random = random
        self._home = number
        self._dual = random.random() < 0.6  # of homes and offices; the carrier always has both
        self._office = random.randrange(100)

    def home(self) -> Attachment:
        """Return a home's address, which the provider changes every day, sometimes to another range."""
        moved = 1 if self._random.random() < 0.2 else 0
        ipv4 = f"198.18.{(2 * self._home + moved) % 256}.{_host(self._random)}"
        return Attachment("home", ipv4, f"2001:db8:{self._home:x}::{self._tail()}" if self._dual else "")

    def office(self) -> Attachment:
        ipv4 = f"198.19.{self._office}.{_host(self._random)}"
        return Attachment("office", ipv4, f"2001:db8:{0x4000 + self._office:x}::{self._tail()}" if self._dual else "")

    def mobile(self) -> Attachment:
        """Return a carrier's address, which changes at each attachment, within all of its ranges."""
        ipv4 = f"198.19.{self._random.randrange(128, 256)}.{_host(self._random)}"
        range6 = 0x8000 + self._random.randrange(200)
        return Attachment("mobile", ipv4, f"2001:db8:{range6:x}:{self._random.randrange(9999)}::{self._tail()}")

    def _tail(self) -> str:
        return f"{self._random.randrange(1, 0xFFFF):x}"


def second_network(random: Random) -> Attachment:
    """Return a second network by which some of a device's requests leave: another provider, or a relay."""
    return _Networks(random, random.randrange(200)).mobile()


def desk(start: int, days: int, random: Random, number: int) -> Whereabouts:
    """Return the network of a laptop: it stays in one place, and its address changes at night."""
    networks = _Networks(random, number)
    place = networks.office if random.random() < 0.5 else networks.home
    times = [start + day * DAY for day in range(days)]
    fixed = networks.office()
    return Whereabouts(tuple(times), tuple(fixed if place == networks.office else networks.home() for _ in times), ())


def walk(start: int, days: int, random: Random, number: int, bounds: Bounds) -> Whereabouts:
    """Return the networks of a phone: home, the way to work, the office and back, each day."""
    networks = _Networks(random, number)
    times: list[int] = []
    attachments: list[Attachment] = []
    walks: list[int] = []

    def move(at: int, before: Attachment, after: Attachment) -> None:
        """Move from one network to another, with some changes back and forth within the minute."""
        walks.append(at)
        flaps = random.choices(range(len(bounds.flaps)), bounds.flaps)[0]
        for _ in range(flaps):
            times.extend((at, at + random.randrange(4 * SECOND, 15 * SECOND)))
            attachments.extend((after, before))
            at = times[-1] + random.randrange(4 * SECOND, 15 * SECOND)
        times.append(at)
        attachments.append(after)

    for day in range(days):
        midnight = start + day * DAY
        home, office = networks.home(), networks.office()
        times.append(midnight)
        attachments.append(home)
        leaving = midnight + 7 * HOUR + random.randrange(2 * HOUR)
        way = random.randrange(15 * MINUTE, 60 * MINUTE)
        cells = [networks.mobile() for _ in range(random.randrange(1, 4))]
        move(leaving, home, cells[0])
        for number_of_cell, cell in enumerate(cells[1:], 1):
            times.append(leaving + way * number_of_cell // len(cells))
            attachments.append(cell)
        move(leaving + way, cells[-1], office)
        back = midnight + 16 * HOUR + random.randrange(3 * HOUR)
        cell = networks.mobile()
        move(back, office, cell)
        move(back + way, cell, home)
    order = sorted(range(len(times)), key=times.__getitem__)
    return Whereabouts(tuple(times[i] for i in order), tuple(attachments[i] for i in order), tuple(sorted(walks)))


def write_databases(folder: Path) -> tuple[Path, Path]:
    """Write databases with operator and country of all these addresses, so that every signal can be raised."""
    folder.mkdir(parents=True, exist_ok=True)
    operators, countries = folder / "operators.mmdb", folder / "countries.mmdb"
    by_operator, by_country = MMDBWriter(6, ipv4_compatible=True), MMDBWriter(6, ipv4_compatible=True)
    for number, networks in _OPERATORS.items():
        for network in networks:
            by_operator.insert_network(netaddr.IPSet([network]), {"autonomous_system_number": number})
            by_country.insert_network(netaddr.IPSet([network]), {"country": {"iso_code": "DE"}})
    by_operator.to_db_file(str(operators))
    by_country.to_db_file(str(countries))
    return operators, countries
