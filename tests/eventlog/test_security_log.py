"""The log of security events: each committed one once, never a token, and bounded whatever the flood."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from sessiond.domain.event import Event, EventType
from sessiond.domain.signals import Reaction, Signal, SignalType
from sessiond.domain.values import Cause, CauseKind, ClientContext, Instant, Revision, SessionId
from sessiond.eventlog.security_log import NOT_LOGGED, SecurityLog
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.support.server import ServerProcess, stub_for

HIJACK = Event(
    revision=Revision(7),
    type=EventType.HIJACK_SUSPECTED,
    at=Instant(0),
    application="shop",
    subject="ada",
    session_id=SessionId(bytes(range(16))),
    cause=Cause(CauseKind.SIGNAL),
    client=ClientContext(ip_address="192.0.2.7", user_agent="u" * 400),
    signals=(Signal(SignalType.USER_AGENT_CHANGE, "Firefox", "x" * 1000),),
    reaction=Reaction.STEP_UP,
)


class Timer:
    """What a loop's `call_later` is asked for, to be done when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, Callable[[], None]]] = []

    def __call__(self, seconds: float, call: Callable[[], None]) -> None:
        self.asked.append((seconds, call))

    def pass_by(self) -> None:
        """Let the time pass that was asked for."""
        ((_, call),) = self.asked
        self.asked.clear()
        call()


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    """What is logged."""
    with capture_logs() as lines:
        yield lines


def test_every_type_of_event_is_decided_about(lines: list[Any]) -> None:
    """Each type has a line or a reason to have none."""
    SecurityLog(Timer()).apply([replace(HIJACK, type=kind) for kind in EventType])
    assert {line["event"].replace(" ", "_") for line in lines} == set(EventType) - NOT_LOGGED
    assert {line["log_level"] for line in lines} == {"info", "warning"}


def test_a_line_says_what_was_noticed(lines: list[Any]) -> None:
    """Application, subject, session, address, signals, reaction and revision; long texts are cut."""
    SecurityLog(Timer()).apply([HIJACK])
    assert lines == [
        {
            "event": "hijack suspected",
            "log_level": "warning",
            "application": "shop",
            "subject": "ada",
            "session_id": "00010203-0405-0607-0809-0a0b0c0d0e0f",
            "ip_address": "192.0.2.7",
            "signals": [{"type": "user_agent_change", "expected": "Firefox", "seen": "x" * 256}],
            "reaction": "step-up",
            "actor": "authority",
            "revision": 7,
        }
    ]


@pytest.mark.parametrize("kind", [kind for kind in CauseKind if kind is not CauseKind.SIGNAL])
def test_an_ordinary_revocation_is_no_security_event(lines: list[Any], kind: CauseKind) -> None:
    """A session that somebody ended, or whose time was over, has no line."""
    SecurityLog(Timer()).apply([replace(HIJACK, type=EventType.SESSION_REVOKED, cause=Cause(kind))])
    assert lines == []


def test_a_flood_is_counted_and_not_written(lines: list[Any]) -> None:
    """Above the bound events of a type are counted, other types keep their lines, and a new window has new ones."""
    timer = Timer()
    log = SecurityLog(timer, max_lines=3)
    lock = replace(HIJACK, type=EventType.SOURCE_LOCKED)
    for _ in range(1000):
        log.apply([HIJACK])
    log.apply([lock])
    assert [line["event"] for line in lines] == ["hijack suspected"] * 3 + ["source locked"]
    assert [seconds for seconds, _ in timer.asked] == [60.0]
    timer.pass_by()
    assert lines[4:] == [
        {"event": "hijack suspected: more", "log_level": "warning", "not_logged": 997, "seconds": 60.0}
    ]
    assert timer.asked == []
    log.apply([HIJACK])
    timer.pass_by()
    assert [line["event"] for line in lines[5:]] == ["hijack suspected"]


WITHOUT_STANDARD_ERROR = """
import os, sys
from sessiond.eventlog.security_log import SecurityLog
from sessiond.system.logs import set_up_logs
from tests.eventlog.test_security_log import HIJACK, Timer
set_up_logs("json", "info")
SecurityLog(Timer()).apply([HIJACK, HIJACK])
try:
    os.write(sys.stderr.fileno(), b"x")
except BrokenPipeError:
    print("applied, and standard error is gone")
"""


def test_a_log_that_is_gone_stops_nothing() -> None:
    """If standard error cannot be written, the events are applied all the same."""
    # In a process of its own: a module keeps the log that it wrote to first.
    reader, writer = os.pipe()
    os.close(reader)
    try:
        command = [sys.executable, "-c", WITHOUT_STANDARD_ERROR]
        run = subprocess.run(command, stdout=subprocess.PIPE, stderr=writer, timeout=60, check=True)
    finally:
        os.close(writer)
    assert run.stdout == b"applied, and standard error is gone\n"


CONFIG = """
[applications.shop]
reactions = { token_replay = "revoke-session" }
guessing = { alarm_after = 2, lock_after = 4, lock_time = "1h" }
max_sessions = 1
on_limit = "reject"
"""


async def test_an_attack_is_in_the_log(tmp_path: Path) -> None:
    """Theft, guessing, a lock and the unlocking are each one line of a server's log, without any token."""
    file = tmp_path / "sessiond.toml"
    file.write_text(CONFIG, encoding="utf-8")
    server = ServerProcess(tmp_path, "--config", str(file))
    forged = [urlsafe_b64encode(os.urandom(52)).rstrip(b"=").decode() for _ in range(6)]
    try:
        async with stub_for(await server.address()) as stub:
            here = pb.ClientContext(ip_address="192.0.2.7", user_agent="Mozilla/5.0 Firefox/140.0")
            thief = pb.ClientContext(ip_address="198.51.100.9", user_agent="curl/8.0")
            login = pb.CreateSessionRequest(application="shop", subject="ada", client=here)
            tokens = [(await stub.CreateSession(login)).token]
            assert not (await stub.CreateSession(login)).token  # one session is the most
            for _ in range(2):
                roll = pb.RollSessionRequest(application="shop", token=tokens[-1], client=here)
                tokens.append((await stub.RollSession(roll)).token)
                use = pb.ValidateSessionRequest(application="shop", token=tokens[-1], client=here)
                assert (await stub.ValidateSession(use)).verdict == pb.VERDICT_VALID
            replay = pb.ValidateSessionRequest(application="shop", token=tokens[0], client=thief)
            assert (await stub.ValidateSession(replay)).verdict == pb.VERDICT_REPLAYED
            for token in forged:
                await stub.ValidateSession(pb.ValidateSessionRequest(application="shop", token=token, client=thief))
            unlock = pb.ClearSourceLockRequest(application="shop", source="198.51.100.9/32", reason="a test")
            async with asyncio.timeout(20):
                while "source locked" not in server.log():
                    assert server.process.poll() is None
                    await asyncio.sleep(0.02)
            await stub.ClearSourceLock(unlock)
        assert await server.terminate() == 0
    finally:
        server.kill()
    log = server.log()
    lines = [json.loads(line) for line in log.splitlines()]
    told = [
        line["event"]
        for line in lines
        if line["event"] not in ("serving", "stopped", "open to everyone who can connect", "audit")
    ]
    assert sorted(told) == sorted(
        [
            "concurrency limit reached",
            "hijack suspected",
            "session revoked",
            "guessing suspected",
            "source locked",
            "source unlocked",
        ]
    )
    (hijack,) = [line for line in lines if line["event"] == "hijack suspected"]
    assert (hijack["application"], hijack["subject"]) == ("shop", "ada")
    assert (hijack["level"], hijack["reaction"]) == ("warning", "revoke-session")
    assert [line["session_id"] for line in lines if line["event"] == "session revoked"] == [hijack["session_id"]]
    assert "token_replay" in [signal["type"] for signal in hijack["signals"]]
    (lock,) = [line for line in lines if line["event"] == "source locked"]
    assert (lock["source"], lock["level"]) == ("198.51.100.9/32", "warning")
    assert [token for token in (*tokens, *forged) if token in log] == []
