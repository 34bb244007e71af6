"""Secrets as a real authority issues them, decoded into bytes, and the programs that judge bytes."""

from __future__ import annotations

import math
import random
import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import grpc

from bench.processes import serving, sessiond
from sessiond.config.data_folder import key_file_in
from sessiond.crypto import base64url
from sessiond.crypto.key_file import load_key_ring
from sessiond.crypto.tokens import KeyRing
from sessiond_stubs.v1 import session_authority_pb2 as pb
from sessiond_stubs.v1.session_authority_pb2_grpc import SessionAuthorityStub

__all__ = ["ORDERED", "Issued", "broken_generator", "dieharder", "ent", "issue", "secrets_in"]

_PLAIN_BYTES = 36
_PURPOSE = b"sessiond/session/v1"
_SECRET = slice(20, 36)
_ID = slice(0, 16)
_KEY_ID = re.compile(r"sessiond_([a-z2-7]{10})_([A-Za-z0-9_-]{43})")
_SECONDS_AT_MOST = 60
_AT_ONCE = 200
_DEVIATIONS = 6.0
_LEAST_P = 1e-7
_TESTS = (100, 101, 102)
"""Monobit, runs and serial tests of NIST's suite, which need the least bytes."""


class Issued:
    """What was issued, by kind, as texts."""

    def __init__(self) -> None:
        self.texts: dict[str, list[str]] = {name: [] for name in ("token", "csrf", "companion", "ticket", "caller key")}

    def sessions(self, stub: Any, count: int, label: str) -> None:
        """Create sessions, each with its CSRF token."""
        loose: Any = pb
        for start in range(0, count, _AT_ONCE):
            calls = [
                stub.CreateSession.future(
                    loose.CreateSessionRequest(subject=f"{label} {number}"), timeout=_SECONDS_AT_MOST
                )
                for number in range(start, min(count, start + _AT_ONCE))
            ]
            for call in calls:
                answer = call.result()
                self.texts["token"].append(answer.token)
                self.texts["csrf"].append(answer.csrf_token)

    def companions(self, stub: Any, count: int) -> None:
        """Have a companion token issued for each of the latest sessions."""
        for token in self.texts["token"][-count:]:
            request = pb.IssueCompanionTokenRequest(token=token, purpose="pay")
            self.texts["companion"].append(stub.IssueCompanionToken(request, timeout=_SECONDS_AT_MOST).companion_token)

    def tickets(self, stub: Any, count: int) -> None:
        """Have a ticket issued for each of so many logins that the limit refuses."""
        stub.CreateSession(pb.CreateSessionRequest(subject="limited"), timeout=_SECONDS_AT_MOST)
        for _ in range(count):
            answer = stub.CreateSession(pb.CreateSessionRequest(subject="limited"), timeout=_SECONDS_AT_MOST)
            self.texts["ticket"].append(answer.limit.ticket)

    def caller_keys(self, stub: Any, count: int) -> None:
        """Have a key issued to each of so many callers. From then on calls need one."""
        loose: Any = pb
        metadata = None
        for number in range(count):
            grants = [{"application": "*", "role": pb.ROLE_ADMIN}]
            request = loose.CreateCallerRequest(name=f"caller{number}", grants=grants)
            key = stub.CreateCaller(request, metadata=metadata, timeout=_SECONDS_AT_MOST).key
            metadata = metadata or [("authorization", f"Bearer {key}")]
            self.texts["caller key"].append(key)


def stub_on(address: str) -> tuple[grpc.Channel, Any]:
    """Return a channel that shares no connection with others, and its stub."""
    channel = grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
    return channel, SessionAuthorityStub(channel)


CONFIG = """
[server]
workers = 2
[applications.default]
max_sessions = 1
on_limit = "ask"
"""


def issue(folder: Path, tokens: int, others: int) -> Mapping[str, list[bytes]]:
    """Return the random parts of what a server with two workers issues, half of it before a restart and half after.

    Callers reach both workers, since each has a connection of its own. Raise AssertionError for a duplicate.
    """
    config, issued = folder / "sessiond.toml", Issued()
    config.write_text(CONFIG, encoding="utf-8")
    for run in range(2):
        with serving("sessiond", sessiond(folder / "data", config), folder / f"log{run}") as server:
            for connection in range(4):
                channel, stub = stub_on(server.address)
                with channel:
                    issued.sessions(stub, tokens // 8, f"run {run}, connection {connection}, user")
                    issued.companions(stub, others // 8)
            channel, stub = stub_on(server.address)
            with channel:
                issued.tickets(stub, others // 2)
                if run == 1:
                    issued.caller_keys(stub, others)
    for kind, texts in issued.texts.items():
        assert texts, kind
        assert len(set(texts)) == len(texts), f"{kind}: one was issued twice"
    parts = secrets_in(issued.texts, key_file_in(folder / "data"))
    for kind, raw in parts.items():
        assert len(set(raw)) == len(raw), f"{kind}: one was issued twice"
    return parts


ORDERED = frozenset({"session ids"})
"""Kinds that begin with the time of their creation (UUID version 7), so they must be unique, and do not look random.
No id is a secret."""


def secrets_in(texts: Mapping[str, Iterable[str]], key_file: Path) -> Mapping[str, list[bytes]]:
    """Return the random parts: session ids and secrets, the sealed form of tokens, and the decoded other secrets.

    The sealed forms and the CSRF tokens are not random, but must look so to those who have no key.
    """
    keys: KeyRing = load_key_ring(key_file, _no_entropy, may_create=False)
    plain = [keys.open_bytes(text, _PURPOSE, _PLAIN_BYTES) for text in texts["token"]]
    key_parts = [match for text in texts["caller key"] if (match := _KEY_ID.fullmatch(text))]
    return {
        "session secrets": [one[_SECRET] for one in plain],
        "session ids": [one[_ID] for one in plain],
        "sealed tokens": [base64url.decode(text) for text in texts["token"]],
        "CSRF tokens": [base64url.decode(text) for text in texts["csrf"]],
        "companion tokens": [base64url.decode(text) for text in texts["companion"]],
        "tickets": [base64url.decode(text) for text in texts["ticket"]],
        "caller keys": [base64url.decode(match[2]) for match in key_parts],
    }


def _no_entropy(_: int) -> bytes:
    raise AssertionError("the key file exists")


def broken_generator(size: int) -> bytes:
    """Return bytes of a generator that is not random: Python's, of which one bit in 32 is always 0."""
    choose = random.Random(1)
    return bytes(byte & 0x7F if number % 4 == 0 else byte for number, byte in enumerate(choose.randbytes(size)))


def ent(raw: bytes) -> list[str]:
    """Return what `ent` finds about bytes that random ones would not show: figures six deviations away, or more.

    So a random sample fails once in some hundred million runs.
    """
    done = subprocess.run(["ent", "-t"], input=raw, capture_output=True, check=True, timeout=_SECONDS_AT_MOST)
    names, values = (line.split(",") for line in done.stdout.decode().split())
    found = dict(zip(names[1:], map(float, values[1:]), strict=True))
    deviations = {
        "chi-squared": (found["Chi-square"] - 255) / math.sqrt(2 * 255),
        "mean": (found["Mean"] - 127.5) / (math.sqrt((256**2 - 1) / 12) / math.sqrt(len(raw))),
        "serial correlation": found["Serial-Correlation"] * math.sqrt(len(raw)),
    }
    return [f"{name}: {value:+.1f} deviations" for name, value in deviations.items() if abs(value) > _DEVIATIONS]


def dieharder(raw: bytes) -> list[str]:
    """Return which tests of `dieharder` random bytes would fail once in ten million runs. Needs 240,000 bytes.

    The sizes are such that no byte is used twice: `dieharder` reads a short file again and again, and then every file
    fails.
    """
    found = []
    with tempfile.NamedTemporaryFile() as file:
        file.write(raw)
        file.flush()
        for number in _TESTS:
            command = ["dieharder", "-g", "201", "-f", file.name, "-d", str(number), "-t", "3000", "-p", "20"]
            command += ["-D", "test_name", "-D", "ntuple", "-D", "pvalues"]
            done = subprocess.run(command, capture_output=True, check=True, timeout=10 * _SECONDS_AT_MOST)
            text = done.stdout.decode()
            assert "rewound" not in text + done.stderr.decode(), "the sample is too short for dieharder"
            rows = re.findall(r"(\w+)\|\s*(\d+)\|([01]\.\d+)", text)
            assert rows, text
            found += [f"{name} {size}: p = {value}" for name, size, value in rows if float(value) < _LEAST_P]
    return found
