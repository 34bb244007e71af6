"""What is fuzzed: each target takes any bytes, and raises only if the code under test is wrong.

Hypothesis runs the targets in the tests, and `make fuzz` runs them with atheris, which looks for inputs that reach new
code. A target checks more than that nothing unexpected is raised: what is accepted must be what it claims to be.
"""

# ruff: noqa: PT017 - a target runs without pytest too, and must look at what is refused and at what is accepted

from __future__ import annotations

import atexit
import ipaddress
import os
import re
import tempfile
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID
from google.protobuf import message_factory
from google.protobuf.message import DecodeError
from google.rpc.http_pb2 import HttpRequest

from sessionctl.contexts import BadContexts, contexts_file, load_contexts, save_contexts
from sessiond.access.identity import certificate_in
from sessiond.access.tls import BadTls, TlsFile, TlsFiles, load_authorities, load_tls
from sessiond.config import BadConfig, load_config
from sessiond.config.loading import effective
from sessiond.config.overrides import overrides_in
from sessiond.config.sidecar import load_sidecar, sidecar_overrides_in
from sessiond.config.standards import departures
from sessiond.crypto.caller_keys import new_key, presented_key
from sessiond.crypto.companions import issue_companion, open_companion
from sessiond.crypto.csrf import csrf_token, csrf_token_matches
from sessiond.crypto.key_file import BadKeyFile, load_key_ring
from sessiond.crypto.tickets import Ticket, issue_ticket, open_ticket
from sessiond.crypto.tokens import KEY_BYTES, KeyRing, Token, TokenForged, TokenMalformed
from sessiond.domain.errors import InvalidField
from sessiond.domain.position import INCARNATION_BYTES, Position
from sessiond.domain.values import Instant, Revision, SessionId
from sessiond.http.answers import refusal_in
from sessiond.http.forwarded import answer_in, question
from sessiond.http.questions import HOST, METHOD, PEER, URI, Headers, route_in, web_request
from sessiond.rpc.cursor import (
    decode_consistency_token,
    decode_cursor,
    decode_page,
    decode_revision_page,
    encode_consistency_token,
    encode_cursor,
    encode_page,
)
from sessiond.rpc.wire import parse
from sessiond_client.gateway.addresses import TrustedProxies, client_address
from sessiond_client.gateway.cookies import CookieNames, presented
from sessiond_client.gateway.origins import is_cross_site, own_form, safe_path
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.support.certificates import Authority

__all__ = ["TARGETS", "Target", "seeds_of"]

CORPUS = Path(__file__).parent / "corpus"
LONGEST_SEED = 4_000


@dataclass(frozen=True)
class Target:
    """Code that must stand any bytes. `run` raises if it does not; `seeds` are inputs to begin with."""

    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...] = ()
    slow: bool = False
    """Whether one input takes about a millisecond or more."""


def seeds_of(name: str) -> list[bytes]:
    """Return all inputs to begin with: those of the target, and those in the corpus, which once reached new code."""
    kept = sorted((CORPUS / name).glob("*")) if (CORPUS / name).is_dir() else []
    return [*TARGETS[name].seeds, *(path.read_bytes() for path in kept)]


def entropy(label: str) -> Callable[[int], bytes]:
    """Return a source of bytes that are always the same, so that seeds stay valid between runs."""
    return lambda size: (sha256(label.encode()).digest() * (size // 32 + 1))[:size]


def text_of(raw: bytes) -> str:
    """Return the bytes as gRPC and web servers hand out text."""
    return raw.decode("utf-8", "replace")


KEYS = KeyRing([entropy("first key")(KEY_BYTES), entropy("second key")(KEY_BYTES)])
TOKEN = KEYS.seal(SessionId(bytes(range(16))), 7, entropy("secret")(16)).reveal()
OPENED = KEYS.open(TOKEN)
COMPANION = issue_companion(KEYS, OPENED, "pay", Instant(1_800_000_000_000)).reveal()
TICKET = issue_ticket(KEYS, Ticket(bytes(16), Instant(1_800_000_000_000), bytes(32))).reveal()
CSRF = csrf_token(OPENED).reveal()
KEY_TOKEN, CREDENTIAL = new_key(entropy("caller"), Instant(0))
KEY = KEY_TOKEN.reveal()
IDENTITY = bytes(range(16))
QUESTION = b"sessions of the shop"
POSITION = Position(bytes(INCARNATION_BYTES), Revision(5))


def tokens(raw: bytes) -> None:
    """No text but issued tokens is accepted as a token, a companion, a ticket or a CSRF token."""
    text = text_of(raw)
    try:
        KEYS.open(text)
    except (TokenMalformed, TokenForged) as refused:
        assert text != TOKEN
        assert not str(refused)
    else:
        assert text == TOKEN
    assert (open_companion(KEYS, text) is not None) == (text == COMPANION)
    assert (open_ticket(KEYS, Token(text)) is not None) == (text == TICKET)
    assert csrf_token_matches(OPENED, text) == (text == CSRF)


def caller_keys(raw: bytes) -> None:
    """No text but the issued key proves to be its caller, and what is taken for a key has the form of one."""
    text = text_of(raw)
    found = presented_key(text)
    assert (found is not None) == (re.fullmatch(r"sessiond_[a-z2-7]{10}_[A-Za-z0-9_-]{43}", text, re.ASCII) is not None)
    if found is not None:
        assert found.proves(CREDENTIAL) == (text[-43:] == KEY[-43:])
        assert text[-43:] not in repr(found)


def positions(raw: bytes) -> None:
    """Cursors, consistency tokens and page tokens are refused, or are exactly what the authority would have issued."""
    text = text_of(raw)
    kinds: list[tuple[str, Callable[[str], Any], Callable[[Any], set[str]]]] = [
        (
            "cursor",
            lambda one: decode_cursor(one, IDENTITY),
            lambda at: {encode_cursor(IDENTITY, at)},
        ),
        (
            "at_least",
            lambda one: decode_consistency_token(one, IDENTITY),
            # A cursor serves as one.
            lambda at: {encode_consistency_token(IDENTITY, at), encode_cursor(IDENTITY, at)},
        ),
        ("page_token", lambda one: decode_page(one, QUESTION, 16), lambda at: {encode_page(QUESTION, at)}),
        (
            "page_token",
            lambda one: decode_revision_page(one, QUESTION),
            lambda at: {encode_page(QUESTION, at.to_bytes(8, "big"))},
        ),
    ]
    if not text:
        return  # without a text there is no position
    for field, decode, issued in kinds:
        try:
            found = decode(text)
        except InvalidField as refused:
            assert refused.field == field
        else:
            assert text in issued(found)


@cache
def folder() -> Path:
    """Return a folder for the files of this process, in memory if there is such a place."""
    places = Path("/dev/shm")
    made = tempfile.TemporaryDirectory(dir=places if os.access(places, os.W_OK) else None)
    atexit.register(made.cleanup)
    return Path(made.name)


def written(name: str, raw: bytes) -> Path:
    """Write a file that only this user may read, and return its path."""
    path = folder() / name
    path.touch(mode=0o600)
    path.write_bytes(raw)
    return path


def configuration(raw: bytes) -> None:
    """A file is refused with its name, or the policies in it can be shown and compared with the standards."""
    path = written("sessiond.toml", raw)
    try:
        config = load_config(path)
    except BadConfig as refused:
        assert all(line.startswith(str(path)) for line in str(refused).splitlines()[:1])
        return
    departures(config)
    for policy in config.policies.values():
        effective(policy)


def environment(raw: bytes) -> None:
    """Environment variables are refused with their names, or a configuration results, for server and sidecar alike."""
    lines = [line.partition("=") for line in text_of(raw).replace("\0", "").split("\n")]
    for prefix, load in (
        ("SESSIOND_", lambda found: load_config(None, overrides_in(found))),
        ("SESSIOND_", lambda found: load_sidecar(sidecar_overrides_in(found))),
    ):
        found = {f"{prefix}{name}": value for name, _, value in lines}
        try:
            load(found)
        except BadConfig as refused:
            assert str(refused)


def key_files(raw: bytes) -> None:
    """A key file is refused without showing anything of it, or has one to three keys."""
    path = written("sessiond.key", raw)
    try:
        ring = load_key_ring(path, os.urandom, may_create=False)
    except BadKeyFile as refused:
        shown = str(refused)
        for line in re.findall(rb"[0-9a-fA-F]{64,}", raw):
            assert line.decode() not in shown
    else:
        assert 1 <= len(ring.fingerprints()) <= 3


CA = Authority()
LEAF_KEY = ec.generate_private_key(ec.SECP256R1())
_HOST = re.compile(r"[a-z0-9_.-]{1,253}", re.ASCII)


def certificates(raw: bytes) -> None:
    """Names of a certificate in any bytes: those that are kept have one meaning, and its files are refused or loaded.

    It takes a signature each time, since only a certificate that the authority has signed comes so far.
    """
    extension = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, raw)
    pair = CA.issue(extensions=[extension], key=LEAF_KEY)
    found = certificate_in(pair.certificate)
    assert found is not None
    for uri in found.uris:
        assert uri.isascii()
        assert uri.isprintable()
        assert " " not in uri
        assert len(uri) <= 2048
    for name in found.dns_names:
        assert _HOST.fullmatch(name)
    certificate = TlsFile("server.tls.certificate", written("san.crt", pair.certificate))
    key = TlsFile("server.tls.key", written("san.key", pair.key))
    try:
        load_tls(TlsFiles(certificate, key, None), NOW)
    except BadTls as refused:
        assert str(refused).startswith("server.tls.certificate: ")


NOW = Instant(int(x509.load_pem_x509_certificate(CA.pem).not_valid_before_utc.timestamp() * 1000) + 3_700_000)
PAIR = CA.issue("localhost", "spiffe://test/client", key=LEAF_KEY)


def pem_files(raw: bytes) -> None:
    """Certificates, keys and authorities in any bytes are refused with the setting, and keys are never shown."""
    certificate_in(raw)
    given = TlsFile("server.tls.certificate", written("any.pem", raw))
    good = TlsFile("server.tls.key", written("good.key", PAIR.key))
    bad_key = TlsFile("server.tls.key", given.path)
    fine = TlsFile("server.tls.certificate", written("good.crt", PAIR.certificate))
    for certificate, key in ((given, good), (fine, bad_key)):
        try:
            load_tls(TlsFiles(certificate, key, None), NOW)
        except BadTls as refused:
            assert str(refused).startswith("server.tls.")
            assert "PRIVATE" not in str(refused)
    try:
        load_authorities(TlsFile("server.tls.client_ca", given.path), NOW)
    except BadTls as refused:
        assert str(refused).startswith("server.tls.client_ca: ")


@contextmanager
def own_settings() -> Iterator[None]:
    """Have the files of the user in a folder of this process."""
    before = os.environ.get("XDG_CONFIG_HOME")
    os.environ["XDG_CONFIG_HOME"] = str(folder())
    try:
        yield
    finally:
        if before is None:
            del os.environ["XDG_CONFIG_HOME"]
        else:
            os.environ["XDG_CONFIG_HOME"] = before


def contexts(raw: bytes) -> None:
    """A file of contexts is refused with its name, or what it says survives being written again."""
    with own_settings():
        path = contexts_file()
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(raw)
        try:
            found = load_contexts()
        except BadContexts as refused:
            assert refused.message.startswith(str(path))
            return
        save_contexts(found)
        assert load_contexts() == found


NAMES = CookieNames("__Host-session", "__Host-guest")


def cookies(raw: bytes) -> None:
    """A session token is found in `Cookie` headers only if exactly one cookie of that name is there."""
    headers = raw.decode("latin-1").split("\n")
    found = presented(headers, NAMES)
    assert not (found.token and found.ambiguous)
    if found.token is not None:
        text = found.token.reveal()
        assert text
        assert not set(text) & set(";,\t ") or text.strip(" \t") == text
        assert any(
            f"{name}=" in header.replace(" ", "").replace("\t", "")
            for header in headers
            for name in (NAMES.subject, NAMES.anonymous)
        )
        # Another cookie of the same name makes it ambiguous, wherever it stands.
        for name in (NAMES.subject, NAMES.anonymous):
            if any(part.strip(" \t").startswith(f"{name}={text}") for part in ";".join(headers).split(";")):
                assert presented([f"{name}=planted", *headers], NAMES).ambiguous
                break


HOPS = [
    TrustedProxies(hops=1),
    TrustedProxies(hops=2, header="forwarded"),
    TrustedProxies(networks=("10.0.0.0/8", "unix"), header="forwarded"),
    TrustedProxies(networks=("10.0.0.0/8", "fd00::/8")),
]


def forwarded(raw: bytes) -> None:
    """The client's address is one in canonical form, or unknown; what a client adds to the left changes nothing."""
    headers = raw.decode("latin-1").split("\n")
    for proxies in HOPS:
        for peer in ("10.0.0.1", "192.0.2.1", "", "unix:"):
            found = client_address(peer, headers, proxies)
            assert not found or str(ipaddress.ip_address(found)) == found
        appended = [*headers, "203.0.113.9" if proxies.header == "x-forwarded-for" else "for=203.0.113.9"]
        if proxies.hops != 2:
            assert client_address("10.0.0.1", appended, proxies) == "203.0.113.9"


def proxies(raw: bytes) -> None:
    """A question of a proxy is refused by name or has one path and one address; a refusal never lets anybody pass."""
    lines = raw.split(b"\n")
    names = (METHOD, URI, HOST, PEER)
    with suppress(InvalidField):
        route = route_in(lines[0].decode("latin-1"))
        assert 0 <= route.level <= 3
    pairs = [(name.encode(), value) for name, value in zip((*names, "cookie", URI), lines, strict=False)]
    headers = Headers(pairs)
    with suppress(InvalidField):
        request = web_request(headers)
        assert request.path.startswith("/")
        assert str(ipaddress.ip_address(request.peer)) == request.peer
        assert request.method
        assert len(headers.get(URI)) == 1
    for text in (raw.decode("latin-1"), urlsafe_b64encode(raw).decode()):
        response = refusal_in([text])
        assert 300 <= response.status < 600
        assert not any(set(b"\r\n\0") & set(name + value) for name, value in response.headers)
    # What a sidecar forwards arrives as it was, and an answer that is none is no permission.
    sent = HttpRequest.FromString(question("/check", lines[0].decode("latin-1"), pairs))
    assert [(one.key.encode("latin-1"), one.value.encode("latin-1")) for one in sent.headers] == pairs
    assert sent.uri.partition("?")[2].encode("latin-1") == lines[0]
    with suppress(DecodeError, ValueError):
        assert 200 <= answer_in(raw).status < 600


def origins(raw: bytes) -> None:
    """Redirects stay on this site, and an origin is only trusted in the form that browsers write."""
    text = raw.decode("latin-1")
    path = safe_path(text)
    assert path[0] == "/"
    assert path[1:2] not in ("/", "\\")
    assert not set(path) & set("\\\t\r\n")
    own = own_form(text)
    assert not own or own_form(own) == own
    first, _, second = text.partition("\n")
    if own_form(first) not in ("https://shop.example", "http://shop.example"):
        assert is_cross_site([], [first], "shop.example", ())
    assert is_cross_site([first, second], [], "shop.example", ())


REQUESTS = [
    message_factory.GetMessageClass(method.input_type)
    for method in pb.DESCRIPTOR.services_by_name["SessionAuthority"].methods
]


def wire(raw: bytes) -> None:
    """A request is refused with a field that its message has, or parsed as the library parses it."""
    kind: Any = REQUESTS[raw[0] % len(REQUESTS)] if raw else REQUESTS[0]
    try:
        found = parse(kind, raw[1:])
    except InvalidField as refused:
        assert refused.field
    else:
        assert found == kind.FromString(raw[1:])


_TOML = b"""[server]
listen = "127.0.0.1:7443"
max_calls = 3000
[server.tls]
certificate = "/etc/a.crt"
key = "/etc/a.key"
[networks]
operators = "/o.mmdb"
[applications.shop]
preset = "owasp-high"
idle_timeout = "20m"
max_sessions = 3
reactions = { token_copy = "alert", ip_change = "alert" }
[applications.shop.cookie]
name = "id"
[applications.shop.guessing]
"""
TARGETS = {
    "tokens": Target(tokens, tuple(one.encode() for one in (TOKEN, COMPANION, TICKET, CSRF))),
    "caller_keys": Target(caller_keys, (KEY.encode(),)),
    "positions": Target(
        positions,
        tuple(
            one.encode()
            for one in (
                encode_cursor(IDENTITY, POSITION),
                encode_consistency_token(IDENTITY, POSITION),
                encode_page(QUESTION, bytes(16)),
                encode_page(QUESTION, (5).to_bytes(8, "big")),
            )
        ),
    ),
    "configuration": Target(
        configuration,
        (
            _TOML,
            b"[" * 2_000,
            b"a = " + b"[" * 2_000,
            b"a = " + b"{b=" * 2_000,
            b"a = " + b"1" * 5_000,
            b".".join([b"a"] * 2_000) + b" = 1",
            b"a = 1e99999",
            b"a = 0001-01-01T00:00:00-23:59",
        ),
        slow=True,
    ),
    "environment": Target(
        environment,
        (b"LISTEN=127.0.0.1:0\nMAX_CALLS=5\nTLS_CERTIFICATE=/a", b"UPSTREAM=unix:/a\nMAX_STREAMS=9"),
        slow=True,
    ),
    "key_files": Target(key_files, (b"0123456789abcdef" * 8 + b"\n", bytes(range(64)).hex().encode() + b"\n")),
    "certificates": Target(
        certificates,
        (
            b"\x30\x1d\x86\x10spiffe://a.b/c.d\x82\x09localhost",
            b"\x30\x06\x87\x04\x7f\0\0\1",
            b"\x30\x80\x86\x01a\0\0",
            b"\x30\x84\xff\xff\xff\xff",
        ),
        slow=True,
    ),
    "pem_files": Target(pem_files, (PAIR.certificate, PAIR.key, CA.pem, b"-----BEGIN CERTIFICATE-----\n"), slow=True),
    "contexts": Target(
        contexts,
        (
            b'{"current": "prod", "contexts": {"prod": {"target": "127.0.0.1:7443", "tls": true, "tls_ca": "/ca"}}}',
            b"[" * 3_000,
            b'{"contexts":' * 500,
            b'{"contexts": ' + b"1" * 5_000 + b"}",
            b'{"contexts": {"a": {"target": "\\ud800"}}}',
        ),
    ),
    "cookies": Target(
        cookies,
        (b"__Host-session=abc; theme=dark", b"__Host-guest=a,__Host-session=b", b"__Host-session=a\n__Host-session=b"),
    ),
    "forwarded": Target(
        forwarded,
        (
            b'for=192.0.2.1;by=10.0.0.1, for="[2001:db8::1]:80"',
            b"192.0.2.1, 10.0.0.2",
            b'for="_a\\"b",,;;=',
            b"::ffff:1.2.3.4",
        ),
    ),
    "proxies": Target(
        proxies,
        (
            b"GET\n/a?b=c\napp.example\n192.0.2.1",
            b"GET\n/%2e%2e/\xff\napp.example\n2001:db8::1\na=1\n/b",
            b"application=shop&level=2&max_age=15m&guests=true",
            b'[303, [["location", "/login?next=/a"]], "<p>"]',
            b'[403, [["a", "b\\r\\nc: d"]], ""]',
        ),
    ),
    "origins": Target(
        origins,
        (
            b"https://shop.example:443",
            b"/a?b=c",
            b"//evil.example",
            b"http://[::1]:80",
            b"http://[",
            b"pJhttps://shop.example",
        ),
    ),
    "wire": Target(wire, tuple(bytes([number]) + b"\x0a\x04shop" for number in range(len(REQUESTS)))),
}
