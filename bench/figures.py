"""The figures: what each of them puts under load, how it makes sure of the answers, and the bar it has to reach."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import grpc

from bench import echo
from bench.load import Load, LoadFailed, Run, drive, framed
from bench.processes import Server, serving, sessiond
from bench.processes import echo as echo_command
from bench.seed import APPLICATION, LONG_LIVED, Seeded, client_of, ready, seed
from sessiond_stubs.v1 import session_authority_pb2 as pb
from sessiond_stubs.v1.session_authority_pb2_grpc import SessionAuthorityStub

__all__ = ["FIGURES", "Figure", "Result", "Settings", "Teller"]

_BODIES = 8
_SERVICE = "/sessiond.v1.SessionAuthority/"
_BATCH = 1_000
_PULSE_BATCH = 100
_SPREAD = 7919  # a prime: runs walk over all sessions and come back to none soon


class Teller(Protocol):
    """Who is told how it goes."""

    def step(self, text: str) -> None:
        """Something begins."""

    def progress(self, text: str, done: int, total: int) -> None:
        """Something long goes on."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    folder       throwaway data and logs
    kept         the stores that are filled once
    validations, creations   calls in each run
    few, many    stored sessions, of validate_1m_vs_1k
    profile      where a profile goes, if one is to be recorded instead of a comparison
    """

    pairs: int
    folder: Path
    kept: Path
    validations: int = 24_000
    creations: int = 12_000
    few: int = 1_000
    many: int = 1_000_000
    profile: Path | None = None


@dataclass(slots=True)
class Result:
    """A figure as it came out: every run, the ratio of each pair, their median, and what else was seen."""

    name: str
    bar: float
    subject: str
    baseline: str
    pairs: list[dict[str, Any]] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """The median of the pairs' ratios of throughput."""
        return float(statistics.median(pair["ratio"] for pair in self.pairs))

    @property
    def met(self) -> bool:
        """Whether the bar is reached."""
        return self.ratio >= self.bar

    def median(self, side: str, key: str) -> float:
        """The median of a measured value over the runs of one side."""
        return float(statistics.median(pair[side][key] for pair in self.pairs))

    def as_json(self) -> dict[str, Any]:
        """For the file."""
        measured = ("throughput", "latency_mean_ms", "server_cpu_us", "server_cores")
        return {
            "ratio": self.ratio,
            "bar": self.bar,
            "met": self.met,
            "subject": self.subject,
            "baseline": self.baseline,
            "ratios": [pair["ratio"] for pair in self.pairs],
            "cpu_ratio": self.median("baseline", "server_cpu_us") / self.median("subject", "server_cpu_us"),
            "median_of_subject": {key: self.median("subject", key) for key in measured},
            "median_of_baseline": {key: self.median("baseline", key) for key in measured},
            "details": self.details,
            "pairs": self.pairs,
        }


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure by its name, the bar, and how to measure it."""

    name: str
    bar: float
    measure: Callable[[Settings, Result, Teller], None]

    def run(self, settings: Settings, teller: Teller) -> Result:
        """Measure it. Raises `LoadFailed` or `ServerEnded`."""
        result = Result(self.name, self.bar, "", "")
        self.measure(settings, result, teller)
        return result


class _Side(Protocol):
    """One of the two that are compared."""

    server: Server

    def run(self, number: int) -> Run:
        """Load it once. Must make sure, before and after, that it answers what it should."""


def _profile(settings: Settings, side: _Side, teller: Teller) -> None:
    """Run one side alone, and record its profile while it is under load."""
    teller.step("warming up")
    side.run(-1)
    os.kill(side.server.pid, signal.SIGUSR1)
    for number in range(settings.pairs):
        teller.progress("recording", number, settings.pairs)
        side.run(number)
    os.kill(side.server.pid, signal.SIGUSR2)
    teller.progress("recording", settings.pairs, settings.pairs)


def _alternate(result: Result, subject: _Side, baseline: _Side, pairs: int, teller: Teller) -> None:
    """Run both in turns; every other pair begins with the other side, so that no drift favours one of them."""
    teller.step(f"{result.name}: warming up")
    subject.run(-1)
    baseline.run(-1)
    for number in range(pairs):
        teller.progress(result.name, number, pairs)
        if number % 2:
            under_test = subject.run(number)
            beside = baseline.run(number)
        else:
            beside = baseline.run(number)
            under_test = subject.run(number)
        result.pairs.append(
            {
                "ratio": under_test.throughput / beside.throughput,
                "first": "subject" if number % 2 else "baseline",
                "subject": asdict(under_test),
                "baseline": asdict(beside),
            }
        )
    teller.progress(result.name, pairs, pairs)


# The sides


class _Echo:
    """The echo, under a load of the same sizes."""

    def __init__(self, server: Server, request_bytes: int, response_bytes: int, requests: int) -> None:
        request, self._response_bytes = echo.sized(request_bytes), echo.sized(response_bytes).ByteSize()
        self.server = server
        self._load = Load(server, echo.PATH, [framed(request)] * _BODIES, requests)

    def run(self, number: int) -> Run:
        """Every answer must have come, to the byte."""
        run = drive(self._load)
        _expect(
            run.body_bytes == run.requests * (self._response_bytes + 5),
            f"the echo answered {run.body_bytes} bytes to {run.requests} calls",
        )
        return run


class _Validation:
    """ValidateSession, in each run with other tokens, activity taken in."""

    def __init__(self, server: Server, seeded: Seeded, requests: int, *, pulse: bool) -> None:
        self.server = server
        self._seeded = seeded
        self._requests = requests
        self._stub = _Stub(server)
        self._pulse = _Pulse(self._stub, seeded) if pulse else None

    def request(self, number: int, *, passive: bool = False) -> pb.ValidateSessionRequest:
        """The question about one session."""
        return pb.ValidateSessionRequest(
            application=APPLICATION, token=self._seeded.token(number), client=_client(number), passive=passive
        )

    def sizes(self) -> tuple[int, int]:
        """Serialized bytes of a request and of its answer: medians of a hundred."""
        requests = [self.request(number) for number in range(100)]
        responses = [self._stub.validate(request) for request in requests]
        return (
            round(statistics.median(request.ByteSize() for request in requests)),
            round(statistics.median(response.ByteSize() for response in responses)),
        )

    def warm_up(self, sessions: int, teller: Teller) -> float:
        """Have the server load that many sessions into memory, in batches that do not count as activity.

        Gives the microseconds that each of them took in its batch.
        """
        text = f"{self.server.name}: {sessions:,} sessions in batches"
        taken = 0.0
        for start in range(0, sessions, _BATCH):
            numbers = range(start, min(start + _BATCH, sessions))
            requests = [self.request(number, passive=True) for number in numbers]
            began = time.perf_counter()
            self._stub.validate_many(requests)
            taken += time.perf_counter() - began
            teller.progress(text, numbers.stop, sessions)
        return taken / sessions * 1e6

    def run(self, number: int) -> Run:
        """Each token must be VALID before and after, and its activity must have moved to within the run."""
        chosen = [(number * _BODIES + i + _BODIES) * _SPREAD % self._seeded.count for i in range(_BODIES)]
        before = [self._stub.validate(self.request(n)) for n in chosen]
        load = Load(
            self.server, _SERVICE + "ValidateSession", [framed(self.request(n)) for n in chosen], self._requests
        )
        if self._pulse is None:
            run = drive(load)
        else:
            with self._pulse:
                run = drive(load)
        for n, first in zip(chosen, before, strict=True):
            last = self._stub.validate(self.request(n, passive=True))
            _expect(last.session.session_id == str(self._seeded.session_id(n)), "the answer is about another session")
            moved = last.session.last_active_time.ToMilliseconds() - first.session.last_active_time.ToMilliseconds()
            # The slowest of the processes took run.seconds; the fastest gets well over a third of that.
            _expect(moved > run.seconds * 1000 / 3, f"activity moved by {moved} ms in {run.seconds:.1f} s: no touches?")
        # A timestamp takes up to three bytes less where its fraction is small; an answer with an error has no bytes.
        least = min(response.ByteSize() for response in before) + 5 - 6
        _expect(run.body_bytes >= run.requests * least, f"{run.body_bytes} bytes answer {run.requests} calls: errors?")
        return run


class _Creation:
    """CreateSession, for eight subjects."""

    def __init__(self, server: Server, requests: int) -> None:
        self.server = server
        self._stub = _Stub(server)
        self._load = Load(
            server, _SERVICE + "CreateSession", [framed(self.request(i)) for i in range(_BODIES)], requests
        )

    def request(self, number: int) -> pb.CreateSessionRequest:
        """The request to open a session."""
        return pb.CreateSessionRequest(
            application=APPLICATION,
            subject=f"user-{number:07d}",
            authentication=pb.Authentication(level=1, methods=["pwd"]),
            client=_client(number),
        )

    def sizes(self) -> tuple[int, int]:
        """Serialized bytes of a request and of its answer: medians of a hundred."""
        requests = [self.request(number) for number in range(100)]
        responses = [self._stub.create(request) for request in requests]
        return (
            round(statistics.median(request.ByteSize() for request in requests)),
            round(statistics.median(response.ByteSize() for response in responses)),
        )

    def run(self, number: int) -> Run:
        """Each call must have left its event in the log, and what is opened must be VALID."""
        before = self._stub.revision()
        run = drive(self._load)
        grown = self._stub.revision() - before
        _expect(grown == run.requests, f"{run.requests} sessions were opened, the log grew by {grown} events")
        created = self._stub.create(self.request(0))
        self._stub.validate(pb.ValidateSessionRequest(application=APPLICATION, token=created.token))
        return run


class _Pulse:
    """The rest of the live sessions at work: each of them validated once a minute, beside the load.

    With it activity is written behind during the measurement as it is in production. What it validates is not
    counted.
    """

    def __init__(self, stub: _Stub, seeded: Seeded) -> None:
        self._stub = stub
        self._interval = 60 * _PULSE_BATCH / seeded.count
        self._batches = self._numbers(seeded)
        self._seeded = seeded
        self._done = threading.Event()
        self._failure: Exception | None = None

    @staticmethod
    def _numbers(seeded: Seeded) -> Iterator[range]:
        while True:
            for start in range(0, seeded.count, _PULSE_BATCH):
                yield range(start, min(start + _PULSE_BATCH, seeded.count))

    def _beat(self) -> None:
        try:
            while not self._done.wait(self._interval):
                self._stub.validate_many(
                    [
                        pb.ValidateSessionRequest(
                            application=APPLICATION, token=self._seeded.token(number), client=_client(number)
                        )
                        for number in next(self._batches)
                    ]
                )
        except (grpc.RpcError, LoadFailed) as error:
            self._failure = error

    def __enter__(self) -> Self:
        self._done.clear()
        self._thread = threading.Thread(target=self._beat, name="pulse")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        if self._failure is not None:
            raise LoadFailed(f"a validation beside the load failed: {self._failure}")


class _Stub:
    """Checked calls: what is not VALID, or not answered, is a `LoadFailed`."""

    def __init__(self, server: Server) -> None:
        self._stub = SessionAuthorityStub(grpc.insecure_channel(server.address))

    def validate(self, request: pb.ValidateSessionRequest) -> pb.ValidateSessionResponse:
        """Must be VALID."""
        response: pb.ValidateSessionResponse = self._stub.ValidateSession(request, timeout=30)
        _expect(response.verdict == pb.VERDICT_VALID, f"a live session is {pb.Verdict.Name(response.verdict)}")
        return response

    def validate_many(self, requests: Sequence[pb.ValidateSessionRequest]) -> None:
        """All must be VALID."""
        batch = self._stub.ValidateSessions(pb.ValidateSessionsRequest(requests=requests), timeout=60)
        for response in batch.responses:
            _expect(response.verdict == pb.VERDICT_VALID, f"a live session is {pb.Verdict.Name(response.verdict)}")

    def create(self, request: pb.CreateSessionRequest) -> pb.CreateSessionResponse:
        """Open a session."""
        response: pb.CreateSessionResponse = self._stub.CreateSession(request, timeout=30)
        return response

    def revision(self) -> int:
        """The log's head."""
        return int(self._stub.GetAuthority(pb.GetAuthorityRequest(), timeout=30).revision)


def _client(number: int) -> pb.ClientContext:
    client = client_of(number)
    return pb.ClientContext(ip_address=client.ip_address, user_agent=client.user_agent)


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise LoadFailed(otherwise)


# The figures


def _validate_vs_echo(settings: Settings, result: Result, teller: Teller) -> None:
    teller.step("validate_vs_echo: opening 10,000 sessions")
    seeded = asyncio.run(seed(settings.folder / "validate", 10_000, "", age_ms=61_000))
    with serving(
        "sessiond", sessiond(seeded.data, profile=settings.profile), settings.folder / "validate.log"
    ) as server:
        side = _Validation(server, seeded, settings.validations, pulse=True)
        side.warm_up(seeded.count, teller)
        _beside_echo(settings, result, side, settings.validations, teller)
    result.subject, result.details["live_sessions"] = "ValidateSession", seeded.count


def _create_vs_echo(settings: Settings, result: Result, teller: Teller) -> None:
    command = sessiond(settings.folder / "create", profile=settings.profile)
    with serving("sessiond", command, settings.folder / "create.log") as server:
        side = _Creation(server, settings.creations)
        _beside_echo(settings, result, side, settings.creations, teller)
    result.subject = "CreateSession, synchronous=FULL"


def _beside_echo(
    settings: Settings, result: Result, side: _Validation | _Creation, requests: int, teller: Teller
) -> None:
    if settings.profile is not None:
        _profile(settings, side, teller)
        return
    request_bytes, response_bytes = side.sizes()
    with serving("echo", echo_command(response_bytes), settings.folder / "echo.log") as server:
        _alternate(result, side, _Echo(server, request_bytes, response_bytes, requests), settings.pairs, teller)
    result.baseline = "bare grpc.aio echo"
    result.details.update(request_bytes=request_bytes, response_bytes=response_bytes)


def _validate_1m_vs_1k(settings: Settings, result: Result, teller: Teller) -> None:
    teller.step(f"validate_1m_vs_1k: opening {settings.few:,} sessions")
    few = asyncio.run(seed(settings.folder / "few", settings.few, LONG_LIVED))
    many = _kept(settings, teller)
    cached = min(settings.many, 100_000)
    teller.step("validate_1m_vs_1k: weighing the cache")
    result.details["resident_bytes_per_cached_session"] = _weigh(many, cached)
    with (
        serving("full store", sessiond(many.data, many.config), settings.folder / "many.log") as large,
        serving("small store", sessiond(few.data, few.config), settings.folder / "few.log") as small,
    ):
        subject = _Validation(large, many, settings.validations, pulse=False)
        baseline = _Validation(small, few, settings.validations, pulse=False)
        baseline.warm_up(few.count, teller)
        resident = large.resident_bytes()
        # The default cache holds 100,000: both are measured with all that their cache can hold.
        from_store = subject.warm_up(cached, teller)
        result.details["server_resident_bytes"] = {"before": resident, "cache_full": large.resident_bytes()}
        from_memory = subject.warm_up(min(cached, 10 * _BATCH), teller)
        result.details["batched_validation_us"] = {"from_store": from_store, "from_memory": from_memory}
        _alternate(result, subject, baseline, settings.pairs, teller)
    result.subject = f"{settings.many:,} stored sessions"
    result.baseline = f"{settings.few:,} stored sessions"
    result.details.update(cached_sessions=cached, stored_bytes=(many.data / "sessiond.db").stat().st_size)


def _kept(settings: Settings, teller: Teller) -> Seeded:
    folder = settings.kept / f"{settings.many}"
    found = ready(folder, settings.many, LONG_LIVED)
    if found is not None:
        teller.step(f"validate_1m_vs_1k: using the {settings.many:,} sessions in {folder}")
        return found
    text = f"filling {folder} with {settings.many:,} sessions, once"
    return asyncio.run(seed(folder, settings.many, LONG_LIVED, lambda done: teller.progress(text, done, settings.many)))


def _weigh(seeded: Seeded, count: int) -> float:
    command = [sys.executable, "-m", "bench.memory", str(seeded.data / "sessiond.db"), str(count)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    _expect(process.returncode == 0, f"the cache could not be weighed:\n{process.stderr}")
    return float(process.stdout)


FIGURES = (
    Figure("validate_vs_echo", 0.70, _validate_vs_echo),
    Figure("create_vs_echo", 0.50, _create_vs_echo),
    Figure("validate_1m_vs_1k", 0.90, _validate_1m_vs_1k),
)
