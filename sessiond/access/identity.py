"""The identity in a client's certificate: its subject alternative names, as far as each has exactly one meaning.

The certificate is signed by an authority that the operator trusts, but its names may have been chosen by somebody else.
What could be read in two ways is dropped: without a name, a caller is nobody. The common name is never used (RFC 9525
section 2).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from sessiond.access.authorities import ClientAuthorities
from sessiond.access.pem import certificates_in
from sessiond.domain.identity import ClientCertificate
from sessiond.domain.values import Instant
from sessiond.system.lru import Lru

__all__ = ["AuthContext", "CertificateReader", "certificate_in", "why_unusable"]

AuthContext = Mapping[str, Sequence[bytes]]
"""The properties of a connection by name, as gRPC gives them."""

_MOST_NAMES = 64
_LONGEST_URI = 2048  # SPIFFE-ID section 2.3
_LONGEST_DNS_NAME = 253
_REMEMBERED = 1_000
_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")
_SPIFFE_ID = re.compile(r"spiffe://([a-z0-9._-]{1,255})((?:/[A-Za-z0-9._-]+)*)")
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_DNS_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")


class CertificateReader:
    """Reads the certificates of callers, and remembers the latest ones: parsing takes longer than a cached answer."""

    def __init__(self, authorities: ClientAuthorities | None = None) -> None:
        self._authorities = authorities or ClientAuthorities()
        self._known: Lru[bytes, ClientCertificate] = Lru(_REMEMBERED)

    def trust(self, authorities: bytes | None) -> bool:
        """Trust the certificates that these have signed from now on. Return whether others were removed."""
        has_removed = self._authorities.replace(authorities)
        if has_removed:
            self._known = Lru(_REMEMBERED)
        return has_removed

    def is_withdrawn(self, certificate: ClientCertificate) -> bool:
        """Return whether the authority that has signed a certificate is not trusted any more."""
        return self._authorities.have_withdrawn(certificate.text)

    def read(self, context: AuthContext | None) -> ClientCertificate | None:
        """Return the certificate that the other side of a connection has proved to own; None if there is none.

        One whose authority was removed since the handshake proves nothing any more.
        """
        if not context or tuple(context.get("transport_security_type", ())) != (b"ssl",):
            return None
        texts = tuple(context.get("x509_pem_cert", ()))
        if len(texts) != 1:
            return None
        known = self._known.get(texts[0])
        if known is None and (known := certificate_in(texts[0])) is not None:
            if self.is_withdrawn(known):
                return None
            self._known.put(texts[0], known)
        return known


def certificate_in(text: bytes) -> ClientCertificate | None:
    """Return what a certificate in PEM form says about its owner; None if it cannot be parsed."""
    try:
        found, *_ = certificates_in(text)
        fingerprint = found.fingerprint(SHA256()).hex()
        not_after = Instant(int(found.not_valid_after_utc.timestamp()) * 1000)
    except ValueError:
        return None
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        dns_names = names.get_values_for_type(x509.DNSName)
        count = len(list(names))
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        uris, dns_names, count = [], [], 0
    if count > _MOST_NAMES:
        uris, dns_names = [], []
    return ClientCertificate(fingerprint, not_after, _usable_uris(uris), _usable_dns_names(dns_names), text)


def why_unusable(name: str) -> str:
    """Return why no certificate can prove a caller by this name, with the remedy; empty if one can.

    Names are compared exactly, so only those are accepted that `certificate_in` returns for some certificate.
    """
    prefix, colon, rest = name.partition(":")
    host = rest.removeprefix("//").partition("/")[0]
    if not name:
        return "is empty; write a URI such as spiffe://example.org/shop, or a DNS name such as shop.example.org"
    if colon and prefix.lower() in ("dns", "uri", "ip", "email", "othername"):
        return f"has the prefix {prefix}: of another notation; leave it out"
    if _is_address(name):
        return "is an IP address, which cannot identify a caller; use a URI or a DNS name of the certificate"
    if "*" in name:
        return "is a wildcard, which cannot identify a caller; write the whole name"
    if colon and rest.isdecimal():
        return "has a port, and certificates have none; leave it out"
    if not colon:
        return _why_no_dns_name(name)
    if prefix.lower() != "spiffe":
        usable = _URI.fullmatch(name) is not None and len(name) <= _LONGEST_URI
        return (
            "" if usable else f"is not a URI of at most {_LONGEST_URI} characters; write it as it is in the certificate"
        )
    if _usable_uris([name]):
        return ""
    if prefix != "spiffe" or host != host.lower():
        return "has upper case before the path of a SPIFFE ID; write scheme and trust domain in lower case"
    return "is not a SPIFFE ID: write spiffe://TRUST-DOMAIN/PATH, without a port, a query, or a / at the end"


def _why_no_dns_name(name: str) -> str:
    if len(name) <= _LONGEST_DNS_NAME and _DNS_NAME.fullmatch(name.lower()):
        return "" if name == name.lower() else "has upper case; write DNS names in lower case, as they are compared"
    return "is neither a URI such as spiffe://example.org/shop nor a DNS name such as shop.example.org"


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return False
    return True


def _usable_uris(uris: Sequence[str]) -> tuple[str, ...]:
    usable = []
    for uri in uris:
        match = _URI.fullmatch(uri) if len(uri) <= _LONGEST_URI else None
        if match is None:
            continue
        # A certificate with a SPIFFE ID has no other URI, or it has no SPIFFE ID (X509-SVID section 2).
        if match[1].lower() != "spiffe" or (len(uris) == 1 and _is_spiffe_id(uri)):
            usable.append(uri)
    return tuple(dict.fromkeys(usable))


def _is_spiffe_id(uri: str) -> bool:
    match = _SPIFFE_ID.fullmatch(uri)
    return match is not None and not {".", ".."} & set(match[2].split("/"))


def _usable_dns_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of single hosts: a wildcard names nobody in particular."""
    lower = [name.lower() for name in names if name.isascii() and len(name) <= _LONGEST_DNS_NAME]
    return tuple(dict.fromkeys(name for name in lower if _DNS_NAME.fullmatch(name)))
