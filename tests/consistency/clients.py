"""Random clients: they open, use and end sessions on random replicas, and look where a mistake would show."""

from __future__ import annotations

import asyncio
from collections import deque
from random import Random

from tests.consistency.cluster import Cluster
from tests.consistency.recorder import Held, Recorder

__all__ = ["LIMITS", "POLICIES", "Clients"]

LIMITS = {"reject": 3, "evict": 3}
"""The most live sessions of a subject, by application."""
_POLICY = """
[applications.{name}]
max_sessions = {most}
on_limit = "{rule}"
renewal_timeout = "3s"
renewal_overlap = "3s"
roll_tolerance = "1h"
lost_answer_tolerance = "1h"
reactions.token_replay = "alert"
reactions.token_copy = "alert"
"""
# Tokens are renewed after a few seconds. An old token is no alarm, because no session may end without an operation.
POLICIES = "".join(
    _POLICY.format(name=name, most=most, rule=rule)
    for name, most, rule in (("default", 0, "reject"), ("reject", 3, "reject"), ("evict", 3, "evict-oldest"))
)
"""The policies of the applications."""
_SUBJECTS = 12
"""Few subjects in each application, so that they reach their limits."""
_MAX_HELD = 400
_MAX_ENDED = 150
_BUSY, _BUSY_SHARE = 6, 0.7


class Clients:
    """Clients that share what they know of sessions, as the processes of an application do."""

    def __init__(self, cluster: Cluster, recorder: Recorder, dice: Random) -> None:
        self._replicas = len(cluster.replicas)
        self._places = cluster.places
        self._recorder = recorder
        self._dice = dice
        self._live: list[Held] = []
        self._ended: deque[Held] = deque(maxlen=_MAX_ENDED)
        self._in_use: set[str] = set()

    async def run(self, name: str, operations: int, until: float) -> None:
        """Work until so many operations of all clients have been answered, at most until a time of the loop."""
        actions = [
            (60, self._validate),
            (12, self._validate_ended),
            (12, self._create),
            (4, self._login),
            (5, self._roll),
            (6, self._revoke),
        ]
        weights = [weight for weight, _ in actions]
        loop = asyncio.get_running_loop()
        while self._recorder.count < operations and loop.time() < until:
            (_, action) = self._dice.choices(actions, weights)[0]
            before = self._recorder.count
            await action(name)
            if self._recorder.count == before:
                await asyncio.sleep(self._dice.uniform(0.0, 0.1))  # there was nothing to do, or no answer

    async def look_at_everything(self) -> None:
        """Validate every session that is known on every replica, each with the newest consistency token."""
        newest = self._recorder.tokens[-1] if self._recorder.tokens else None
        for held in (*self._live, *self._ended):
            await asyncio.gather(*(self._recorder.validate("last look", place, held, newest) for place in self._places))

    async def _validate(self, name: str) -> None:
        if not self._live:
            return
        dice = self._dice
        # Most requests are about few sessions, as with real users: so near caches have their answers.
        held = dice.choice(self._live[-_BUSY:] if dice.random() < _BUSY_SHARE else self._live)
        at_least = dice.choice(self._recorder.tokens) if self._recorder.tokens and dice.random() < 0.2 else None
        verdict = await self._recorder.validate(name, self._place(), held, at_least, older=dice.random() < 0.1)
        if verdict == "REVOKED":
            self._bury(held)

    async def _validate_ended(self, name: str) -> None:
        if self._ended:
            await self._recorder.validate(name, self._place(), self._dice.choice(self._ended))

    async def _create(self, name: str) -> None:
        application = self._dice.choice(("default", "reject", "evict"))
        subject = "" if self._dice.random() < 0.4 else self._subject()
        replica = self._replica()
        held = await self._recorder.create(name, replica, application, subject)
        if held is None:
            return
        self._live.append(held)
        await self._see_own_change(name, replica, held)
        if len(self._live) > _MAX_HELD:
            self._bury(self._live[0])

    async def _login(self, name: str) -> None:
        held = self._own(anonymous=True)
        if held is not None:
            replica = self._replica()
            if await self._recorder.login(name, replica, held, self._subject()):
                await self._see_own_change(name, replica, held)
            self._in_use.discard(held.session)

    async def _roll(self, name: str) -> None:
        held = self._own(anonymous=False)
        if held is not None:
            replica = self._replica()
            if await self._recorder.roll(name, replica, held):
                await self._see_own_change(name, replica, held)
            self._in_use.discard(held.session)

    async def _revoke(self, name: str) -> None:
        if not self._live:
            return
        held, replica, waits = self._dice.choice(self._live), self._replica(), self._dice.random() < 0.5
        revoking = self._recorder.revoke(name, replica, held, waits=waits)
        if self._dice.random() < 0.4 and held.session not in self._in_use:
            # At the same time on another replica, which then learns of both changes at once.
            self._in_use.add(held.session)
            ended, _ = await asyncio.gather(revoking, self._recorder.roll(name, self._recorder.other(replica), held))
            self._in_use.discard(held.session)
        else:
            ended = await revoking
        if not ended:
            return
        self._bury(held)
        if waits:
            looks = (self._recorder.validate(name, place, held) for place in self._places)
            await asyncio.gather(*looks)
        else:
            await self._see_own_change(name, replica, held)

    async def _see_own_change(self, name: str, replica: int, held: Held) -> None:
        """Validate on another replica with the consistency token of the change just made."""
        own = next((pair for pair in reversed(self._recorder.tokens)), None)
        if own is not None and self._dice.random() < 0.4:
            await self._recorder.validate(name, self._recorder.other(replica), held, own)

    def _own(self, *, anonymous: bool) -> Held | None:
        """Return a session that no other client changes at present. The caller gives it back."""
        for _ in range(10):
            if not self._live:
                break
            held = self._dice.choice(self._live)
            if held.session not in self._in_use and bool(held.subject) is not anonymous:
                self._in_use.add(held.session)
                return held
        return None

    def _bury(self, held: Held) -> None:
        if held in self._live:
            self._live.remove(held)
            self._ended.append(held)

    def _replica(self) -> int:
        return self._dice.randrange(self._replicas)

    def _place(self) -> int:
        return self._dice.choice(self._places)

    def _subject(self) -> str:
        return f"subject {self._dice.randrange(_SUBJECTS)}"
