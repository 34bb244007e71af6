"""A browser and a running shop, once for all tests of a module."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.support.browser import PROGRAM, WHY_NOT, chromium
from tests.support.shop import FORMS, Shop, open_shop, why_not

_IMPATIENT = """
idle_timeout = "63s"
renewal_timeout = "4s"
renewal_overlap = "3s"
"""


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def browser() -> AsyncIterator[Browser]:
    """Chromium."""
    if not PROGRAM:
        pytest.skip(WHY_NOT)
    async with chromium() as browser:
        yield browser


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def keeping_browser() -> AsyncIterator[Browser]:
    """Chromium, which keeps pages for the back button, as it does for users."""
    if not PROGRAM:
        pytest.skip(WHY_NOT)
    async with chromium(keeps_pages=True) as browser:
        yield browser


@pytest_asyncio.fixture(scope="package", loop_scope="package", params=FORMS)
async def shop(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, browser: Browser
) -> AsyncIterator[Shop]:
    """The shop, in both forms."""
    async with _opened(request, tmp_path_factory, browser) as shop:
        yield shop


@pytest_asyncio.fixture(scope="package", loop_scope="package", params=FORMS)
async def impatient_shop(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, browser: Browser
) -> AsyncIterator[Shop]:
    """The same with a policy under which a token is renewed after four seconds, and users are soon idle."""
    async with _opened(request, tmp_path_factory, browser, _IMPATIENT) as shop:
        yield shop


@asynccontextmanager
async def _opened(
    request: pytest.FixtureRequest, folders: pytest.TempPathFactory, browser: Browser, config: str = ""
) -> AsyncIterator[Shop]:
    if reason := why_not(request.param):
        pytest.skip(reason)
    async with open_shop(request.param, folders.mktemp("shop"), browser, config) as shop:
        yield shop
