"""What the log says if the authority cannot be reached: integrations answer 503, and nothing else says why."""

from __future__ import annotations

import asyncio
import logging

import pytest

from sessiond_client import AsyncClient, Client, NotFound, SessiondError, Unavailable
from sessiond_client.gateway import Ask, Steps, run, run_async
from sessiond_client.gateway import steps as steps_module
from sessiond_client.gateway.outages import OutageLog

NOBODY = "127.0.0.1:1"
WARNING = ("sessiond_client", logging.WARNING, f"no answer from sessiond at {NOBODY}: connection refused")


def asking() -> Steps[bool]:
    """Steps that survive an outage, as those of the integrations do. They return whether there was one."""
    try:
        yield Ask("authority")
    except SessiondError:
        return True
    return False


@pytest.fixture
def time_is(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of the log, in seconds."""
    now = [0.0]
    monkeypatch.setattr(steps_module, "outage_log", OutageLog(lambda: now[0]))
    return now


def test_one_warning_a_minute(time_is: list[float], caplog: pytest.LogCaptureFixture) -> None:
    """An outage is one warning a minute, however many requests fail."""
    with Client(NOBODY, retries=0) as client:
        assert run(client, asking())
        time_is[0] = 59.0
        assert run(client, asking())
        assert caplog.record_tuples == [WARNING]
        time_is[0] = 60.0
        assert run(client, asking())
    assert caplog.record_tuples == [WARNING] * 2


async def test_the_asynchronous_client(time_is: list[float], caplog: pytest.LogCaptureFixture) -> None:
    """Requests that fail at the same time are one warning too."""
    async with AsyncClient(NOBODY, retries=0) as client:
        assert all(await asyncio.gather(*(run_async(client, asking()) for _ in range(5))))
    assert caplog.record_tuples == [WARNING]


def test_each_authority_has_its_own(caplog: pytest.LogCaptureFixture) -> None:
    """A second authority is reported too; an error that is no outage is not reported."""
    log = OutageLog(lambda: 0.0)
    log.note("a:1", NotFound("session_id: no such session", status="NOT_FOUND"))
    assert not caplog.records
    for target in ("a:1", "b:1", "a:1"):
        log.note(target, Unavailable("the authority stops", status="UNAVAILABLE"))
    assert [record.message for record in caplog.records] == [
        "no answer from sessiond at a:1: the authority stops",
        "no answer from sessiond at b:1: the authority stops",
    ]
