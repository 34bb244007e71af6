"""Use a session with both clients, in the environment of `floors.py`. The argument is the server's address."""

from __future__ import annotations

import asyncio
import sys
from importlib.metadata import version

import sessiond_client
from sessiond_client import AsyncClient, Client


async def alive(target: str, token: sessiond_client.Token) -> bool:
    """Return whether the asynchronous client finds the session valid and receives its event."""
    async with AsyncClient(target) as client, client.events(start="earliest") as events:
        first = await anext(events)
        return (await client.validate(token)).valid and first.subject == "ada"


def main(target: str) -> int:
    """Open, validate and end a session. Return exit code 1 if a step does not work."""
    with Client(target) as client:
        created = client.create(subject="ada", data={"k": b"v"})
        works = asyncio.run(alive(target, created.token)) and client.revoke(token=created.token).revoked
    versions = ", ".join(f"{name} {version(name)}" for name in ("grpcio", "protobuf", "grpcio-status"))
    print(f"sessiond-client {sessiond_client.__version__} with {versions}: {'works' if works else 'does not work'}")
    return 0 if works else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
