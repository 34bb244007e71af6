"""Clients for each process and event loop."""

from __future__ import annotations

import asyncio

import pytest

from sessiond.app import App
from sessiond_client import AsyncClient, ClientClosed
from sessiond_client.contrib.clients import ClientPerLoop, split_options


@pytest.mark.parametrize("near_cache", [True, False])
async def test_clients_of_closed_loops(app: App, near_cache: bool) -> None:
    """The client of a closed loop is closed when another loop needs one: test clients use a loop for each request."""
    clients, used = ClientPerLoop(app.address, {"near_cache": near_cache}), list[AsyncClient]()

    async def use() -> None:
        assert clients.get() is clients.get()
        used.append(clients.get())
        await used[-1].validate("x")

    def run() -> None:
        for _ in range(5):
            asyncio.run(use())

    await asyncio.to_thread(run)
    assert len(set(map(id, used))) == 5
    assert [client._channels.is_closed for client in used] == [True] * 4 + [False]
    await used[-1].close()
    with pytest.raises(ClientClosed):
        await used[0].authority()


def test_an_unknown_option_is_named() -> None:
    """An option that does not exist is refused with the one that was meant, or with those that exist."""
    with pytest.raises(TypeError, match=r"^unknown option 'loginpath'; did you mean 'login_path'\?$"):
        split_options({"loginpath": "/login"})
    with pytest.raises(TypeError, match=r"^unknown option 'zzz'; the options are .*login_path.*, timeout, tls"):
        split_options({"zzz": 1})
