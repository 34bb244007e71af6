"""An authority that clients use, is moved to another store, and must go on as if nothing had happened."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

from sessiond.app import App
from sessiond.config.data_folder import key_file_in
from sessiond.config.store_address import PostgresAddress
from sessiond.copy_store import Place
from sessiond_client import AsyncClient, Created, Event, EventType, Requirements, Verdict
from sessiond_client.subscription import EventQuery
from tests.support.clock import ManualClock
from tests.support.postgres import new_database
from tests.support.server import config_for, serving

__all__ = ["DIRECTIONS", "Held", "Home", "homes_of", "use", "verify"]

DIRECTIONS = [("sqlite", "postgres"), ("postgres", "sqlite"), ("postgres", "postgres"), ("sqlite", "sqlite")]
_POLICIES = "[applications.default]\nretention = '7d'\n"
_MINUTES_20 = 20 * 60_000
_REQUEST_ID = "1b4e28ba-2fa1-4d3b-a3f5-ef19d2a3f1c7"


@dataclass
class Home:
    """Where an authority lives: its data folder, and its store."""

    folder: Path
    place: Place

    @asynccontextmanager
    async def served(self, clock: ManualClock, *, sealed: bool = False) -> AsyncIterator[App]:
        """Run a server on it."""
        store = self.place if isinstance(self.place, PostgresAddress) else None
        async with serving(config_for(self.folder, _POLICIES, store=store, encrypt_data=sealed), clock) as app:
            yield app

    @property
    def data(self) -> Path:
        """Return the data folder."""
        return self.folder / "data"

    def take_keys(self, other: Home) -> None:
        """Put a copy of another home's key file into the data folder."""
        self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        shutil.copy(key_file_in(other.data), key_file_in(self.data))


async def homes_of(folder: Path, postgres: str, *engines: str) -> list[Home]:
    """Return a new home on each of these engines. Nothing is created in the folder."""
    homes = []
    for number, engine in enumerate(engines):
        home = folder / f"home-{number}"
        place = PostgresAddress(await new_database(postgres)) if engine == "postgres" else home / "data"
        homes.append(Home(home, place))
    return homes


@dataclass
class Held:
    """What clients hold when the authority is moved.

    `form` is the CSRF token of a page from before a step-up, `raised` the token of its session. `events` are those of
    the whole log; a subscriber has seen the first `seen` of them.
    """

    live: Created
    renewed: str
    revoked: Created
    repeated: Created
    form: str
    raised: str
    consistency_token: str
    events: list[Event]
    seen: int


async def use(app: App, clock: ManualClock) -> Held:
    """Use an authority in every way that leaves something in its store."""
    async with AsyncClient(app.address) as client:
        live = await client.create(
            subject="ada", data={"cart": b"3 apples", "ü": b"\0\xff"}, labels={"tenant": "acme", "device": "phone"}
        )
        other = await client.create(subject="bob", labels={"tenant": "acme"}, data={"theme": b"dark"})
        revoked = await client.create(subject="ada")
        await client.revoke(token=revoked.token, reason="logout")
        renewed = None
        for _ in range(4):
            clock.advance(_MINUTES_20)
            await client.validate(live.token)
            renewed = (await client.validate(renewed or other.token)).renewed_token or renewed
        assert renewed is not None
        changed = await client.update_data(token=live.token, set={"cart": b"4 apples"})
        repeated = await client.create(subject="eve", request_id=_REQUEST_ID)
        page = await client.create(subject="fay")
        raised = (await client.authenticate(page.token, "fay")).token
        assert raised is not None
        form = page.csrf_token.reveal()
        events = await _events(client, app.authority.parts.feed.revision, start="earliest")
        state, seen = changed.consistency_token, len(events) // 2
        return Held(live, renewed.reveal(), revoked, repeated, form, raised.reveal(), state, events, seen)


async def verify(app: App, held: Held) -> None:
    """Check that everything that clients hold is as good as before. The log may only have gained events at its end."""
    async with AsyncClient(app.address) as client:
        found = await client.validate(held.live.token, data=True, at_least=held.consistency_token)
        assert found.verdict is Verdict.VALID
        assert found.session is not None
        assert dict(found.session.labels) == {"tenant": "acme", "device": "phone"}
        data = await client.get_data(token=held.live.token)
        assert data.data == {"cart": b"4 apples", "ü": b"\0\xff"}
        assert (await client.validate(held.renewed)).verdict is Verdict.VALID
        assert (await client.validate(held.revoked.token)).verdict is Verdict.REVOKED
        assert (await client.validate(held.raised, requirements=Requirements(csrf=held.form))).verdict is Verdict.VALID
        assert (await client.get(session_id=held.revoked.session.session_id)).session is not None
        labelled = [session.subject async for session in client.list(labels={"tenant": "acme"})]
        assert sorted(labelled) == ["ada", "bob"]
        again = await client.create(subject="eve", request_id=_REQUEST_ID)
        assert again.token.reveal() == held.repeated.token.reveal()
        rest = held.events[held.seen :]
        found_rest = await _events(client, len(rest), after=held.events[held.seen - 1].cursor)
        # A cursor names the incarnation that handed it out, and each start of a server begins a new one.
        assert [replace(event, cursor="") for event in found_rest] == [replace(event, cursor="") for event in rest]
        new = await client.create(subject="zoe")
        (event,) = await _events(client, 1, after=held.events[-1].cursor)
        assert (event.type, event.session_id) == (EventType.SESSION_CREATED, new.session.session_id)
        assert event.revision == held.events[-1].revision + 1


async def _events(client: AsyncClient, count: int, **query: Unpack[EventQuery]) -> list[Event]:
    """Return the next events of a subscription."""
    found: list[Event] = []
    async with asyncio.timeout(10), client.events(**query) as stream:
        while len(found) < count:
            found.append(await anext(stream))
    return found
