"""TLS files: which ones are accepted, and what is said about the others."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import example, given
from hypothesis import strategies as st

from sessiond.access.identity import certificate_in
from sessiond.access.tls import BadTls, TlsFile, TlsFiles, TlsMaterial, load_tls
from sessiond.system.clock import SystemClock
from tests.support.certificates import Authority, Pair

CA = Authority()
GOOD = CA.server()


def load(
    folder: Path, pair: Pair, *, authorities: bytes = b"", change: Callable[[Path, Path], None] | None = None
) -> TlsMaterial:
    """Write a pair, change the files, and load them."""
    certificate, key = pair.write(folder, "server")
    if change is not None:
        change(certificate, key)
    named = None
    if authorities:
        (folder / "ca.pem").write_bytes(authorities)
        named = TlsFile("server.tls.client_ca", folder / "ca.pem")
    files = TlsFiles(TlsFile("server.tls.certificate", certificate), TlsFile("server.tls.key", key), named)
    return load_tls(files, SystemClock().now())


def refused(folder: Path, pair: Pair, **more: Any) -> str:
    """Return why files are refused, with `~` for the folder."""
    with pytest.raises(BadTls) as error:
        load(folder, pair, **more)
    text = str(error.value)
    assert "\n" not in text
    return text.replace(str(folder), "~")


def test_a_pair_is_loaded(tmp_path: Path) -> None:
    """A valid pair gives its text, its names and its time; the repr has nothing of the private key."""
    pair = CA.issue("shop.example", "192.0.2.1", "spiffe://example.org/shop", end=timedelta(days=30))
    found = load(tmp_path, pair, authorities=CA.pem)
    assert (found.certificate, found.key, found.authorities) == (pair.certificate, pair.key, CA.pem)
    assert found.names == ("shop.example", "192.0.2.1", "spiffe://example.org/shop")
    assert found.not_after is not None
    assert found.not_before is not None
    assert found.not_after - found.not_before == timedelta(days=30, hours=1) // timedelta(milliseconds=1)
    assert "PRIVATE" not in repr(found)


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o600, 0o640])
def test_a_key_that_the_group_may_read(tmp_path: Path, mode: int) -> None:
    """A private key may be readable for its group, as in a mounted secret."""
    assert load(tmp_path, CA.server(), change=lambda _, key: key.chmod(mode)).key


@pytest.mark.parametrize("mode", [0o644, 0o444, 0o604, 0o660, 0o620, 0o666, 0o777])
def test_an_open_key_is_refused(tmp_path: Path, mode: int) -> None:
    """A private key that others may read, or that the group may write, is refused with its mode and the command."""
    text = refused(tmp_path, CA.server(), change=lambda _, key: key.chmod(mode))
    assert text == (
        f"server.tls.key: ~/server.key has mode {mode:04o}, and a private key must be closed to other users; run: "
        "chmod 640 ~/server.key (a mounted Kubernetes secret needs defaultMode: 0440)"
    )


def test_the_mode_of_the_file_behind_a_link_counts(tmp_path: Path) -> None:
    """A symbolic link is followed, and the mode of the file that it leads to is checked."""

    def link(_: Path, key: Path) -> None:
        key.rename(tmp_path / "real")
        key.symlink_to("real")

    assert load(tmp_path, CA.server(), change=link).key
    (tmp_path / "server.key").unlink()

    def open_link(certificate: Path, key: Path) -> None:
        link(certificate, key)
        (tmp_path / "real").chmod(0o644)

    assert "mode 0644" in refused(tmp_path, CA.server(), change=open_link)


def _cut(certificate: Path, _: Path) -> None:
    certificate.write_bytes(certificate.read_bytes()[:200])


def _copy(source: Path, path: Path) -> None:
    path.write_bytes(source.read_bytes())


def _other_key(_: Path, key: Path) -> None:
    key.write_bytes(CA.server().key)


def _no_key(_: Path, key: Path) -> None:
    key.write_text("-----BEGIN PRIVATE KEY-----\nQUJD\n-----END PRIVATE KEY-----\n")


def _locked(_: Path, key: Path) -> None:
    loaded: Any = load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))


def _folder(certificate: Path, _: Path) -> None:
    certificate.unlink()
    certificate.mkdir()


def _pipe(_: Path, key: Path) -> None:
    key.unlink()
    os.mkfifo(key, 0o600)


def _huge(certificate: Path, _: Path) -> None:
    certificate.write_bytes(b"#" * (1024 * 1024 + 1))


BAD_FILES: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "missing certificate": (
        lambda certificate, _: certificate.unlink(),
        "server.tls.certificate: ~/server.crt cannot be read: No such file or directory; "
        "name a PEM file that this user can read",
    ),
    "missing key": (
        lambda _, key: key.unlink(),
        "server.tls.key: ~/server.key cannot be read: No such file or directory; "
        "name a PEM file that this user can read",
    ),
    "a cut certificate": (
        _cut,
        "server.tls.certificate: ~/server.crt has no certificate in PEM form; name another file",
    ),
    "the key as the certificate": (
        lambda certificate, key: _copy(key, certificate),
        "server.tls.certificate: ~/server.crt has no certificate in PEM form; name another file",
    ),
    "no key": (_no_key, "server.tls.key: ~/server.key has no private key in PEM form; name another file"),
    "an encrypted key": (
        _locked,
        "server.tls.key: ~/server.key is encrypted, and the server has no password for it; decrypt it with: "
        "openssl pkey",
    ),
    "another key": (
        _other_key,
        "server.tls.key: ~/server.key is not the private key of the first certificate in ~/server.crt; name the pair",
    ),
    "a folder": (_folder, "server.tls.certificate: ~/server.crt is not a regular file; name a PEM file"),
    "a pipe": (_pipe, "server.tls.key: ~/server.key is not a regular file; name a PEM file"),
    "a huge file": (_huge, "server.tls.certificate: ~/server.crt has more than 1048576 bytes; name a PEM file"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_refused(tmp_path: Path, kind: str) -> None:
    """A file that cannot be used is refused in one line with the setting, the file and the remedy."""
    change, expected = BAD_FILES[kind]
    assert refused(tmp_path, CA.server(), change=change) == expected


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    """A file that this user may not read is refused."""
    text = refused(tmp_path, CA.server(), change=lambda certificate, _: certificate.chmod(0))
    assert "cannot be read: Permission denied" in text


@pytest.mark.parametrize(
    ("begin", "end", "expected"),
    [
        (timedelta(days=-2), timedelta(seconds=-1), "has expired at "),
        (timedelta(days=-2), timedelta(seconds=50), "expires in less than a minute, at "),
        (timedelta(minutes=10), timedelta(days=2), "is not valid before "),
    ],
)
def test_a_certificate_outside_of_its_time(tmp_path: Path, begin: timedelta, end: timedelta, expected: str) -> None:
    """A certificate that is not valid now and for another minute is refused, with its time."""
    text = refused(tmp_path, CA.server(begin=begin, end=end))
    assert text.startswith(f"server.tls.certificate: ~/server.crt {expected}20")


def test_a_certificate_for_another_minute(tmp_path: Path) -> None:
    """A certificate that is valid for more than another minute is accepted."""
    assert load(tmp_path, CA.server(end=timedelta(seconds=90))).certificate


@pytest.mark.parametrize(
    "key",
    [
        ed25519.Ed25519PrivateKey.generate(),
        ec.generate_private_key(ec.SECP521R1()),
        rsa.generate_private_key(65537, 1024),
    ],
    ids=lambda key: type(key).__name__,
)
def test_a_key_of_another_kind(tmp_path: Path, key: Any) -> None:
    """Keys with which gRPC completes no handshake, and short RSA keys, are refused with the kinds to choose from."""
    assert refused(tmp_path, CA.server(key=key)) == (
        "server.tls.key: ~/server.key is not an RSA key of at least 2048 bits, a P-256 or a P-384 key; "
        "create one of these"
    )


@pytest.mark.parametrize(
    "key",
    [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())],
    ids=lambda key: type(key).__name__,
)
def test_usual_keys(tmp_path: Path, key: Any) -> None:
    """RSA keys with 2048 bits and P-384 keys are accepted."""
    assert load(tmp_path, CA.server(key=key)).key


def test_a_certificate_for_clients(tmp_path: Path) -> None:
    """A certificate whose extended key usage is only for clients is refused for a server."""
    assert refused(tmp_path, CA.issue("localhost", usage=ExtendedKeyUsageOID.CLIENT_AUTH)) == (
        "server.tls.certificate: ~/server.crt is not a certificate for servers (extended key usage without "
        "serverAuth); have one issued for them"
    )


@pytest.mark.parametrize("usage", [None, ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])
def test_a_certificate_for_servers(tmp_path: Path, usage: x509.ObjectIdentifier | None) -> None:
    """A certificate for servers, for anything, or without such a restriction is accepted."""
    assert load(tmp_path, CA.issue("localhost", usage=usage)).certificate


def test_a_certificate_without_names(tmp_path: Path) -> None:
    """A certificate without alternative names has none: the common name does not count."""
    assert load(tmp_path, CA.issue()).names == ()


def test_names_that_cannot_be_parsed(tmp_path: Path) -> None:
    """A certificate whose alternative names cannot be parsed is refused."""
    broken = x509.UnrecognizedExtension(x509.oid.ExtensionOID.SUBJECT_ALTERNATIVE_NAME, b"\x30\x03\x82\x05a")
    assert refused(tmp_path, CA.issue(extensions=[broken])) == (
        "server.tls.certificate: ~/server.crt has dates or extensions that cannot be parsed; have it issued again"
    )


def test_no_authorities(tmp_path: Path) -> None:
    """A file of authorities without a certificate is refused: everybody or nobody would be trusted."""
    text = refused(tmp_path, CA.server(), authorities=b"# nothing\n")
    assert text == "server.tls.client_ca: ~/ca.pem has no certificate in PEM form; name another file"


def test_expired_authorities(tmp_path: Path) -> None:
    """Authorities of which all have expired are refused; one that is valid is enough."""
    old = CA.issue("old", begin=timedelta(days=-3), end=timedelta(days=-1)).certificate
    text = refused(tmp_path, CA.server(), authorities=old)
    assert text == (
        "server.tls.client_ca: ~/ca.pem has only certificates that have expired; "
        "replace it by the authority's current one"
    )
    assert load(tmp_path, CA.server(), authorities=old + CA.pem).authorities == old + CA.pem


@given(st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), min_size=1, max_size=8))
@example([(15, 128)])  # the serial number becomes negative
def test_damaged_certificates(changes: list[tuple[int, int]]) -> None:
    """A certificate in which bytes were changed is refused or accepted, and nothing else is raised."""
    damaged = bytearray(ssl.PEM_cert_to_DER_cert(GOOD.certificate.decode()))
    for position, value in changes:
        damaged[position % len(damaged)] = value
    text = ssl.DER_cert_to_PEM_cert(bytes(damaged)).encode()
    certificate_in(text)
    with TemporaryDirectory() as folder, suppress(BadTls):
        load(Path(folder), Pair(text, GOOD.key), authorities=text)


def test_without_a_certificate(tmp_path: Path) -> None:
    """A client may have authorities and no certificate of its own."""
    file = TlsFile("--upstream-ca", CA.write(tmp_path, "ca"))
    found = load_tls(TlsFiles(None, None, file, for_servers=False), SystemClock().now())
    assert found == TlsMaterial(None, None, CA.pem)
