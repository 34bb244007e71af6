"""The figure `latency`: its paths ask what they say and check the answers; its servers, medians and table."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench import latency
from bench.latency import PATHS, LatencyPath, Place, Sessions, latency_table
from bench.load import LoadFailed
from bench.open_loop import Load, offer
from bench.processes import Server
from sessiond.app import App
from sessiond_client import AsyncClient, ClientContext, Token
from tests.support.programs import start_program

BY_NAME = {path.name: path for path in PATHS}
OF_AUTHORITY = ("unary", "native", "sidecar", "coalesced", "near_cache")


class FewSessions(Sessions):
    """Three sessions instead of hundreds."""

    async def at(self, address: str) -> list[tuple[Token, str, ClientContext]]:
        if address not in self._opened:
            async with AsyncClient(address) as client:
                self._opened[address] = [await latency._open(client, number) for number in range(3)]
        return self._opened[address]


@pytest.mark.parametrize("name", OF_AUTHORITY)
async def test_each_path_of_an_authority_can_be_offered(app: App, name: str) -> None:
    """Each path to an authority connects, and answers an open-loop load."""
    async with BY_NAME[name].connect(app.address, FewSessions()) as ask:
        measured = await offer(ask, Load(200, 0.2, grace=20))
    assert len(measured.latencies) == 40
    assert measured.unanswered == 0


@pytest.mark.parametrize("name", OF_AUTHORITY)
async def test_a_wrong_answer_ends_the_measurement(app: App, name: str) -> None:
    """An answer for another session is an error, and not a fast answer."""
    sessions = FewSessions()
    first, second, third = await sessions.at(app.address)
    sessions._opened[app.address] = [first, (second[0], third[1], second[2]), third]
    async with BY_NAME[name].connect(app.address, sessions) as ask:
        await ask(0)
        with pytest.raises(LoadFailed, match="wrong answer"):
            await asyncio.gather(ask(1), ask(2))


async def test_the_near_cache_reads_data(app: App) -> None:
    """A session without data is an error for the path that includes data, and none for the others."""
    sessions = FewSessions()
    token, session_id, context = (await sessions.at(app.address))[0]
    async with AsyncClient(app.address) as client:
        await client.update_data(token=token, delete=["cart"])
    sessions._opened[app.address] = [(token, session_id, context)]
    async with BY_NAME["unary"].connect(app.address, sessions) as ask:
        await ask(0)
    with pytest.raises(LoadFailed, match="returned no data"):
        async with BY_NAME["near_cache"].connect(app.address, sessions) as ask:
            await ask(0)


def test_a_server_is_started_once_and_stopped_at_the_end(tmp_path: Path) -> None:
    """Paths that name the same server share it, one server may ask for another, and all of them end together."""
    life: list[str] = []

    @contextmanager
    def authority(place: Place) -> Iterator[Server]:
        life.append("authority starts")
        yield Server("authority", 0, "127.0.0.1:1")
        life.append("authority ends")

    @contextmanager
    def sidecar(place: Place) -> Iterator[Server]:
        upstream = place.server(authority)
        life.append(f"sidecar of {upstream.address} starts")
        yield Server("sidecar", 0, "127.0.0.1:2")
        life.append("sidecar ends")

    with Place(tmp_path / "place", "asyncio") as place:
        assert place.server(sidecar).address == "127.0.0.1:2"
        assert place.server(authority) is place.server(authority)
    assert life == ["authority starts", "sidecar of 127.0.0.1:1 starts", "sidecar ends", "authority ends"]


def runs_of(*, saturated: tuple[bool, bool, bool]) -> list[dict[str, Any]]:
    """Three rounds of every path at 200 questions a second, at 1, 2 and 30 ms."""
    return [
        {
            "round": number,
            "path": path.name,
            "per_second": 200,
            "saturated": saturated[number],
            "p50_us": 1_000.0 * (1, 2, 30)[number],
            "p99_us": 3_000.0 * (1, 2, 30)[number],
            "p99_9_us": 5_000.0 * (1, 2, 30)[number],
            "late_p99_us": 50.0,
            "answered_per_second": 199.0,
        }
        for number in range(3)
        for path in PATHS
    ]


def test_the_table_has_medians_of_the_rounds() -> None:
    """The percentiles of a path are the medians of its rounds, in milliseconds, and one bad round changes nothing."""
    found = latency._medians(Load(200, 1.0), runs_of(saturated=(False, False, True)))
    text = io.StringIO()
    Console(file=text, width=100).print(latency_table([found]))
    for path in PATHS:
        line = next(line for line in text.getvalue().splitlines() if path.title in line)
        assert line.split()[-3:] == ["2.00", "6.00", "10.00"]
    assert "200/s" in text.getvalue()


def test_a_path_is_saturated_if_most_rounds_are() -> None:
    """One saturated round of three may be an accident of the machine; two are reported."""
    once = latency._medians(Load(200, 1.0), runs_of(saturated=(True, False, False)))["paths"]
    twice = latency._medians(Load(200, 1.0), runs_of(saturated=(True, False, True)))["paths"]
    assert not any(path["saturated"] for path in once.values())
    assert all(path["saturated"] for path in twice.values())
    text = io.StringIO()
    Console(file=text, width=100).print(latency_table([{"per_second": 200, "seconds": 1.0, "paths": twice}]))
    assert text.getvalue().count("saturated") == len(PATHS)


def test_each_path_has_a_name_and_a_title_of_its_own() -> None:
    """Names and titles identify a path in the report, the table and the plots."""
    assert len(BY_NAME) == len(PATHS)
    assert len({path.title for path in PATHS}) == len(PATHS)
    assert all(isinstance(path, LatencyPath) for path in PATHS)


@pytest.mark.parametrize("side", ["near_cache", "db", "page_sessiond", "page_db"])
async def test_a_side_of_the_django_figures_reads_sessions(app: App, tmp_path: Path, side: str) -> None:
    """Each side opens its sessions, checks what it reads, and reports a rate and its CPU time."""
    place = app.address if side in ("near_cache", "page_sessiond") else str(tmp_path)
    process = await start_program(
        *(sys.executable, "-m", "bench.django_sessions", "10", side, place),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    output, _ = await process.communicate(b"20\n30\n")
    assert process.returncode == 0
    ready, *lines = output.decode().splitlines()
    assert ready == "ready"
    assert len(lines) == 2
    for line in lines:
        run = json.loads(line)
        assert run["per_second"] > 0
        assert run["client_cpu_us"] > 0
