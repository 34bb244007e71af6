"""Unix sockets: private, never taken from a running server, and with clear messages about obstacles."""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from sessiond.app import App
from sessiond.config import Config
from sessiond.rpc.sockets import CannotListen
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.support.server import config_for, serving, stub_for


def config_at(folder: Path, path: Path) -> Config:
    """Return a configuration that listens on that path."""
    return replace(config_for(folder), listen=f"unix:{path}")


async def refusal(folder: Path, path: Path) -> str:
    """Return the message with which a server refuses to listen there."""
    with pytest.raises(CannotListen) as refused:
        await App.start(config_at(folder, path))
    return str(refused.value)


@pytest.mark.parametrize("umask", [0o000, 0o022])
async def test_a_socket_is_private(tmp_path: Path, umask: int) -> None:
    """A socket is accessible to its user only, whatever the umask, and the umask of the process does not change."""
    before = os.umask(umask)
    try:
        async with serving(config_at(tmp_path, tmp_path / "s")) as app, stub_for(app.address) as stub:
            assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
            assert (await stub.CreateSession(pb.CreateSessionRequest())).token
            assert os.umask(umask) == umask
    finally:
        os.umask(before)


async def test_a_socket_may_be_open_to_its_group(tmp_path: Path) -> None:
    """With `socket_mode = "0660"` the socket's group may connect too."""
    config = replace(config_at(tmp_path, tmp_path / "s"), socket_mode=0o660)
    async with serving(config) as app, stub_for(app.address) as stub:
        assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o660
        assert (await stub.CreateSession(pb.CreateSessionRequest())).token


async def test_a_live_socket_is_not_taken(tmp_path: Path) -> None:
    """A second server is refused on a socket in use, and the first one keeps working."""
    path = tmp_path / "s"
    async with serving(config_at(tmp_path / "one", path)) as app, stub_for(app.address) as stub:
        assert "another server is listening" in await refusal(tmp_path / "two", path)
        assert (await stub.CreateSession(pb.CreateSessionRequest())).token


async def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    """A socket left behind by a killed server is replaced."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(str(path))
    async with serving(config_at(tmp_path, path)) as app, stub_for(app.address) as stub:
        assert (await stub.CreateSession(pb.CreateSessionRequest())).token


async def test_a_busy_servers_socket_is_not_taken(tmp_path: Path) -> None:
    """A server that accepts no connections at the moment, because too many wait, still has its socket."""
    path = tmp_path / "s"
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        listener.bind(str(path))
        listener.listen(0)
        full = False
        while not full:
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            waiting.setblocking(False)
            full = waiting.connect_ex(str(path)) == errno.EAGAIN
        assert "another server is listening" in await refusal(tmp_path, path)
        assert path.is_socket()


async def test_something_else_is_left_alone(tmp_path: Path) -> None:
    """A file with the socket's name is refused and not changed."""
    path = tmp_path / "s"
    path.write_text("precious")
    assert "a file that is not a socket" in await refusal(tmp_path, path)
    assert path.read_text() == "precious"


async def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """A socket in a folder that does not exist is refused, and the folder is named."""
    assert f"the folder {tmp_path / 'run'} does not exist; create it" in await refusal(tmp_path, tmp_path / "run" / "s")
