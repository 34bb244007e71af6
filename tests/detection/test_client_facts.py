"""Reading a client context: agents without their versions, networks in their grain, and what network databases tell."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import netaddr  # type: ignore[import-untyped]  # ships no types
import pytest
from mmdb_writer import MMDBWriter

from sessiond.detection.client_facts import BadNetworkFile, FactReader, source_of
from sessiond.domain.client_facts import ClientFacts
from sessiond.domain.values import ClientContext
from sessiond.rpc import decode
from sessiond_stubs.v1 import session_authority_pb2 as pb

WINDOWS = "Mozilla/5.0 (Windows NT 10.0; Win64; x64)"
CHROME_120 = f"{WINDOWS} AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36"
CHROME_128 = f"{WINDOWS} AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0.6613.120 Safari/537.36"
FIREFOX = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:129.0) Gecko/20100101 Firefox/129.0"
FIREFOX_NEXT = "Mozilla/5.0 (Windows NT 11.0; Win64; x64; rv:131.0) Gecko/20100101 Firefox/131.0"
FIREFOX_ANDROID = "Mozilla/5.0 (Android 14; Mobile; rv:129.0) Gecko/129.0 Firefox/129.0"
CHROME_ANDROID = (
    "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0.0.0 Mobile "
    "Safari/537.36"
)
SAFARI_MAC = (
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/17.5 Safari/605.1.15"
)
READER = FactReader()


def facts(reader: FactReader = READER, ipv4: int = 24, ipv6: int = 48, **context: Any) -> ClientFacts:
    """The facts of a client context with these fields."""
    return reader.facts(ClientContext(**context), ipv4, ipv6)


def agent(user_agent: str) -> str:
    """What of a user agent is compared."""
    return facts(user_agent=user_agent).agent


# Agents


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (CHROME_120, CHROME_128),
        (FIREFOX, FIREFOX_NEXT),
        ("curl/8.0", "curl/8.5.0"),
        ("shop-app/1.2 (build 7)", "shop-app/2.0 (build 19)"),
    ],
)
def test_an_update_is_the_same_agent(before: str, after: str) -> None:
    """A newer version of a browser, of its system or of any other client is the same agent."""
    assert agent(before) == agent(after) != ""


def test_agents_are_told_by_family_and_platform() -> None:
    """Another family or another platform is another agent."""
    agents = [CHROME_128, FIREFOX, FIREFOX_ANDROID, CHROME_ANDROID, SAFARI_MAC, "curl/8.5.0", "shop-app/1.2", "bot/1"]
    assert len({agent(user_agent) for user_agent in agents}) == len(agents)
    assert agent(CHROME_128) == "Chrome on Windows"


def test_a_client_that_is_no_browser() -> None:
    """A client that nobody knows is known by its product name, cut to 64 characters."""
    assert agent("shop-app/1.2") == "shop-app"
    assert agent("x" * 500 + "/1") == "x" * 64


@pytest.mark.parametrize("user_agent", ["/", "/1.0", "\0", " ", "é/1", "(" * 400])
def test_any_user_agent_can_be_read(user_agent: str) -> None:
    """Whatever a client sends as its user agent is read without an error."""
    assert len(agent(user_agent)) <= 64


# Networks


@pytest.mark.parametrize(
    ("address", "ipv4", "ipv6", "network"),
    [
        ("192.0.2.7", 24, 48, "192.0.2.0/24"),
        ("192.0.2.255", 24, 48, "192.0.2.0/24"),
        ("192.0.3.0", 24, 48, "192.0.3.0/24"),
        ("192.0.2.7", 16, 48, "192.0.0.0/16"),
        ("192.0.2.7", 32, 48, "192.0.2.7/32"),
        ("192.0.2.7", 0, 48, "0.0.0.0/0"),
        ("2001:db8:1:ffff::1", 24, 48, "2001:db8:1::/48"),
        ("2001:db8:2::1", 24, 48, "2001:db8:2::/48"),
        ("2001:db8:1:2:3::1", 24, 64, "2001:db8:1:2::/64"),
        ("2001:db8::1", 24, 128, "2001:db8::1/128"),
        ("fe80::1%eth0", 24, 48, "fe80::/48"),
    ],
)
def test_the_grain_of_networks(address: str, ipv4: int, ipv6: int, network: str) -> None:
    """An address is compared by its network, as wide as the policy says for its family."""
    assert facts(ip_address=address, ipv4=ipv4, ipv6=ipv6).network == network


@pytest.mark.parametrize("address", ["::ffff:192.0.2.7", "::FFFF:c000:207", "192.0.2.7"])
def test_an_ipv4_address_in_ipv6_clothes(address: str) -> None:
    """However a caller spells an IPv4 address, its network and its source are those of the IPv4 address."""
    context = decode.client(pb.ClientContext(ip_address=address))
    assert READER.facts(context, 24, 48).network == "192.0.2.0/24"
    assert source_of(context.ip_address) == "192.0.2.7/32"


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.7", "192.0.2.7/32"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_the_source_of_guesses(address: str, source: str) -> None:
    """Guesses are counted by the IPv4 address or the IPv6 /64; no address is no source."""
    assert source_of(address) == source


def test_no_context_has_no_facts() -> None:
    """What a caller did not see is an empty fact."""
    assert facts() == ClientFacts()


def test_certificate_and_device_are_taken_whole() -> None:
    """A certificate is compared by its whole thumbprint, a device by its id."""
    assert facts(certificate_thumbprint=bytes(31) + b"\xab", device_id="laptop") == ClientFacts(
        certificate="00" * 31 + "ab", device="laptop"
    )


def test_facts_are_remembered_in_bounded_memory() -> None:
    """The same context is read once, and the memory of what was read is bounded."""
    reader = FactReader()
    for number in range(3):
        facts(reader, user_agent=f"agent-{number % 2}/1")
    remembered = reader.facts.cache_info()
    assert (remembered.hits, remembered.misses) == (1, 2)
    assert remembered.maxsize is not None


# Network databases


def database(path: Path, records: Mapping[str, Any], ip_version: int = 6) -> Path:
    """A small database file with a record for each network."""
    writer = MMDBWriter(ip_version, ipv4_compatible=ip_version == 6)
    for network, record in records.items():
        writer.insert_network(netaddr.IPSet([network]), record)
    writer.to_db_file(str(path))
    return path


@pytest.fixture
def reader(tmp_path: Path) -> FactReader:
    """A reader of two small databases."""
    return FactReader(
        database(
            tmp_path / "operators.mmdb",
            {
                "192.0.2.0/24": {
                    "autonomous_system_number": 64500,
                    "autonomous_system_organization": "Example Net",
                },
                "198.51.100.0/24": {"autonomous_system_organization": "No Number"},
                "2001:db8:1::/48": {"autonomous_system_number": 64501},
            },
        ),
        database(
            tmp_path / "countries.mmdb",
            {
                "192.0.2.0/24": {"country": {"iso_code": "DE", "names": {"en": "Germany"}}},
                "198.51.100.0/24": {"continent": {"code": "EU"}},
                "203.0.113.0/24": {"country": {"names": {"en": "Nowhere"}}},
                "2001:db8:1::/48": {"country": {"iso_code": "FR"}},
                "2001:db8:2::/48": {"country": "FR"},
                "2001:db8:3::/48": "no record",
            },
        ),
    )


@pytest.mark.parametrize(
    ("address", "operator", "country"),
    [
        ("192.0.2.7", "AS64500", "DE"),
        ("2001:db8:1::7", "AS64501", "FR"),
        ("198.51.100.1", "", ""),
        ("203.0.113.1", "", ""),
        ("2001:db8:2::1", "", ""),
        ("2001:db8:3::1", "", ""),
        ("10.0.0.1", "", ""),
        ("fe80::1%eth0", "", ""),
        ("", "", ""),
    ],
)
def test_operator_and_country(reader: FactReader, address: str, operator: str, country: str) -> None:
    """The databases tell operator and country of an address; what they do not tell stays empty."""
    told = facts(reader, ip_address=address)
    assert (told.operator, told.country) == (operator, country)


def test_without_databases() -> None:
    """Without databases an address has a network and nothing else."""
    assert facts(ip_address="192.0.2.7") == ClientFacts(network="192.0.2.0/24")


def test_each_database_alone(tmp_path: Path) -> None:
    """One of the two databases does without the other."""
    operators = database(tmp_path / "a.mmdb", {"192.0.2.0/24": {"autonomous_system_number": 1}})
    countries = database(tmp_path / "b.mmdb", {"192.0.2.0/24": {"country": {"iso_code": "DE"}}})
    only_operators = facts(FactReader(operators=operators), ip_address="192.0.2.7")
    only_countries = facts(FactReader(countries=countries), ip_address="192.0.2.7")
    assert (only_operators.operator, only_operators.country) == ("AS1", "")
    assert (only_countries.operator, only_countries.country) == ("", "DE")


def test_a_database_of_ipv4_alone(tmp_path: Path) -> None:
    """A database of IPv4 addresses alone tells nothing about an IPv6 address, and fails no call."""
    path = database(tmp_path / "v4.mmdb", {"192.0.2.0/24": {"autonomous_system_number": 64500}}, ip_version=4)
    reader = FactReader(operators=path)
    assert facts(reader, ip_address="192.0.2.7").operator == "AS64500"
    assert facts(reader, ip_address="2001:db8::1").operator == ""


@pytest.mark.parametrize("which", ["operators", "countries"])
@pytest.mark.parametrize("content", [None, b"", b"no database at all" * 100])
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, which: str, content: bytes | None) -> None:
    """A database file that is missing, empty or something else is refused by name."""
    path = tmp_path / "networks.mmdb"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadNetworkFile, match=re.escape(str(path))):
        FactReader(**{which: path})


def test_a_folder_in_place_of_a_database_is_refused(tmp_path: Path) -> None:
    """A folder in place of a database file is refused by name."""
    with pytest.raises(BadNetworkFile, match=re.escape(str(tmp_path))):
        FactReader(tmp_path)


def test_a_cut_database_is_refused(tmp_path: Path) -> None:
    """A database file whose end is missing is refused by name."""
    path = database(tmp_path / "cut.mmdb", {"192.0.2.0/24": {"autonomous_system_number": 64500}})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadNetworkFile, match=re.escape(str(path))):
        FactReader(path)


def test_a_database_damaged_inside_fails_no_call(tmp_path: Path) -> None:
    """A database that is found damaged only at a look-up tells nothing, and fails no call."""
    path = database(tmp_path / "damaged.mmdb", {"192.0.2.0/24": {"autonomous_system_number": 64500}})
    whole = path.read_bytes()
    path.write_bytes(b"\xff" * 100 + whole[100:])  # the search tree leads nowhere
    assert facts(FactReader(path), ip_address="192.0.2.7").operator == ""
