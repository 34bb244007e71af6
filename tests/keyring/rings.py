"""What the tests of the key ring share: looking at rings and key files, and waiting for what must happen."""

from __future__ import annotations

from pathlib import Path

from sessiond.app import App
from sessiond.crypto.tokens import fingerprint_of
from sessiond_client import AsyncClient, SealingKeyState
from tests.support.sidecars import until

__all__ = ["key_file", "keys_in", "prints_in", "rotate", "states", "until_removed"]


def key_file(app: App) -> Path:
    """The key file of a server."""
    return app._config.data / "sessiond.key"


def keys_in(file: Path) -> list[bytes]:
    """The keys in a file."""
    return [bytes.fromhex(line) for line in file.read_text(encoding="ascii").split()]


def prints_in(file: Path) -> list[str]:
    """The fingerprints of the keys in a file."""
    return [fingerprint_of(key).hex() for key in keys_in(file)]


async def states(client: AsyncClient) -> list[SealingKeyState]:
    """The states of the keys, the sealing key's first."""
    return [key.state for key in (await client.key_ring()).keys]


async def rotate(client: AsyncClient) -> str:
    """Add a key and promote it. Return the fingerprint of the key before."""
    before = (await client.key_ring()).keys[0].fingerprint
    added = await client.add_sealing_key()
    await client.promote_sealing_key(added.key.fingerprint)
    return before


async def until_removed(client: AsyncClient, fingerprint: str) -> None:
    """Wait until a key that is being retired is gone."""

    async def is_removed() -> bool:
        return fingerprint not in [key.fingerprint for key in (await client.key_ring()).keys]

    await until(is_removed)
