"""Fixtures of the suites that others wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.suites.fetching import NotFetched, installed_version, repository
from tests.suites.fetching import sources as fetched_sources


@pytest.fixture(scope="session")
def sources() -> Callable[[str], Path]:
    """The sources of an installed package, by its name. Skips the test with the reason if they cannot be had."""

    def find(name: str) -> Path:
        try:
            return fetched_sources(name, installed_version(name))
        except NotFetched as reason:
            pytest.skip(str(reason))

    return find


@pytest.fixture(scope="session")
def clones() -> Callable[[str, str, str], Path]:
    """The files of a repository, by name, address and commit. Skips the test with the reason if they cannot be had."""

    def find(name: str, address: str, commit: str) -> Path:
        try:
            return repository(name, address, commit)
        except NotFetched as reason:
            pytest.skip(str(reason))

    return find
