"""Room for the connections of the attackers."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

_FILES = 8_192


@pytest.fixture(scope="session", autouse=True)
def many_files() -> Iterator[None]:
    """Raise the limit on open files for this process and the servers that it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
