"""`sessionctl verify-caches`: what it measures of a real authority, and that it reports a cache without protection."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sessiond.app import App
from sessiond.system.clock import SystemClock
from sessiond_client import AsyncClient, SessionState
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.clients.front import Front
from tests.sessionctl.operator import Operator


class Stale(Front):
    """A cache without protection: it repeats a yes for so many seconds, whatever has happened."""

    def __init__(self, target: str, seconds: float) -> None:
        super().__init__(target)
        self._seconds = seconds
        self._kept: dict[bytes, tuple[float, bytes]] = {}

    def _unary(self, path: str) -> Any:
        asking = super()._unary(path)

        async def passing(request: bytes, context: Any) -> bytes:
            now = time.monotonic()
            if path.endswith("/ValidateSession"):
                until, kept = self._kept.get(request, (0.0, b""))
                if now < until:
                    return kept
            answer: bytes = await asking(request, context)
            is_yes = path.endswith("/ValidateSession") and (
                pb.ValidateSessionResponse.FromString(answer).verdict == pb.VERDICT_VALID
            )
            if is_yes and not pb.ValidateSessionRequest.FromString(request).at_least:
                self._kept[request] = (now + self._seconds, answer)
            return answer

        return passing


@asynccontextmanager
async def stale(app: App, seconds: float) -> AsyncIterator[str]:
    async with Stale(app.address, seconds).running() as address:
        yield address


async def test_an_authority_keeps_to_its_bounds(operator: Operator, app: App) -> None:
    """The authority itself, and a server that passes its answers on, say no at once, and the sessions are gone."""
    async with Front(app.address).running() as front:
        result = await operator.anywhere("verify-caches", "--cache", app.address, "--cache", front)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0].split() == ["CACHE", "REVOCATION", "ACCEPTED", "FOR", "BOUND", "ASKED", "RESULT"]
    assert [line.split()[:2] for line in lines[1:]] == [
        [address, kind] for kind in ("plain", "awaited") for address in (app.address, front)
    ]
    assert all(line.endswith("ok") for line in lines[1:])
    async with AsyncClient(app.address) as client:
        assert [one async for one in client.list()] == []
        found = [one async for one in client.list(state=SessionState.REVOKED)]
        assert {(one.subject, one.ending.cause.reason) for one in found if one.ending} == {
            ("", "sessionctl verify-caches")
        }
        assert len(found) == 2


async def test_the_target_is_the_default_cache(operator: Operator) -> None:
    """Without --cache the target itself is asked; as JSON each measurement is an object."""
    result = await operator.anywhere("verify-caches", "-o", "json")
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 0
    assert [(one["cache"], one["revocation"], one["bound"]) for one in found] == [
        (operator.target, "plain", 5.0),
        (operator.target, "awaited", 0.0),
    ]
    assert all(one["is_within"] is True and one["still_yes"] is False and one["asked"] >= 1 for one in found)


async def test_a_cache_without_protection_is_reported(operator: Operator, app: App) -> None:
    """A cache that repeats its yes for two seconds is within a bound of five, and past one of 0; the exit code is 5."""
    async with stale(app, 2.0) as cache:
        result = await operator.anywhere("verify-caches", "--cache", app.address, "--cache", cache, "-o", "json")
    found = {(one["cache"], one["revocation"]): one for one in map(json.loads, result.stdout.splitlines())}
    assert result.exit_code == 5
    assert result.stderr == (f"Error: a cache accepted a revoked session for longer than its bound: {cache}\n")
    assert {key: one["is_within"] for key, one in found.items()} == {
        (app.address, "plain"): True,
        (cache, "plain"): True,
        (app.address, "awaited"): True,
        (cache, "awaited"): False,
    }
    for kind in ("plain", "awaited"):
        assert 1.0 < found[cache, kind]["yes_for"] <= 2.0


async def test_a_cache_that_never_stops_is_reported(
    operator: Operator, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache that goes on past the bound is not waited for without end."""
    monkeypatch.setattr("sessionctl.caches._PATIENCE", 0.5)
    async with stale(app, 3_600) as cache:
        result = await operator.anywhere("verify-caches", "--cache", cache, "--bound", "0.5")
    assert result.exit_code == 5
    rows = [line.split() for line in result.stdout.splitlines()[1:]]
    assert all("over" in row and row[-3:] == ["past", "the", "bound"] for row in rows)


async def test_a_cache_of_another_authority(operator: Operator, app: App, tmp_path: Any) -> None:
    """An address that denies the new session is no cache of this authority, which the error says."""
    from tests.support.server import config_for, serving

    async with serving(config_for(tmp_path / "other"), SystemClock()) as other:
        result = await operator.anywhere("verify-caches", "--cache", other.address)
    assert result.exit_code == 1
    assert "answers FORGED for a new session; name only caches of the authority at --target" in result.stderr
    assert result.stdout == ""


async def test_a_cache_that_cannot_be_reached(operator: Operator) -> None:
    """An address where nobody listens is exit code 4, and the probe's session does not stay."""
    result = await operator.anywhere("verify-caches", "--cache", "127.0.0.1:1")
    assert result.exit_code == 4
    async with AsyncClient(operator.target) as client:
        assert [one async for one in client.list()] == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--cache", "nowhere"), "--cache: 'nowhere' has no port"),
        (("--bound", "-1"), "must be a number of seconds, 0 or more, not '-1'"),
        (("--awaited-bound", "soon"), "must be a number of seconds, 0 or more, not 'soon'"),
    ],
)
async def test_wrong_usage(operator: Operator, arguments: tuple[str, str], text: str) -> None:
    """A wrong address or bound is wrong usage, before anything is asked."""
    result = await operator.anywhere("verify-caches", *arguments)
    assert result.exit_code == 2
    assert text in result.stderr
    async with AsyncClient(operator.target) as client:
        assert [one async for one in client.list(state=SessionState.ACTIVE)] == []
