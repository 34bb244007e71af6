"""Fixtures of the tests of Flask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask

from sessiond.app import App
from tests.clients.contrib.flask.site import Browser, Calls, running


@pytest.fixture
def calls() -> Calls:
    """The calls that the site makes to the authority."""
    return Calls()


@pytest.fixture
def site(app: App, calls: Calls) -> Iterator[Flask]:
    """The site, without a near cache."""
    with running(app.address, interceptors=[calls]) as site:
        yield site


@pytest.fixture
def browser(site: Flask) -> Browser:
    """A browser that visits the site."""
    return Browser(site)
