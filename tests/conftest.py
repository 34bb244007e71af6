"""Fixtures that every test may use: a real authority, in this process, with a clock that the test sets."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import hypothesis
import pytest
import structlog
import uvloop

from sessiond.app import App
from sessiond.config.sections import TRANSPORTS
from tests.support.clock import ManualClock
from tests.support.native import NOT_ON_NATIVE
from tests.support.postgres import new_database, running_postgres
from tests.support.server import AsyncStub, config_for, serving, stub_for


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--transport`: what carries the calls to the servers that the tests start."""
    parser.addoption("--transport", choices=TRANSPORTS, default=TRANSPORTS[0], help="the transport of the servers")


def pytest_configure(config: pytest.Config) -> None:
    """Set the transport for the servers in this process and for those that run in processes of their own."""
    # How long an example takes says something about the machine only.
    hypothesis.settings.register_profile("untimed", deadline=None)
    hypothesis.settings.load_profile("untimed")
    os.environ.pop("SESSIOND_TRANSPORT", None)
    if (chosen := config.getoption("--transport")) != TRANSPORTS[0]:
        os.environ["SESSIOND_TRANSPORT"] = chosen


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what cannot pass on the chosen transport."""
    if config.getoption("--transport") == "native":
        for item in items:
            if (reason := NOT_ON_NATIVE.get(item.nodeid.partition("[")[0])) is not None:
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests run on the loop that `sessiond serve` runs on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """Let no test leave logs set up: each module that logs then would write to that test's standard error for ever."""
    yield
    assert not structlog.get_config()["cache_logger_on_first_use"]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def app(tmp_path: Path, clock: ManualClock) -> AsyncIterator[App]:
    """An authority with one application `default`, preset `owasp-low`."""
    async with serving(config_for(tmp_path), clock) as app:
        yield app


@pytest.fixture
async def stub(app: App) -> AsyncIterator[AsyncStub]:
    """The generated stub, connected to `app`."""
    async with stub_for(app.address) as stub:
        yield stub


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a running Postgres."""
    with running_postgres() as url:
        yield url


@pytest.fixture
async def database(postgres: str) -> str:
    """The URL of an empty database."""
    return await new_database(postgres)
