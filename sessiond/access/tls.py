"""TLS files: certificates and private keys in PEM form, checked before anything uses them.

gRPC reports a file that it cannot use without its name, and some of them only when somebody connects.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import field
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from sessiond.access.pem import certificates_in
from sessiond.config import Config
from sessiond.domain.immutable import immutable
from sessiond.domain.values import Instant

__all__ = ["BadTls", "TlsFile", "TlsFiles", "TlsMaterial", "load_authorities", "load_tls", "server_files"]

_MOST_BYTES = 1024 * 1024
_SOON = 60_000
"""Milliseconds. A certificate that ends within this time is refused: it would end before anybody can replace it."""
_FEWEST_BITS = 2048
_CURVES = (ec.SECP256R1, ec.SECP384R1)
"""gRPC's TLS library completes no handshake with other curves, or with Ed25519 keys."""
_FORBIDDEN_MODE = 0o037
"""The group may read a private key, as in a file that an orchestrator mounts (0400, 0440, 0640). Others may not."""


class BadTls(Exception):
    """A TLS file cannot be used. The text has the setting, the file and the remedy, and nothing of a private key."""


@immutable
class TlsFile:
    """A file, and the setting that names it, such as `server.tls.key` or `--upstream-key`."""

    setting: str
    path: Path

    def bad(self, problem: str) -> BadTls:
        """Return the exception for a problem of this file."""
        return BadTls(f"{self.setting}: {self.path} {problem}")


@immutable
class TlsFiles:
    """What one side of a connection needs.

    certificate  its certificate, followed by those of intermediate authorities; None: it shows none
    key          the private key of the certificate
    authorities  the certificates of the authorities that may sign the other side's certificate; None: no such check
    for_servers  whether the certificate must be one for servers, else one for clients
    """

    certificate: TlsFile | None
    key: TlsFile | None
    authorities: TlsFile | None
    for_servers: bool = True

    def paths(self) -> Sequence[Path]:
        """Return all files."""
        return [file.path for file in (self.certificate, self.key, self.authorities) if file is not None]


@immutable
class TlsMaterial:
    """The content of the files of one side, checked.

    certificate, key, authorities  PEM text; None: there is none
    not_before, not_after          when the certificate is valid; None: there is none
    names                          its subject alternative names: DNS names, IP addresses and URIs
    """

    certificate: bytes | None
    key: bytes | None = field(repr=False)
    authorities: bytes | None
    not_before: Instant | None = None
    not_after: Instant | None = None
    names: tuple[str, ...] = ()


def load_tls(files: TlsFiles, now: Instant) -> TlsMaterial:
    """Read and check the files of one side. Raise `BadTls`.

    The certificate must be valid now and for another minute, for this purpose, and match the private key, which only
    its owner and its group may read.
    """
    authorities = None if files.authorities is None else load_authorities(files.authorities, now)
    if files.certificate is None or files.key is None:
        return TlsMaterial(None, None, authorities)
    chain = _read(files.certificate)
    leaf = _certificates(files.certificate, chain)[0]
    key = _read(files.key, secret=True)
    _check_key(files.certificate, leaf, files.key, key)
    try:
        not_before, not_after = _valid(files.certificate, leaf, now)
        _check_purpose(files.certificate, leaf, for_servers=files.for_servers)
        names = _names(leaf)
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        raise files.certificate.bad("has dates or extensions that cannot be parsed; have it issued again") from None
    return TlsMaterial(chain, key, authorities, not_before, not_after, names)


def server_files(config: Config) -> TlsFiles | None:
    """Return the files of a server with this configuration; None: it serves no TLS."""
    if config.tls_certificate is None or config.tls_key is None:
        return None
    return TlsFiles(
        TlsFile("server.tls.certificate", config.tls_certificate),
        TlsFile("server.tls.key", config.tls_key),
        None if config.tls_client_ca is None else TlsFile("server.tls.client_ca", config.tls_client_ca),
    )


def load_authorities(file: TlsFile, now: Instant) -> bytes:
    """Return the certificates of authorities in a file. Raise `BadTls` if none of them is valid now."""
    text = _read(file)
    found = _certificates(file, text)
    try:
        all_expired = all(_instant(one.not_valid_after_utc) <= now for one in found)
    except ValueError:
        raise file.bad("has a certificate with dates that cannot be parsed; replace it") from None
    if all_expired:
        raise file.bad("has only certificates that have expired; replace it by the authority's current one")
    return text


def _read(file: TlsFile, *, secret: bool = False) -> bytes:
    # Symbolic links are followed: an orchestrator replaces mounted files by changing one.
    try:
        handle = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise file.bad(f"cannot be read: {error.strerror}; name a PEM file that this user can read") from error
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise file.bad("is not a regular file; name a PEM file")
        mode = stat.S_IMODE(found.st_mode)
        if secret and mode & _FORBIDDEN_MODE:
            raise file.bad(
                f"has mode {mode:04o}, and a private key must be closed to other users; run: chmod 640 {file.path} "
                "(a mounted Kubernetes secret needs defaultMode: 0440)"
            )
        if found.st_size > _MOST_BYTES:
            raise file.bad(f"has more than {_MOST_BYTES} bytes; name a PEM file")
        return os.read(handle, _MOST_BYTES)
    except OSError as error:
        raise file.bad(f"cannot be read: {error.strerror}; name a PEM file that this user can read") from error
    finally:
        os.close(handle)


def _certificates(file: TlsFile, text: bytes) -> Sequence[x509.Certificate]:
    try:
        return certificates_in(text)
    except ValueError:
        raise file.bad("has no certificate in PEM form; name another file") from None


def _check_key(certificate: TlsFile, leaf: x509.Certificate, file: TlsFile, text: bytes) -> None:
    try:
        key = load_pem_private_key(text, password=None)
    except TypeError:
        raise file.bad("is encrypted, and the server has no password for it; decrypt it with: openssl pkey") from None
    except (ValueError, UnsupportedAlgorithm):
        raise file.bad("has no private key in PEM form; name another file") from None
    is_rsa = isinstance(key, rsa.RSAPrivateKey) and key.key_size >= _FEWEST_BITS
    is_ec = isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, _CURVES)
    if not (is_rsa or is_ec):
        raise file.bad(
            f"is not an RSA key of at least {_FEWEST_BITS} bits, a P-256 or a P-384 key; create one of these"
        )
    try:
        theirs = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm):
        raise certificate.bad("has a public key that cannot be parsed; have it issued again") from None
    if key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != theirs:
        raise file.bad(f"is not the private key of the first certificate in {certificate.path}; name the pair")


def _valid(file: TlsFile, leaf: x509.Certificate, now: Instant) -> tuple[Instant, Instant]:
    begin, end = _instant(leaf.not_valid_before_utc), _instant(leaf.not_valid_after_utc)
    if now < begin:
        raise file.bad(
            f"is not valid before {_text(leaf.not_valid_before_utc)}; wait until then, or correct this machine's clock"
        )
    if end <= now:
        raise file.bad(f"has expired at {_text(leaf.not_valid_after_utc)}; replace it by a new one")
    if end - now < _SOON:
        raise file.bad(f"expires in less than a minute, at {_text(leaf.not_valid_after_utc)}; replace it by a new one")
    return begin, end


def _check_purpose(file: TlsFile, leaf: x509.Certificate, *, for_servers: bool) -> None:
    try:
        usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    side, wanted = (
        ("servers", ExtendedKeyUsageOID.SERVER_AUTH) if for_servers else ("clients", ExtendedKeyUsageOID.CLIENT_AUTH)
    )
    if wanted not in usages and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE not in usages:
        kind = "serverAuth" if for_servers else "clientAuth"
        raise file.bad(f"is not a certificate for {side} (extended key usage without {kind}); have one issued for them")


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return (
        *names.get_values_for_type(x509.DNSName),
        *(str(address) for address in names.get_values_for_type(x509.IPAddress)),
        *names.get_values_for_type(x509.UniformResourceIdentifier),
    )


def _instant(moment: datetime) -> Instant:
    return Instant(int(moment.timestamp()) * 1000)


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
