"""After hostile traffic honest calls work, memory and descriptors are back, and nothing was logged as an error.

Each kind of traffic runs against a server in a process of its own, on both transports, and inside of TLS. How much of
it there is, and for how long at most, is said where it is defined (`tests/hostile/attacks.py`).
"""

from __future__ import annotations

import json
import os
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import pytest

from bench.processes import Server, serving, sessiond
from sessiond.config.sections import TRANSPORTS
from sessiond_stubs.v1 import session_authority_pb2 as pb
from sessiond_stubs.v1.session_authority_pb2_grpc import SessionAuthorityStub
from tests.hostile.attacks import ATTACKS, SLOW, Attack, Wire, aborted_handshakes, client_hello, closed_after
from tests.hostile.attacks import connections as held_connections
from tests.hostile.frames import start
from tests.support.certificates import Authority, credentials, server_files
from tests.support.figures import report

pytestmark = [pytest.mark.slow, pytest.mark.measured]
CA = Authority("servers")
TLS = "tls"
GROWTH = 1.10
"""The resident memory after an attack, as a multiple of that before it."""
KEPT_ONCE = {"unread answers": 20_000_000, "watched health": 20_000_000}
"""Bytes that the first attack of these kinds may leave, for the next one of that kind (decision 18): 11 and 12 % were
measured. All others are held to `GROWTH` at once."""
WAYS = [*TRANSPORTS, TLS] if os.environ.get("SESSIOND_TEST_HOSTILE") == "all" else TRANSPORTS[:1]
"""The servers that are attacked. All of them take a quarter of an hour (`make hostile`)."""
SOON = 45.0
"""Seconds after which memory and descriptors must be back: memory is looked at every ten seconds."""
HANDSHAKE = 10.0
"""Seconds that a handshake may take."""
HANDSHAKE_AND_MORE = 2 * HANDSHAKE
MOST_CONNECTIONS = 2_000
POOLS = 4
"""Descriptors that gRPC and the store open when the first calls come, and keep."""
MOST_KEPT = 12_000_000
"""Bytes that the first flood may leave: a tenth of what a server uses."""


@dataclass(frozen=True)
class Measured:
    """What must not grow: resident memory and open descriptors."""

    memory: int
    descriptors: int


@dataclass(frozen=True)
class Target:
    """A server under attack."""

    server: Server
    wire: Wire
    log: Path
    descriptors: int = 0
    """How many it has open without any connection."""
    kept_once: int = 0
    """Bytes that its resident memory grew by in the first flood of headers, and that it kept."""

    def channel(self) -> grpc.Channel:
        """Return a channel that shares no connection with others."""
        options = [("grpc.use_local_subchannel_pool", 1)]
        if self.wire.tls is None:
            return grpc.insecure_channel(self.server.address, options)
        return grpc.secure_channel(self.server.address, credentials(CA), options)

    def honest(self, connections: int = 5, calls: int = 40, timeout: float = 10) -> None:
        """Make honest calls on connections of their own. Raise what gRPC raises if one fails."""
        for _ in range(connections):
            with self.channel() as channel:
                stub = SessionAuthorityStub(channel)
                token = stub.CreateSession(pb.CreateSessionRequest(subject="ada"), timeout=timeout).token
                for _ in range(calls):
                    answer = stub.ValidateSession(pb.ValidateSessionRequest(token=token), timeout=timeout)
                    assert answer.verdict == pb.VERDICT_VALID
                stub.RevokeSession(pb.RevokeSessionRequest(session={"token": token}), timeout=timeout)  # type: ignore[arg-type]

    def measure(self) -> Measured:
        """Return what the server uses now."""
        return Measured(self.server.resident_bytes(), len(os.listdir(f"/proc/{self.server.pid}/fd")))

    def settled(self) -> Measured:
        """Make honest calls, and return what the server uses once all connections are closed."""
        self.honest()
        end = time.monotonic() + SOON
        while (found := self.measure()).descriptors > self.descriptors:
            assert time.monotonic() < end, f"{found.descriptors} descriptors, and {self.descriptors} at the beginning"
            time.sleep(0.1)
        return found

    def not_back(self, before: Measured, within: float = SOON) -> list[str]:
        """Wait until the server uses no more than before, and return what it still uses more of after that time."""
        end = time.monotonic() + within
        while True:
            now, found = self.measure(), []
            if now.memory > GROWTH * before.memory:
                found.append(f"memory: {now.memory / 1e6:.0f} MB after {before.memory / 1e6:.0f} MB")
            if now.descriptors > before.descriptors:
                found.append(f"descriptors: {now.descriptors} after {before.descriptors}")
            if not found or time.monotonic() > end:
                return found
            time.sleep(0.2)

    def errors(self) -> list[str]:
        """Return the lines of the log that report an error, or that are not of the log at all."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        entries = [json.loads(line) if line.startswith("{") else {"level": "error", "event": line} for line in lines]
        return [entry["event"] for entry in entries if entry["level"] in ("error", "critical")]


@pytest.fixture(scope="module", params=WAYS)
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server for one transport, which is attacked in all ways one after the other."""
    way, folder = request.param, tmp_path_factory.mktemp("hostile")
    if way == "native":
        pytest.importorskip("pygrpc_native", reason="the native transport is optional, and is not installed")
    config, tls = None, None
    if way == TLS:
        files = server_files(CA, folder / "tls")
        config = folder / "sessiond.toml"
        config.write_text(
            f'[server.tls]\ncertificate = "{files["tls_certificate"]}"\nkey = "{files["tls_key"]}"\n', encoding="utf-8"
        )
        tls = ssl.create_default_context(cadata=CA.pem.decode())
        tls.set_alpn_protocols(["h2"])
    command = sessiond(folder / "data", config, transport="grpcio" if way == TLS else way)
    with serving(way, command, folder / "log") as server:
        host, _, port = server.address.rpartition(":")
        target = Target(server, Wire(host, int(port), tls), folder / "log")
        unconnected = target.measure().descriptors
        target.honest(connections=50)
        target = replace(target, descriptors=unconnected + POOLS)
        before = target.settled()
        ATTACKS["endless headers"].run(target.wire)
        target.not_back(before)
        yield replace(target, kept_once=target.settled().memory - before.memory)


def _after(target: Target, attack: Attack) -> tuple[Measured, list[str]]:
    before = target.settled()
    attack.run(target.wire)
    target.honest()
    return before, target.not_back(before)


@pytest.mark.parametrize("name", ATTACKS)
def test_after_an_attack(target: Target, name: str) -> None:
    """After the attack honest calls succeed, memory is back within 10 %, all descriptors are, and no error is logged.
    Two kinds may leave more once, within a bound, and not again. It would fail if a protection of gRPC were switched
    off, or if we kept anything for a call that has ended; the control below shows that kept connections and memory are
    noticed.
    """
    if target.wire.tls is not None and not ATTACKS[name].over_tls:
        pytest.skip("below TLS, where the slow handshakes are tested instead")
    before, found = _after(target, ATTACKS[name])
    now = target.measure()
    report(f"{name}, {target.server.name}: {before.memory / 1e6:.1f} MB before, {now.memory / 1e6:.1f} MB after")
    if found and now.memory - before.memory < KEPT_ONCE.get(name, 0):
        _, found = _after(target, ATTACKS[name])
    assert found == []
    assert target.errors() == []


def test_what_the_first_flood_leaves(target: Target) -> None:
    """The first flood of headers, to a server that has seen honest calls only, leaves less than 12 MB.
    It would leave more if its memory were in use until the next run of the cycle collector.
    """
    report(f"kept after the first flood, {target.server.name}: {target.kept_once / 1e6:.1f} MB")
    assert target.kept_once < MOST_KEPT


def test_what_is_kept_is_noticed(target: Target) -> None:
    """The measurement can fail: open connections are reported, and so is memory that is in use."""
    before = target.settled()
    with held_connections(target.wire, 100, b""):
        end = time.monotonic() + SOON
        while target.measure().descriptors < before.descriptors + 90:  # until almost all are accepted
            assert time.monotonic() < end
            time.sleep(0.05)
        found = target.not_back(before, within=1)
        assert any("descriptors" in one for one in found)
    assert target.not_back(before) == []
    smaller = Measured(int(target.measure().memory / 1.2), before.descriptors)
    assert any("memory" in one for one in target.not_back(smaller, within=0))


@pytest.mark.parametrize("kind", SLOW)
def test_slow_handshakes(target: Target, kind: str) -> None:
    """200 connections that do not finish their handshake are closed within 20 seconds, and nobody waits for them.
    They would stay if the timeout of the handshake were not set: gRPC's own is two minutes.
    """
    if target.server.name == "native":
        pytest.skip("the native transport closes them after 120 seconds, and has no setting for it (decision 24)")
    first, rest = SLOW[kind]
    _slow(target, first, rest)


@pytest.mark.parametrize("kind", ["slow hello", "half of a hello", "no answer to the server's hello"])
def test_slow_tls_handshakes(target: Target, kind: str) -> None:
    """200 TLS handshakes that do not end are closed within 20 seconds, and nobody waits for them.
    They would stay if the timeout did not include TLS, as in servers whose TLS is a layer of its own.
    """
    if target.wire.tls is None:
        pytest.skip("the server has no TLS")
    hello = client_hello()
    first, rest = {
        "slow hello": (b"", hello),
        "half of a hello": (hello[:100], b""),
        "no answer to the server's hello": (hello, b""),
    }[kind]
    _slow(target, first, rest)


def _slow(target: Target, first: bytes, rest: bytes) -> None:
    before = target.settled()
    with held_connections(target.wire, 200, first) as held:
        target.honest(connections=2)
        closed_after(held, rest, HANDSHAKE_AND_MORE)
    target.honest()
    assert target.not_back(before) == []
    assert target.errors() == []


def test_aborted_tls_handshakes(target: Target) -> None:
    """After 700 handshakes that are broken off, or that are none, everything is as before.
    It would fail if the state of a handshake were kept until its timeout: the descriptors would be counted.
    """
    if target.wire.tls is None:
        pytest.skip("the server has no TLS")
    before, found = _after(target, Attack("", aborted_handshakes))
    assert found == []
    assert target.measure().descriptors <= before.descriptors
    assert target.errors() == []


def test_the_limit_on_connections(target: Target) -> None:
    """With 2,000 connections open a further one is not served; when they are closed all places are free, every time.
    That the further one is not served is the control: the places were used up indeed.
    """
    if target.server.name == "native":
        pytest.skip("the native transport limits connections by open files only (decision 24)")
    if target.wire.tls is not None:
        pytest.skip("the limit is the same for connections with TLS, but none of them gets beyond the handshake")
    before = target.settled()
    for _ in range(2):
        with held_connections(target.wire, MOST_CONNECTIONS, start()), pytest.raises(grpc.RpcError):
            target.honest(connections=1, timeout=1)
        assert not any("descriptors" in one for one in target.not_back(before, within=10))
        target.honest()
