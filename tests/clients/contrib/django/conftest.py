"""Fixtures of the adapter's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from sessiond.app import App
from tests.clients.contrib.django.site import KINDS, Browser, Site, visiting


@pytest.fixture(params=KINDS, ids=lambda kind: str(kind.__name__))
def kind(request: pytest.FixtureRequest) -> type[Site]:
    """Each kind of server and views in turn."""
    found: type[Site] = request.param
    return found


@pytest.fixture
async def browser(kind: type[Site], app: App) -> AsyncIterator[Browser]:
    """A browser that visits the shop behind each kind of server in turn, without a near cache."""
    async with visiting(kind, app.address) as found:
        yield found


@pytest.fixture(autouse=True)
def reset_hooks() -> Iterator[None]:
    """Each test begins and ends with views that do nothing special."""
    from tests.clients.contrib.django.shop import hooks

    yield
    hooks.before_login = lambda: None
    hooks.in_view = lambda request: None
    hooks.in_stream = lambda: None
