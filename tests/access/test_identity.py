"""The identity in a client's certificate, with names that are chosen by an attacker."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID
from hypothesis import given
from hypothesis import strategies as st

from sessiond.access.callers import Callers
from sessiond.access.identity import CertificateReader, certificate_in
from sessiond.domain.identity import ClientCertificate
from tests.support.certificates import Authority

CA = Authority()
KEY = ec.generate_private_key(ec.SECP256R1())
_URI, _DNS, _EMAIL, _IP, _OTHER = 0x86, 0x82, 0x81, 0x87, 0xA0


def der(tag: int, content: bytes) -> bytes:
    """Return a value in DER."""
    size = len(content)
    length = bytes([size]) if size < 0x80 else bytes([0x82, size >> 8, size & 0xFF])
    return bytes([tag]) + length + content


def with_names(*names: tuple[int, bytes]) -> bytes:
    """Return a certificate with alternative names of any content, as PEM text."""
    content = der(0x30, b"".join(der(tag, text) for tag, text in names))
    extension = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, content)
    return CA.issue(extensions=[extension], key=KEY).certificate


def read(*names: tuple[int, bytes]) -> ClientCertificate:
    """Return what is read from a certificate with these names."""
    found = certificate_in(with_names(*names))
    assert found is not None
    return found


def test_names_are_read() -> None:
    """URIs and DNS names are kept by kind, in order; the common name, addresses and mail addresses are not names."""
    found = read(
        (_URI, b"spiffe://example.org/shop"), (_DNS, b"Shop.Example"), (_IP, b"\x7f\0\0\1"), (_EMAIL, b"a@b.example")
    )
    assert (found.uris, found.dns_names) == (("spiffe://example.org/shop",), ("shop.example",))
    assert found.spiffe_id == "spiffe://example.org/shop"
    assert len(found.fingerprint) == 64


@pytest.mark.parametrize(
    "uri",
    [
        b"spiffe://example.org/a\0b",
        b"spiffe://example.org/shop\0",
        b"spiffe://example.org/a b",
        b"spiffe://example.org/a\nb",
        b"spiffe://Example.org/shop",
        b"SPIFFE://example.org/shop",
        b"Spiffe://example.org/shop",
        b"spiffe:example.org",
        b"spiffe://",
        b"spiffe:///shop",
        b"spiffe://example.org/",
        b"spiffe://example.org//shop",
        b"spiffe://example.org/a/../b",
        b"spiffe://example.org/./b",
        b"spiffe://example.org/a,spiffe://example.org/b",
        b"spiffe://example.org/a%2fb",
        b"spiffe://example.org:443/shop",
        b"spiffe://user@example.org/shop",
        b"spiffe://example.org/shop?x=1",
        b"spiffe://example.org/shop#x",
        b"spiffe://example.org/" + b"a" * 2048,
        "spiffe://example.org/shöp".encode(),
        b"spiffe://example.org/sh\xf6p",
        b"",
        b"shop",
        b"://x",
        b"1a://x",
    ],
)
def test_an_ambiguous_uri_is_no_name(uri: bytes) -> None:
    """A URI that is no canonical SPIFFE ID although it looks like one, or no URI at all, is not kept."""
    found = read((_URI, uri))
    assert (found.uris, found.spiffe_id) == ((), "")


@pytest.mark.parametrize("uri", [b"https://a,b.example/c", b"urn:example:shop", b"https://example.org/?a=b#c"])
def test_other_uris(uri: bytes) -> None:
    """A URI of another scheme is kept as it is, a comma in it included: it is one name, never two."""
    assert read((_URI, uri)).uris == (uri.decode(),)


def test_two_uris_and_a_spiffe_id() -> None:
    """A certificate with a SPIFFE ID and another URI has no SPIFFE ID."""
    found = read((_URI, b"spiffe://example.org/shop"), (_URI, b"spiffe://example.org/admin"))
    assert (found.uris, found.spiffe_id) == ((), "")
    found = read((_URI, b"spiffe://example.org/shop"), (_URI, b"https://example.org/"))
    assert (found.uris, found.spiffe_id) == (("https://example.org/",), "")


@pytest.mark.parametrize(
    "name",
    [
        b"*.example.org",
        b"*",
        b"shop.example\0.evil.example",
        b"shop.example\0",
        b"shop.example,admin.example",
        b"shop example",
        b"shop..example",
        b".example.org",
        b"shop.example.",
        b"-shop.example",
        b"spiffe://example.org/admin",
        b"a" * 64 + b".example",
        b"a." * 130 + b"example",
        "shöp.example".encode(),
        b"sh\xf6p.example",
        b"",
    ],
)
def test_an_ambiguous_dns_name_is_no_name(name: bytes) -> None:
    """A wildcard, a NUL, a comma, anything outside of a host name's letters: such a DNS name is not kept."""
    found = read((_DNS, name))
    assert (found.uris, found.dns_names) == ((), ())


def test_a_kind_cannot_be_feigned() -> None:
    """A SPIFFE ID written as a DNS name, a mail address or another name is not a URI."""
    text = b"spiffe://example.org/admin"
    other = der(0x06, b"\x2a\x03") + der(0xA0, der(0x0C, text))
    for tag, content in ((_DNS, text), (_EMAIL, text), (_OTHER, other)):
        assert read((tag, content)).uris == ()


def test_too_many_names() -> None:
    """A certificate with more than 64 names has none."""
    assert len(read(*[(_DNS, b"h%d.example" % i) for i in range(64)]).dns_names) == 64
    assert read(*[(_DNS, b"h%d.example" % i) for i in range(65)]).dns_names == ()


@given(st.lists(st.tuples(st.sampled_from([_URI, _DNS, _EMAIL, _IP]), st.binary(max_size=60)), max_size=6))
def test_names_of_any_content(names: list[tuple[int, bytes]]) -> None:
    """Whatever the names are, reading them raises nothing, and what is kept was there and has one meaning."""
    found = certificate_in(with_names(*names))
    assert found is not None
    uris = [text.decode("latin-1") for tag, text in names if tag == _URI]
    dns_names = [text.decode("latin-1").lower() for tag, text in names if tag == _DNS]
    assert set(found.uris) <= set(uris)
    assert set(found.dns_names) <= set(dns_names)
    for name in (*found.uris, *found.dns_names):
        assert name.isascii()
        assert name.isprintable()
        assert " " not in name
    assert not any("*" in name or "," in name for name in found.dns_names)


_NAME_LIKE = st.text(alphabet="az-_.*/:,%\0ö SPIFe", max_size=30)


@given(st.lists(_NAME_LIKE, max_size=4), st.lists(_NAME_LIKE, max_size=4))
def test_names_that_look_like_names(paths: list[str], hosts: list[str]) -> None:
    """Of names that resemble SPIFFE IDs and host names, only canonical ones are kept."""
    uris = [f"spiffe://example.org{path}".encode() for path in paths]
    found = read(*[(_URI, uri) for uri in uris], *[(_DNS, host.encode()) for host in hosts])
    assert len(found.uris) <= 1
    assert all(uri.encode() in uris and "%" not in uri and not uri.endswith("/") for uri in found.uris)
    assert all(name.encode() in [host.lower().encode() for host in hosts] for name in found.dns_names)


@given(st.binary(max_size=200))
def test_text_of_any_content(text: bytes) -> None:
    """What is no certificate gives no identity, and raises nothing."""
    wrapped = b"-----BEGIN CERTIFICATE-----\n" + text + b"\n-----END CERTIFICATE-----\n"
    assert certificate_in(text) is None
    assert certificate_in(wrapped) is None


@given(st.binary(max_size=300))
def test_an_extension_of_any_content(content: bytes) -> None:
    """An extension that cannot be parsed gives no names, and raises nothing."""
    extension = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, content)
    assert certificate_in(CA.issue(extensions=[extension], key=KEY).certificate) is not None


def test_the_end_of_a_certificate() -> None:
    """The identity has the time at which the certificate ends, in milliseconds."""
    text = CA.client(end=timedelta(days=7)).certificate
    found = certificate_in(text)
    end = x509.load_pem_x509_certificate(text).not_valid_after_utc
    assert found is not None
    assert found.not_after == int(end.timestamp()) * 1000


def test_only_what_the_handshake_proved_counts() -> None:
    """A certificate is read only from the properties of a TLS connection, and only if there is exactly one."""
    text = CA.client().certificate
    reader = CertificateReader()
    proved = {"transport_security_type": [b"ssl"], "x509_pem_cert": [text]}
    first = reader.read(proved)
    assert first is not None
    assert first.spiffe_id == "spiffe://test/client"
    assert reader.read(proved) is first
    for other in (
        None,
        {},
        {"x509_pem_cert": [text]},
        {"transport_security_type": [b"insecure"], "x509_pem_cert": [text]},
        {"transport_security_type": [b"ssl"]},
        {"transport_security_type": [b"ssl"], "x509_pem_cert": [text, text]},
        {"transport_security_type": [b"ssl"], "x509_pem_cert": [b"garbage"]},
    ):
        assert reader.read(other) is None


def test_the_caller_has_the_certificate() -> None:
    """The caller of a call has the certificate of its connection; metadata cannot add one."""
    text = CA.client().certificate
    callers = Callers(reads_certificates=True)
    metadata = [("x509_pem_cert", text.decode().replace("\n", " ")), ("x509_uri", "spiffe://test/admin")]
    proved = {"transport_security_type": [b"ssl"], "x509_pem_cert": [text]}
    caller = callers.identify("ipv4:192.0.2.1:1", metadata, proved)
    assert caller.certificate is not None
    assert caller.certificate.uris == ("spiffe://test/client",)
    assert callers.identify("ipv4:192.0.2.1:1", metadata).certificate is None
