"""Deriving comparable facts from a client context."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import maxminddb
import ua_parser

from sessiond.domain.client_facts import ClientFacts
from sessiond.domain.values import ClientContext

__all__ = ["BadNetworkFile", "FactReader", "source_of"]


class BadNetworkFile(Exception):
    """A network database cannot be used. The message names the file and the reason."""


class FactReader:
    """Derives the facts of client contexts. Operator and country need the optional MaxMind files.

    `operators` is a file such as GeoLite2-ASN, `countries` one such as GeoLite2-Country. Raises `BadNetworkFile`.
    """

    def __init__(self, operators: Path | None = None, countries: Path | None = None) -> None:
        self._operators = _open("operators", operators)
        self._countries = _open("countries", countries)
        # The caches are bounded because an attacker can send any number of user agents.
        self.facts = lru_cache(maxsize=20_000)(self._facts)
        self.related = lru_cache(maxsize=1_000)(_related)
        _agent("Mozilla/5.0")  # load the parser's rules now: this takes a tenth of a second

    def _facts(self, context: ClientContext, ipv4_prefix: int, ipv6_prefix: int) -> ClientFacts:
        """Return the facts of a client context. The same input always has the same facts."""
        address = context.ip_address
        return ClientFacts(
            network=_network(address, ipv4_prefix, ipv6_prefix),
            operator=self._operator(address),
            country=self._country(address),
            agent=_agent(context.user_agent),
            certificate=context.certificate_thumbprint.hex(),
            device=context.device_id,
        )

    def _operator(self, address: str) -> str:
        record = _look_up(self._operators, address)
        number = record.get("autonomous_system_number")
        return "" if number is None else f"AS{number}"

    def _country(self, address: str) -> str:
        record = _look_up(self._countries, address)
        country = record.get("country")
        return str(country.get("iso_code", "")) if isinstance(country, dict) else ""


def _related(facts: ClientFacts, groups: tuple[tuple[str, ...], ...]) -> ClientFacts:
    """Return the facts with the agent replaced by the first of its group: an app and its web view are one client."""
    for group in groups:
        if facts.agent in group:
            return replace(facts, agent=group[0])
    return facts


def source_of(address: str) -> str:
    """Return the source under which guesses are counted: the IPv4 address or the IPv6 /64; empty if no address."""
    return _network(address, 32, 64)


@lru_cache(maxsize=20_000)
def _network(address: str, ipv4_prefix: int, ipv6_prefix: int) -> str:
    if not address:
        return ""
    parsed = ipaddress.ip_address(address)
    prefix = ipv4_prefix if parsed.version == 4 else ipv6_prefix
    return str(ipaddress.ip_network((parsed, prefix), strict=False))


def _agent(user_agent: str) -> str:
    """Return family and platform, without the version, so that an update is not a change.

    A client that is not a known browser is represented by its product name.
    """
    # Apple's system media player sends its own user agent together with the browser's cookies.
    if not user_agent or user_agent.startswith("AppleCoreMedia/"):
        return ""
    browser, system = ua_parser.parse_user_agent(user_agent), ua_parser.parse_os(user_agent)
    family = browser.family if browser else user_agent.partition("/")[0].strip()[:64]
    return f"{family} on {system.family}" if system else family


def _look_up(reader: maxminddb.Reader | None, address: str) -> dict[str, Any]:
    if reader is None or not address:
        return {}
    try:
        record = reader.get(address)
    except (ValueError, maxminddb.InvalidDatabaseError):
        return {}  # an IPv6 address in an IPv4-only database, or a damaged database, which must not fail every call
    return record if isinstance(record, dict) else {}


def _open(key: str, path: Path | None) -> maxminddb.Reader | None:
    if path is None:
        return None
    try:
        return maxminddb.open_database(str(path))
    except (OSError, ValueError, maxminddb.InvalidDatabaseError) as error:
        raise BadNetworkFile(
            f"networks.{key}: {path} cannot be used: {error}; name a MaxMind file (.mmdb) or remove the key"
        ) from error
