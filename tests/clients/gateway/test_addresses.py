"""The client's address: what trusted proxies added counts, and nothing that a client can add itself."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond_client.gateway import TrustedProxies
from sessiond_client.gateway.addresses import NO_PROXIES, canonical, client_address

_V4 = st.ip_addresses(v=4).map(str)
_V6 = st.ip_addresses(v=6).filter(lambda address: getattr(address, "ipv4_mapped", None) is None).map(str)
_PORT = st.integers(0, 65535)
_CLIENT = "198.51.100.7"
_FORWARDED = TrustedProxies(hops=1, header="Forwarded")
_NETWORKS = TrustedProxies(networks=("10.0.0.0/8", "fd00::/8"))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        (" 192.0.2.1\t", "192.0.2.1"),
        ("192.0.2.1:443", "192.0.2.1"),
        ('"192.0.2.1:_port"', "192.0.2.1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ('"[2001:db8::1]:443"', "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%25eth0]:80", "fe80::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("[::ffff:192.0.2.1]:80", "192.0.2.1"),
        ("", ""),
        ("unknown", ""),
        ("_hidden", ""),
        ("_SEVKISEK", ""),
        ("192.0.2", ""),
        ("192.0.2.256", ""),
        ("192.0.2.01", ""),
        ("0x7f000001", ""),
        ("2130706433", ""),
        ("localhost", ""),
        ("192.0.2.1.example.com", ""),
        ("[]", ""),
        ("[", ""),
        ("192.0.2.1\0", ""),
        ("192.0.2.1, 192.0.2.2", ""),
        ("unix:", ""),
        ("1" * 100_000, ""),
    ],
)
def test_one_address(text: str, address: str) -> None:
    """An address is read without port, brackets, quotes and zone; a name or anything else is unknown."""
    assert canonical(text) == address


@given(_V4 | _V6, st.none() | _PORT, st.booleans())
def test_every_notation(address: str, port: int | None, quoted: bool) -> None:
    """Each notation that proxies use is read as the same address."""
    text = f"[{address}]" if ":" in address and (port is not None or quoted) else address
    text += "" if port is None else f":{port}"
    assert canonical(f'"{text}"' if quoted else text) == str(ipaddress.ip_address(address))


def test_without_proxies() -> None:
    """Without trusted proxies the peer is the client, whatever the headers say."""
    assert client_address("192.0.2.1", ["198.51.100.7"], NO_PROXIES) == "192.0.2.1"
    assert client_address("", ["198.51.100.7"], NO_PROXIES) == ""
    assert client_address("@abstract", ["198.51.100.7"], NO_PROXIES) == ""


@pytest.mark.parametrize(
    ("hops", "forwarded", "address"),
    [
        (1, ["198.51.100.7"], _CLIENT),
        (1, ["6.6.6.6, 198.51.100.7"], _CLIENT),
        (1, ["6.6.6.6", "198.51.100.7"], _CLIENT),
        (2, ["6.6.6.6, 198.51.100.7, 10.0.0.1"], _CLIENT),
        (2, ["6.6.6.6", "198.51.100.7:1234", "10.0.0.1"], _CLIENT),
        (1, ["6.6.6.6, unknown"], ""),
        (1, ["6.6.6.6,"], ""),
        (2, ["198.51.100.7"], "10.0.0.2"),
        (1, [], "10.0.0.2"),
        (1, [""], "10.0.0.2"),
    ],
)
def test_hops(hops: int, forwarded: list[str], address: str) -> None:
    """So many entries are counted from the right; with fewer, the peer is what is known."""
    assert client_address("10.0.0.2", forwarded, TrustedProxies(hops=hops)) == address


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("10.0.0.2", ["198.51.100.7"], _CLIENT),
        ("10.0.0.2", ["6.6.6.6, 198.51.100.7, 10.9.9.9, fd00::1"], _CLIENT),
        ("10.0.0.2", ["6.6.6.6, unknown, 10.9.9.9"], ""),
        ("10.0.0.2", ["10.1.1.1, 10.9.9.9"], "10.1.1.1"),
        ("10.0.0.2", [], "10.0.0.2"),
        ("198.51.100.7", ["6.6.6.6"], _CLIENT),
        ("::ffff:10.0.0.2", ["198.51.100.7"], _CLIENT),
        ("", ["6.6.6.6"], ""),
        ("nonsense", ["6.6.6.6"], ""),
    ],
)
def test_networks(peer: str, forwarded: list[str], address: str) -> None:
    """The last entry that is not a proxy's is the client, and a peer that is no proxy is the client itself."""
    assert client_address(peer, forwarded, _NETWORKS) == address


def test_a_socket_without_address() -> None:
    """A connection without an address is trusted only if `unix` is among the networks."""
    assert client_address("", ["198.51.100.7"], TrustedProxies(networks=("unix",))) == _CLIENT


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        (["for=198.51.100.7"], _CLIENT),
        (["For=198.51.100.7;proto=https;by=10.0.0.1"], _CLIENT),
        (['proto=https ; for="198.51.100.7:4711"'], _CLIENT),
        (['for="[2001:db8::1]:4711"'], "2001:db8::1"),
        (['for="6.6.6.6", for=198.51.100.7'], _CLIENT),
        (['for=6.6.6.6;by="a,b;c"', "for=198.51.100.7"], _CLIENT),
        (['for=198.51.100.7;by="a,for=6.6.6.6"'], _CLIENT),
        (['for=198.51.100.7;by="a\\",for=6.6.6.6"'], _CLIENT),
        (["for=unknown"], ""),
        (["for=_hidden"], ""),
        (["proto=https"], ""),
        (["for"], ""),
        ([], "10.0.0.2"),
    ],
)
def test_forwarded(forwarded: list[str], address: str) -> None:
    """The header of RFC 7239 is read with its quotes, ports and obfuscated names."""
    assert client_address("10.0.0.2", forwarded, _FORWARDED) == address


@pytest.mark.parametrize(
    "sent",
    ['for="', 'for=6.6.6.6;x="', '"', 'for=6.6.6.6;x="\\', 'for=6.6.6.6;x="\\"', 'for="6.6.6.6', "for=6.6.6.6;x=\\"],
)
@pytest.mark.parametrize("joined", [True, False])
def test_an_open_quote(sent: str, joined: bool) -> None:
    """A quote that a client leaves open does not swallow what the proxy adds to its right."""
    added = "for=198.51.100.7"
    assert client_address("10.0.0.2", [f"{sent}, {added}"] if joined else [sent, added], _FORWARDED) == _CLIENT


@given(st.lists(st.text(max_size=30), max_size=4), _V4 | _V6, st.sampled_from(["x-forwarded-for", "forwarded"]))
def test_what_a_client_sends(sent: list[str], address: str, header: str) -> None:
    """Nothing to the left of the proxy's entry changes the address, with hops and with networks."""
    entry = address if header == "x-forwarded-for" else f'for="[{address}]"' if ":" in address else f"for={address}"
    canonical_address = str(ipaddress.ip_address(address))
    by_hops = TrustedProxies(hops=1, header=header)
    assert client_address("10.0.0.2", [*sent, entry], by_hops) == canonical_address
    assert client_address("10.0.0.2", [",".join([*sent, entry])], by_hops) == canonical_address
    if not _NETWORKS.trusts(canonical_address):
        by_networks = TrustedProxies(networks=_NETWORKS.networks, header=header)
        assert client_address("10.0.0.2", [*sent, entry], by_networks) == canonical_address


@given(st.text(), st.lists(st.text()), st.sampled_from([NO_PROXIES, _FORWARDED, _NETWORKS, TrustedProxies(hops=3)]))
def test_anything(peer: str, forwarded: list[str], proxies: TrustedProxies) -> None:
    """Whatever is sent, the result is an address in canonical form or empty."""
    address = client_address(peer, forwarded, proxies)
    assert address == "" or str(ipaddress.ip_address(address)) == address


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"hops": -1}, "hops"),
        ({"hops": "1"}, "hops"),
        ({"hops": True}, "hops"),
        ({"hops": 1.5}, "hops"),
        ({"hops": 1, "networks": ("10.0.0.0/8",)}, "either hops"),
        ({"networks": "10.0.0.0/8"}, "networks"),
        ({"networks": (5,)}, "networks"),
        ({"networks": 5}, "networks"),
        ({"networks": ("10.0.0.5/8",)}, "10.0.0.5/8"),
        ({"networks": ("proxy.example",)}, "proxy.example"),
        ({"hops": 1, "header": "x-real-ip"}, "x-real-ip"),
        ({"hops": 1, "header": None}, "header"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], problem: str) -> None:
    """Wrong settings are refused with the name of the setting."""
    with pytest.raises(ValueError, match="trusted proxies: ") as error:
        TrustedProxies(**settings)
    assert problem in str(error.value)


def test_networks_in_a_list() -> None:
    """Networks may come in a list, as a configuration file has them."""
    proxies = TrustedProxies(networks=["10.0.0.0/8"])  # type: ignore[arg-type]  # not everyone checks types
    assert proxies.networks == ("10.0.0.0/8",)
    assert hash(proxies) == hash(TrustedProxies(networks=("10.0.0.0/8",)))
