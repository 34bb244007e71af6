"""How many calls of a flood are answered while a call of another caller waits.

That does not depend on what else the machine does, other than the time that the call takes.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from bench.attacks import Frames
from bench.processes import serving, sessiond
from sessiond_stubs.v1 import session_authority_pb2 as pb
from sessiond_stubs.v1.session_authority_pb2_grpc import SessionAuthorityStub
from tests.support.figures import report

pytestmark = [pytest.mark.measured, pytest.mark.slow]

FLOOD = 1_500
"""The calls that the flood has under way all the time, the most that one connection may have."""
MOST = 100
"""Calls of the flood. Without turns it is the whole flood."""
CALLS = 60


class _Flood:
    """Keeps calls under way on a connection of its own, and counts those that have ended."""

    def __init__(self, address: str, method: str, message: bytes) -> None:
        self.ended = 0
        self._frames = Frames(address, method, message)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the calls."""
        self._stopped.set()
        self._thread.join()
        self._frames.close()

    def _run(self) -> None:
        under_way = 0
        while not self._stopped.is_set():
            under_way += self._frames.begin(FLOOD - under_way)
            ended = self._frames.ended()
            under_way -= ended
            self.ended += ended


@contextmanager
def flooded(address: str, method: str, message: bytes) -> Iterator[_Flood]:
    """Flood a server during the block."""
    flood = _Flood(address, method, message)
    try:
        while flood.ended < 2 * FLOOD:  # the server has taken in all calls of the first moment
            time.sleep(0.01)
        yield flood
    finally:
        flood.stop()


def waits(folder: Path, transport: str, method: str, module: str = "sessiond", calls: int = CALLS) -> float:
    """The median number of the flood's calls that are answered while one validation of another connection waits."""
    command = [module if part == "sessiond" else part for part in sessiond(folder / "data", transport=transport)]
    with serving("sessiond", command, folder / "server.log") as server:
        stub = SessionAuthorityStub(grpc.insecure_channel(server.address))
        token = stub.CreateSession(pb.CreateSessionRequest(subject="ada"), timeout=30).token
        question = pb.ValidateSessionRequest(token=token)
        messages = {"ValidateSession": question, "CreateSession": pb.CreateSessionRequest(subject="mallory")}
        with flooded(server.address, method, messages[method].SerializeToString()) as flood:
            found = []
            for _ in range(calls):
                before = flood.ended
                assert stub.ValidateSession(question, timeout=60).verdict == pb.VERDICT_VALID
                found.append(flood.ended - before)
                time.sleep(0.005)
    return statistics.median(found)


@pytest.mark.parametrize("method", ["ValidateSession", "CreateSession"])
@pytest.mark.parametrize("transport", ["grpcio", "native"])
def test_a_flood_takes_turns_with_others(tmp_path: Path, transport: str, method: str) -> None:
    """While one caller keeps 1,500 calls under way, a call of another one waits for a few of them."""
    found = waits(tmp_path, transport, method)
    report(f"{method} on {transport}: a call of another caller waits for {found:g} calls of a flood of {FLOOD}")
    assert found <= MOST


def test_without_turns_others_wait_for_the_whole_flood(tmp_path: Path) -> None:
    """The measurement can fail: if calls do not take turns, a call waits for most of those that arrived before."""
    assert waits(tmp_path, "grpcio", "ValidateSession", "tests.overload.unfair", calls=9) > FLOOD / 3
