"""The sides that are compared. Each one puts a server under load and verifies the responses."""

from __future__ import annotations

import secrets
import statistics
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Protocol, Self

import grpc

from bench import echo
from bench.load import Load, LoadFailed, Run, drive, framed, timed
from bench.processes import Server
from bench.seed import APPLICATION, Seeded, client_of
from sessiond_stubs.v1 import session_authority_pb2 as pb
from sessiond_stubs.v1.session_authority_pb2_grpc import SessionAuthorityStub

__all__ = [
    "BATCH",
    "BODIES",
    "SERVICE",
    "SPREAD",
    "Batches",
    "Creation",
    "Echo",
    "Refusal",
    "Reporter",
    "Side",
    "Sized",
    "Validation",
    "expect",
    "too_few_bytes",
]

BODIES = 8
SERVICE = "/sessiond.v1.SessionAuthority/"
BATCH = 1_000
"""Sessions per call when loading sessions into memory."""
_PULSE_BATCH = 100
SPREAD = 7919  # a prime number, so that runs are spread over all sessions and repeat none of them soon
_CHECKS = 100
_TOKEN_BYTES = 52


class Reporter(Protocol):
    """Receives progress reports."""

    def step(self, text: str) -> None:
        """Report that a step begins."""

    def progress(self, text: str, done: int, total: int) -> None:
        """Report the progress of a long step."""


class Side(Protocol):
    """One of the two sides of a comparison."""

    server: Server

    def run(self, number: int) -> Run:
        """Run the load once and return its measurements. Must verify the server's responses before and afterwards."""


class Sized(Side, Protocol):
    """A side whose messages an echo can imitate."""

    def sizes(self) -> tuple[int, int]:
        """Return the serialized sizes of a request and of its response: medians of 100 calls."""


class Echo:
    """The echo, with messages of the same sizes."""

    def __init__(self, server: Server, request_bytes: int, response_bytes: int, requests: int) -> None:
        request, self._response_bytes = echo.sized(request_bytes), echo.sized(response_bytes).ByteSize()
        self.server = server
        self._load = Load(server, echo.PATH, [framed(request)] * BODIES, requests)

    def run(self, number: int) -> Run:
        """Run the load once. The responses must have exactly the expected number of bytes."""
        run = drive(self._load)
        expect(
            run.body_bytes == run.requests * (self._response_bytes + 5),
            f"the echo returned {run.body_bytes} bytes for {run.requests} calls",
        )
        return run


class Validation:
    """ValidateSession, with different tokens in each run; validations count as activity."""

    def __init__(self, server: Server, seeded: Seeded, requests: int, *, pulse: bool) -> None:
        self.server = server
        self._seeded = seeded
        self._requests = requests
        self._stub = _Stub(server)
        self._pulse = _Pulse(self._stub, seeded) if pulse else None

    def request(self, number: int, *, passive: bool = False) -> pb.ValidateSessionRequest:
        """Return the request that validates one session."""
        return pb.ValidateSessionRequest(
            application=APPLICATION, token=self._seeded.token(number), client=_client(number), passive=passive
        )

    def sizes(self) -> tuple[int, int]:
        """Return the serialized sizes of a request and of its response: medians of 100 calls."""
        requests = [self.request(number) for number in range(100)]
        responses = [self._stub.validate(request) for request in requests]
        return (
            round(statistics.median(request.ByteSize() for request in requests)),
            round(statistics.median(response.ByteSize() for response in responses)),
        )

    def warm_up(self, sessions: int, reporter: Reporter) -> float:
        """Make the server load that many sessions into memory, in batches that do not count as activity.

        Return the microseconds per session.
        """
        text = f"{self.server.name}: {sessions:,} sessions in batches"
        taken = 0.0
        for start in range(0, sessions, BATCH):
            numbers = range(start, min(start + BATCH, sessions))
            requests = [self.request(number, passive=True) for number in numbers]
            began = time.perf_counter()
            self._stub.validate_many(requests)
            taken += time.perf_counter() - began
            reporter.progress(text, numbers.stop, sessions)
        return taken / sessions * 1e6

    def run(self, number: int) -> Run:
        """Run the load once. Each token must be VALID before and afterwards, with a last activity during the run."""
        chosen = [(number * BODIES + i + BODIES) * SPREAD % self._seeded.count for i in range(BODIES)]
        before = [self._stub.validate(self.request(n)) for n in chosen]
        load = Load(self.server, SERVICE + "ValidateSession", [framed(self.request(n)) for n in chosen], self._requests)
        with self.pulse():
            run, taken = timed(load)
        self.expect_activity(chosen, [_last_active_ms(response) for response in before], taken)
        # A timestamp with a small fraction takes up to three bytes less; a response with an error has no bytes.
        least = min(response.ByteSize() for response in before) + 5 - 6
        expect(run.body_bytes >= run.requests * least, too_few_bytes(run))
        return run

    def pulse(self) -> AbstractContextManager[object]:
        """Return the background use of all sessions, if there is any, to be entered during the load."""
        return nullcontext() if self._pulse is None else self._pulse

    def last_active_ms(self, number: int) -> int:
        """Return the last activity of a session, in milliseconds since 1970. The session must be VALID."""
        return _last_active_ms(self._stub.validate(self.request(number, passive=True)))

    def expect_activity(self, numbers: Sequence[int], before: Sequence[int], taken: Sequence[float]) -> None:
        """Raise `LoadFailed` unless these sessions have been used since `before`, for so many seconds each."""
        for number, first, seconds in zip(numbers, before, taken, strict=True):
            last = self._stub.validate(self.request(number, passive=True))
            expect(
                last.session.session_id == str(self._seeded.session_id(number)), "the response is for another session"
            )
            moved = _last_active_ms(last) - first
            # Each process has a token of its own, and on a busy machine one may end long before the others.
            problem = f"last activity moved by {moved} ms in {seconds:.1f} s: is activity not recorded?"
            expect(moved > seconds * 1000 / 2, problem)


class Creation:
    """CreateSession, for eight subjects."""

    def __init__(self, server: Server, requests: int) -> None:
        self.server = server
        self._stub = _Stub(server)
        self._load = Load(server, SERVICE + "CreateSession", [framed(self.request(i)) for i in range(BODIES)], requests)

    def request(self, number: int) -> pb.CreateSessionRequest:
        """Return the request that opens a session."""
        return pb.CreateSessionRequest(
            application=APPLICATION,
            subject=f"user-{number:07d}",
            authentication=pb.Authentication(level=1, methods=["pwd"]),
            client=_client(number),
        )

    def sizes(self) -> tuple[int, int]:
        """Return the serialized sizes of a request and of its response: medians of 100 calls."""
        requests = [self.request(number) for number in range(100)]
        responses = [self._stub.create(request) for request in requests]
        return (
            round(statistics.median(request.ByteSize() for request in requests)),
            round(statistics.median(response.ByteSize() for response in responses)),
        )

    def run(self, number: int) -> Run:
        """Run the load once. The log must grow by one event per call, and a session opened afterwards must be VALID."""
        before = self._stub.revision()
        run = drive(self._load)
        grown = self._stub.revision() - before
        expect(grown == run.requests, f"{run.requests} sessions were opened, but the log grew by {grown} events")
        created = self._stub.create(self.request(0))
        self._stub.validate(pb.ValidateSessionRequest(application=APPLICATION, token=created.token))
        return run


class Batches:
    """ValidateSessions, with 100 tokens per call: valid ones, or forged ones.

    In a batch, gRPC's own cost per call is small, so the costs of the two kinds can be distinguished.
    """

    def __init__(self, server: Server, seeded: Seeded, requests: int, *, forged: bool) -> None:
        self.server = server
        self._seeded = seeded
        self._requests = requests
        self._stub = _Stub(server)
        self._forged = forged
        self._verdict = pb.VERDICT_FORGED if forged else pb.VERDICT_VALID

    def run(self, number: int) -> Run:
        """Run the load once. Each token must get the expected verdict before and afterwards."""
        first = (number + 1) * BODIES * _CHECKS
        batches = [self._batch(first + i * _CHECKS) for i in range(BODIES)]
        before = [self._stub.verdicts(batch, self._verdict) for batch in batches]
        run = drive(Load(self.server, SERVICE + "ValidateSessions", [framed(b) for b in batches], self._requests))
        for batch in batches:
            self._stub.verdicts(batch, self._verdict)
        least = min(before) * 9 // 10  # timestamps with small fractions take fewer bytes
        expect(run.body_bytes >= run.requests * least, too_few_bytes(run))
        return run

    def _batch(self, first: int) -> pb.ValidateSessionsRequest:
        numbers = [number % self._seeded.count for number in range(first, first + _CHECKS)]
        return pb.ValidateSessionsRequest(
            requests=[
                pb.ValidateSessionRequest(application=APPLICATION, token=self._token(n), client=_client(n))
                for n in numbers
            ]
        )

    def _token(self, number: int) -> str:
        return _forged() if self._forged else self._seeded.token(number)


class Refusal:
    """ValidateSession, with different forged tokens in each run."""

    def __init__(self, server: Server, seeded: Seeded, requests: int) -> None:
        self.server = server
        self._seeded = seeded
        self._requests = requests
        self._stub = _Stub(server)

    def run(self, number: int) -> Run:
        """Run the load once. Each token must be FORGED before and afterwards."""
        questions = [
            pb.ValidateSessionRequest(application=APPLICATION, token=_forged(), client=_client(number * BODIES + i))
            for i in range(BODIES)
        ]
        batch = pb.ValidateSessionsRequest(requests=questions)
        self._stub.verdicts(batch, pb.VERDICT_FORGED)
        run = drive(Load(self.server, SERVICE + "ValidateSession", [framed(q) for q in questions], self._requests))
        self._stub.verdicts(batch, pb.VERDICT_FORGED)
        return run


class _Pulse:
    """Background use of all live sessions: each is validated once a minute during the load.

    So activity is written to the store during the measurement, as in production. These validations are not counted.
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
            raise LoadFailed(f"a background validation failed: {self._failure}")


class _Stub:
    """Calls whose responses are checked. An unexpected verdict raises `LoadFailed`."""

    def __init__(self, server: Server) -> None:
        self._stub = SessionAuthorityStub(server.channel())

    def validate(self, request: pb.ValidateSessionRequest) -> pb.ValidateSessionResponse:
        """Validate one token, which must be VALID."""
        response: pb.ValidateSessionResponse = self._stub.ValidateSession(request, timeout=30)
        expect(response.verdict == pb.VERDICT_VALID, f"a live session is {pb.Verdict.Name(response.verdict)}")
        return response

    def validate_many(self, requests: Sequence[pb.ValidateSessionRequest]) -> None:
        """Validate several tokens, which must all be VALID."""
        batch = self._stub.ValidateSessions(pb.ValidateSessionsRequest(requests=requests), timeout=60)
        for response in batch.responses:
            expect(response.verdict == pb.VERDICT_VALID, f"a live session is {pb.Verdict.Name(response.verdict)}")

    def verdicts(self, request: pb.ValidateSessionsRequest, wanted: pb.Verdict.ValueType) -> int:
        """Validate a batch in which every token must have the verdict `wanted`. Return the size of the response."""
        batch: pb.ValidateSessionsResponse = self._stub.ValidateSessions(request, timeout=60)
        found = {pb.Verdict.Name(response.verdict) for response in batch.responses}
        expect(found == {pb.Verdict.Name(wanted)}, f"all tokens should be {pb.Verdict.Name(wanted)}, but are {found}")
        return batch.ByteSize()

    def create(self, request: pb.CreateSessionRequest) -> pb.CreateSessionResponse:
        """Open a session."""
        response: pb.CreateSessionResponse = self._stub.CreateSession(request, timeout=30)
        return response

    def revision(self) -> int:
        """Return the log's newest revision."""
        return int(self._stub.GetAuthority(pb.GetAuthorityRequest(), timeout=30).revision)


def _last_active_ms(response: pb.ValidateSessionResponse) -> int:
    return response.session.last_active_time.ToMilliseconds()


def _forged() -> str:
    return urlsafe_b64encode(secrets.token_bytes(_TOKEN_BYTES)).rstrip(b"=").decode()


def _client(number: int) -> pb.ClientContext:
    client = client_of(number)
    return pb.ClientContext(ip_address=client.ip_address, user_agent=client.user_agent)


def too_few_bytes(run: Run) -> str:
    """Return the problem of a run whose responses are too short."""
    return f"the responses to {run.requests} calls have only {run.body_bytes} bytes: did calls fail?"


def expect(condition: bool, problem: str) -> None:
    """Raise `LoadFailed` with the text `problem` if the condition is false."""
    if not condition:
        raise LoadFailed(problem)
