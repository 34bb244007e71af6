"""Fixtures of the command line's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from sessiond.app import App
from sessiond_client import AsyncClient
from tests.sessionctl.operator import Operator


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The user who runs the tests has no contexts and no variables for a server."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    for variable in ("TARGET", "APPLICATION", "CONTEXT", "TLS", "TLS_CA", "TLS_CLIENT_CERTIFICATE", "TLS_CLIENT_KEY"):
        monkeypatch.delenv(f"SESSIOND_{variable}", raising=False)


@pytest.fixture
async def operator(app: App) -> AsyncIterator[Operator]:
    """An operator of `app`; whatever the test does, no token may have been shown that was not asked for.

    CliRunner takes standard output over for the whole process; the authority's log must not get into it.
    """
    with capture_logs():
        async with AsyncClient(app.address, application="shop") as client:
            operator = Operator(app.address, client)
            yield operator
    assert not [token for token in operator.tokens if token in operator.shown]
