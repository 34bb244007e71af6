"""Certificates for tests: authorities, and what they sign, made when they are needed."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["LOCAL", "Authority", "Pair", "alternative", "credentials", "server_files"]

LOCAL = ("localhost", "127.0.0.1")


def alternative(text: str) -> x509.GeneralName:
    """Return a subject alternative name: a URI, an IP address or a DNS name."""
    if "://" in text:
        return x509.UniformResourceIdentifier(text)
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, as PEM text."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Write both as files that only their owner may read, and return their paths."""
        certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
        certificate.write_bytes(self.certificate)
        key.touch(mode=0o600)
        key.write_bytes(self.key)
        return certificate, key


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _pem(key: Any) -> bytes:
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority."""

    name: str = "test authority"
    _key: ec.EllipticCurvePrivateKey = field(default_factory=_new_key)

    pem: bytes = field(init=False)
    """Its own certificate."""

    def __post_init__(self) -> None:
        usage = x509.BasicConstraints(ca=True, path_length=None)
        builder = self._builder(self.name, self._key, timedelta(hours=-1), timedelta(days=3650))
        signed = builder.add_extension(usage, critical=True).sign(self._key, hashes.SHA256())
        object.__setattr__(self, "pem", signed.public_bytes(Encoding.PEM))

    def write(self, folder: Path, name: str) -> Path:
        """Write its certificate to a file, and return the path."""
        path = folder / f"{name}.pem"
        path.write_bytes(self.pem)
        return path

    def issue(
        self,
        *names: str,
        begin: timedelta = timedelta(hours=-1),
        end: timedelta = timedelta(days=90),
        key: Any = None,
        usage: x509.ObjectIdentifier | None = None,
        extensions: Sequence[x509.ExtensionType] = (),
    ) -> Pair:
        """Return a certificate for these names, valid from `begin` to `end`, counted from now."""
        key = key or _new_key()
        builder = self._builder("common name", key, begin, end)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(map(alternative, names)), critical=False)
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        signed = builder.sign(self._key, hashes.SHA256())
        return Pair(signed.public_bytes(Encoding.PEM), _pem(key))

    def server(self, **more: Any) -> Pair:
        """Return a certificate of a server on this machine."""
        return self.issue(*LOCAL, usage=ExtendedKeyUsageOID.SERVER_AUTH, **more)

    def client(self, *names: str, **more: Any) -> Pair:
        """Return a certificate of a client."""
        names = names or ("spiffe://test/client",)
        return self.issue(*names, usage=ExtendedKeyUsageOID.CLIENT_AUTH, **more)

    def _builder(self, common: str, key: Any, begin: timedelta, end: timedelta) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(_name(common))
            .issuer_name(_name(self.name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begin)
            .not_valid_after(now + end)
        )


def server_files(authority: Authority, folder: Path, clients: Authority | None = None, **more: Any) -> dict[str, Any]:
    """Write a server's files, and return the settings that name them. `clients`: who signs certificates of clients."""
    folder.mkdir(parents=True, exist_ok=True)
    certificate, key = authority.server(**more).write(folder, "server")
    settings: dict[str, Any] = {"tls_certificate": certificate, "tls_key": key}
    if clients is not None:
        settings["tls_client_ca"] = clients.write(folder, "clients")
    return settings


def credentials(authority: Authority, own: Pair | None = None) -> grpc.ChannelCredentials:
    """Return the credentials of a client that trusts an authority, and shows its own certificate if it has one."""
    if own is None:
        return grpc.ssl_channel_credentials(authority.pem)
    return grpc.ssl_channel_credentials(authority.pem, own.key, own.certificate)
