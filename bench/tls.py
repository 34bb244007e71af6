"""Mutual TLS for both sides of a comparison: files, and h2load with a certificate of its own."""

from __future__ import annotations

import ipaddress
import os
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

__all__ = ["CLIENT_NAME", "MutualTls", "make_tls"]

_SOURCE = Path(__file__).with_name("client_certificate.c")
_HOST = "127.0.0.1"
CLIENT_NAME = "spiffe://bench/h2load"
"""The name in the certificate that h2load shows."""


@dataclass(frozen=True, slots=True)
class MutualTls:
    """Files for both sides. One authority has signed both certificates.

    shim  a library that makes h2load show the client's certificate
    """

    authority: Path
    server_certificate: Path
    server_key: Path
    client_certificate: Path
    client_key: Path
    shim: Path

    def serve_options(self) -> list[str]:
        """Return the options of `sessiond serve`."""
        files = {"certificate": self.server_certificate, "key": self.server_key, "client-ca": self.authority}
        return [text for name, path in files.items() for text in (f"--tls-{name}", str(path))]

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Return the credentials of a client."""
        files = (self.authority, self.client_key, self.client_certificate)
        return grpc.ssl_channel_credentials(*(path.read_bytes() for path in files))

    def h2load_environment(self) -> dict[str, str]:
        """Return the environment in which h2load shows the client's certificate."""
        own = {"BENCH_CERTIFICATE": self.client_certificate, "BENCH_KEY": self.client_key, "LD_PRELOAD": self.shim}
        return {**os.environ, **{name: str(path) for name, path in own.items()}}


def make_tls(folder: Path) -> MutualTls:
    """Create all files in a new folder. Raise FileNotFoundError if there is no C compiler, which the shim needs."""
    folder.mkdir(parents=True)
    compiler = shutil.which("cc")
    if compiler is None:
        raise FileNotFoundError("no C compiler is installed; on Debian and Ubuntu it is in the package gcc")
    shim = folder.absolute() / "client_certificate.so"
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", shim, _SOURCE, "-ldl"], check=True)
    key = ec.generate_private_key(ec.SECP256R1())
    authority = folder.absolute() / "authority.pem"
    authority.write_bytes(_signed("bench authority", key, key, x509.BasicConstraints(ca=True, path_length=None)))
    server = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(_HOST))])
    client = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(CLIENT_NAME)])
    paths = [
        path for name, names in (("server", server), ("client", client)) for path in _pair(folder, name, key, names)
    ]
    server_certificate, server_key, client_certificate, client_key = paths
    return MutualTls(authority, server_certificate, server_key, client_certificate, client_key, shim)


def _pair(folder: Path, name: str, authority: Any, names: x509.SubjectAlternativeName) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate, file = folder.absolute() / f"{name}.crt", folder.absolute() / f"{name}.key"
    certificate.write_bytes(_signed(name, key, authority, names))
    file.touch(mode=0o600)
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificate, file


def _signed(name: str, key: Any, authority: Any, extension: x509.ExtensionType) -> bytes:
    now = datetime.now(UTC)

    def named(common: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])

    builder = x509.CertificateBuilder().subject_name(named(name)).issuer_name(named("bench authority"))
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=30))
    builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
    return builder.sign(authority, hashes.SHA256()).public_bytes(Encoding.PEM)
