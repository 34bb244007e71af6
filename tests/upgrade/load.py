"""A client under load, as a process of its own, of the version before or of this one.

It uses only what both versions have. It works until SIGTERM, writes what it holds into a file, and goes on from that
file when it is started again, as an application does that is upgraded.

    python load.py TARGET STATE_FILE PATIENCE

PATIENCE is for how many seconds the application itself repeats a call while nobody can be reached: the client does so
for a moment only. 0: it leaves that to the client.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from sessiond_client import AsyncClient, DeadlineExceeded, SessiondError, Unavailable, Verdict

USERS = 6


class Load:
    """What the clients hold, and what has gone wrong for them."""

    def __init__(self, file: Path, patience: float) -> None:
        self._file = file
        self._patience = patience
        kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        self.tokens: dict[str, str] = kept.get("tokens", {})
        self.calls: int = kept.get("calls", 0)
        self.renewed: int = kept.get("renewed", 0)
        self.failures: list[str] = kept.get("failures", [])
        self.logouts: list[str] = kept.get("logouts", [])
        self.stopping = asyncio.Event()

    def keep(self) -> None:
        """Write everything into the file."""
        names = ("tokens", "calls", "renewed", "failures", "logouts")
        self._file.write_text(json.dumps({name: getattr(self, name) for name in names}), encoding="utf-8")

    async def use(self, client: AsyncClient, user: str, dice: random.Random) -> None:
        """Use the session of one user until the end."""
        while not self.stopping.is_set():
            try:
                await self._step(client, user, dice)
            except SessiondError as error:
                self.failures.append(f"{type(error).__name__} {error.status}: {error.message}"[:300])
            await asyncio.sleep(0.01)

    async def _call(self, make: Callable[..., Awaitable[Any]], *arguments: Any, **more: Any) -> Any:
        """Make a call, and repeat it while nobody can be reached. A change has the same id each time."""
        end = time.monotonic() + self._patience
        while True:
            try:
                return await make(*arguments, **more)
            except (DeadlineExceeded, Unavailable) as error:
                if time.monotonic() > end:
                    raise
                if error.request_id is not None:
                    more["request_id"] = error.request_id
            await asyncio.sleep(0.1)

    async def _step(self, client: AsyncClient, user: str, dice: random.Random) -> None:
        self.calls += 1
        token = self.tokens.get(user)
        if token is None:
            self.tokens[user] = (await self._call(client.create, subject=user, data={"count": b"0"})).token.reveal()
            return
        found: Any = await self._call(client.validate, token, data=True)
        if found.verdict is not Verdict.VALID:
            self.logouts.append(f"{user}: {found.verdict}")
            del self.tokens[user]
            return
        if found.renewed_token is not None:
            self.renewed += 1
            self.tokens[user] = found.renewed_token.reveal()
            return
        match dice.randrange(6):
            case 0:
                await self._call(client.update_data, token=token, set={"count": str(self.calls).encode()})
            case 1:
                answer: Any = await self._call(client.authenticate, token, user)
                self.tokens[user] = answer.token.reveal()
            case 2:
                other = await self._call(client.create, subject=f"{user} elsewhere")
                await self._call(client.revoke, token=other.token, wait_for_caches=True)
                if (verdict := (await self._call(client.validate, other.token)).verdict) is not Verdict.REVOKED:
                    self.failures.append(f"a revoked session is {verdict}")
            case _:
                pass


async def main(target: str, file: Path, patience: float) -> None:
    """Work until SIGTERM."""
    load = Load(file, patience)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, load.stopping.set)
    file.with_suffix(".works").touch()  # from now on it can be stopped
    async with AsyncClient(target, timeout=30.0, retries=10) as client, asyncio.TaskGroup() as group:
        for number in range(USERS):
            dice = random.Random(f"{file.name} {number} {load.calls}")
            group.create_task(load.use(client, f"{file.stem} user {number}", dice))
    load.keep()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])))
