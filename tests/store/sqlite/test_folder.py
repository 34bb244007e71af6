"""The folder of the database: created with all its parents, for its owner only."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from sessiond.store.sqlite.store import SqliteStore
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import create, validate
from tests.support.clock import ManualClock
from tests.support.server import config_for, serving, stub_for


@pytest.mark.parametrize("folders", ["data", "var/data", "var/lib/data"])
async def test_a_data_folder_is_made(tmp_path: Path, folders: str) -> None:
    """A missing data folder is created with every missing parent, and other users cannot read it."""
    path = tmp_path / folders / "sessiond.db"
    await (await SqliteStore.open(path)).close()
    assert path.exists()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o700, 0o750])
async def test_a_data_folder_that_is_there(tmp_path: Path, mode: int) -> None:
    """An existing data folder is not changed."""
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(mode)
    await (await SqliteStore.open(folder / "sessiond.db")).close()
    assert stat.S_IMODE(folder.stat().st_mode) == mode


async def test_a_server_with_its_data_far_below(tmp_path: Path, clock: ManualClock) -> None:
    """A first start with a data folder several missing levels deep serves, and so does the next start."""
    config = config_for(tmp_path / "var" / "lib")
    async with serving(config, clock) as app, stub_for(app.address) as stub:
        mine = await create(stub)
    assert config.data == tmp_path / "var" / "lib" / "data"
    assert {"sessiond.db", "sessiond.key"} <= {file.name for file in config.data.iterdir()}
    async with serving(config, clock) as app, stub_for(app.address) as stub:
        assert (await validate(stub, mine.token)).verdict == pb.VERDICT_VALID
