"""Honest callers during an attack: their median latency and the server's memory, compared with a quiet server."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc

from bench.attacks import ATTACKS, CONTROL
from bench.open_loop import percentile
from bench.processes import Server, serving, sessiond
from bench.seed import seed
from bench.sides import expect
from sessiond_stubs.v1 import session_authority_pb2 as pb
from sessiond_stubs.v1.session_authority_pb2_grpc import SessionAuthorityStub

__all__ = ["AttackResult", "measure"]

_PAUSE = 0.004


@dataclass(frozen=True, slots=True)
class AttackResult:
    """The effect of an attack on honest callers.

    quiet, attacked           median latency in milliseconds by call, without and during the attack
    failed                    number of honest calls that failed
    grown_bytes               growth of the server's resident memory
    quiet_p99, attacked_p99   the 99th percentile of the same latencies
    rate_kept                 honest calls in a second of the attack, as a share of those in a second without it. The
                              caller pauses after each call, so this is nearer to 1 than the latencies suggest
    """

    name: str
    quiet: dict[str, float]
    attacked: dict[str, float]
    failed: int
    grown_bytes: int
    quiet_p99: dict[str, float]
    attacked_p99: dict[str, float]
    rate_kept: float

    @property
    def ratio(self) -> float:
        """The largest ratio of a call's median latency during the attack to that without it."""
        return max(self.attacked[call] / self.quiet[call] for call in self.quiet)


class _HonestCaller:
    """One honest caller, which alternately validates and opens a session, with a pause after each call."""

    def __init__(self, server: Server) -> None:
        self._stub = SessionAuthorityStub(grpc.insecure_channel(server.address))
        self._token = self._stub.CreateSession(pb.CreateSessionRequest(subject="ada"), timeout=30).token
        self.failed = 0

    def watch(self, seconds: float) -> dict[str, list[float]]:
        """Call for `seconds` and return the latencies by call, in milliseconds."""
        found: dict[str, list[float]] = {"validate": [], "create": []}
        calls: dict[str, Callable[[], object]] = {
            "validate": lambda: self._stub.ValidateSession(pb.ValidateSessionRequest(token=self._token), timeout=30),
            "create": lambda: self._stub.CreateSession(pb.CreateSessionRequest(subject="ada"), timeout=30),
        }
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for name, call in calls.items():
                begun = time.perf_counter()
                try:
                    call()
                except grpc.RpcError:
                    self.failed += 1
                found[name].append((time.perf_counter() - begun) * 1e3)
                time.sleep(_PAUSE)
        return found


def measure(
    name: str,
    folder: Path,
    *,
    size: int,
    sessions: int,
    seconds: float,
    rounds: int,
    quiet_seconds: float | None = None,
    module: str = "sessiond",
) -> AttackResult:
    """Measure an honest caller alternately without and during the attack, `rounds` times. `folder` must be empty.

    Each interval with the attack takes `seconds`, and each one without it `quiet_seconds`, or as long. `module` is the
    server; a test runs another one.
    """
    attack = ATTACKS.get(name, CONTROL)
    quiet_seconds = seconds if quiet_seconds is None else quiet_seconds
    config: Path | None = None
    data = folder / "data"
    if sessions:
        seeded = asyncio.run(seed(folder / "seeded", sessions, attack.config))
        data, config = seeded.data, seeded.config
    elif attack.config:
        config = folder / "sessiond.toml"
        config.write_text(attack.config, encoding="utf-8")
    quiet: dict[str, list[float]] = {"validate": [], "create": []}
    attacked: dict[str, list[float]] = {"validate": [], "create": []}
    command = [module if part == "sessiond" else part for part in sessiond(data, config)]
    with serving("sessiond", command, folder / "server.log") as server:
        honest = _HonestCaller(server)
        honest.watch(0.3)
        before, most = server.resident_bytes(), 0
        for _ in range(rounds):
            _add(quiet, honest.watch(quiet_seconds))
            attacker = subprocess.Popen(
                [sys.executable, "-m", "bench.attacks", name, server.address, str(size)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            try:
                assert attacker.stdout is not None
                expect(attacker.stdout.readline() == b"ready\n", f"the attack {name!r} did not begin")
                _add(attacked, honest.watch(seconds))
                most = max(most, server.resident_bytes())
                expect(attacker.poll() is None, f"the attack {name!r} ended by itself")
            finally:
                attacker.kill()
                attacker.communicate()
            time.sleep(0.5)
    return AttackResult(
        name,
        {call: statistics.median(seen) for call, seen in quiet.items()},
        {call: statistics.median(seen) for call, seen in attacked.items()},
        honest.failed,
        most - before,
        _p99(quiet),
        _p99(attacked),
        _calls(attacked) / (rounds * seconds) / (_calls(quiet) / (rounds * quiet_seconds)),
    )


def _p99(seen: dict[str, list[float]]) -> dict[str, float]:
    return {call: percentile(latencies, 0.99) for call, latencies in seen.items()}


def _calls(seen: dict[str, list[float]]) -> int:
    return sum(map(len, seen.values()))


def _add(into: dict[str, list[float]], more: dict[str, list[float]]) -> None:
    for call, seen in more.items():
        into[call] += seen
