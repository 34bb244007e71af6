"""Filling a store with live sessions through its own transactions, and computing their tokens.

Session ids and secrets are derived from a seed and the number of the session. So the token of any of a million
sessions can be computed when it is needed, and no list of tokens is kept. This is for benchmarks only: real secrets
are random.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from sessiond.config import Config, load_config
from sessiond.crypto.key_file import load_key_ring
from sessiond.crypto.tokens import KeyRing, digest
from sessiond.domain.event import Event, EventType
from sessiond.domain.lifecycle import open_session
from sessiond.domain.policy import Policy
from sessiond.domain.session import Session
from sessiond.domain.values import Authentication, Cause, CauseKind, ClientContext, Instant, Revision, SessionId
from sessiond.store.contract import Changes, Decision, Store, Transaction
from sessiond.store.postgres.store import PostgresStore
from sessiond.store.sqlite.files import migrations
from sessiond.store.sqlite.store import SqliteStore
from sessiond.system.clock import SystemClock

__all__ = ["APPLICATION", "EVERY_SIGNAL", "LONG_LIVED", "Seeded", "client_of", "ready", "seed"]

APPLICATION = "default"
LONG_LIVED = """\
# Sessions that are still good when a store that was filled once is measured again, days later.
[server]
event_retention = "3650d"

[applications.default]
preset = "owasp-low"
idle_timeout = "3650d"
absolute_timeout = "3650d"
renewal_timeout = "3650d"
"""
EVERY_SIGNAL = """\
# The default policy, but with no signal ignored.
[applications.default.reactions]
token_replay = "revoke-session"
user_agent_change = "step-up"
ip_change = "alert"
network_change = "alert"
country_change = "step-up"
certificate_mismatch = "revoke-session"
device_mismatch = "step-up"
concurrent_use = "step-up"
companion_mismatch = "revoke-session"
reported = "revoke-session"
"""
_GROUP = 2_000
_BROWSERS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 "
    "Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 "
    "Safari/605.1.15",
)


def client_of(number: int) -> ClientContext:
    """Return the client of a session: an address of its own and one of four user agents."""
    return ClientContext(
        ip_address=f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
        user_agent=_BROWSERS[number % len(_BROWSERS)],
    )


@dataclass(frozen=True, slots=True)
class _Manifest:
    """How a store was filled. A store with a different manifest is filled again."""

    count: int
    config: str
    schema: str
    secrets: str
    first_created: int


class Seeded:
    """A data folder full of sessions."""

    def __init__(self, folder: Path, manifest: _Manifest) -> None:
        self.data = folder / "data"
        self.config = folder / "sessiond.toml" if manifest.config else None
        self.count = manifest.count
        self._manifest = manifest
        self._keys: KeyRing = load_key_ring(self.data / "sessiond.key", os.urandom)

    def session_id(self, number: int) -> SessionId:
        """Return the id of a session."""
        return _identity(self._manifest, number)[0]

    def token(self, number: int) -> str:
        """Return the token of a session."""
        session_id, secret = _identity(self._manifest, number)
        return self._keys.seal(session_id, 0, secret).reveal()


def ready(folder: Path, count: int, config: str) -> Seeded | None:
    """Return the sessions in a folder that was filled earlier; None if its count, configuration or schema differs."""
    try:
        manifest = _Manifest(**json.loads((folder / "manifest.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    if (manifest.count, manifest.config, manifest.schema) != (count, config, _schema()):
        return None
    return Seeded(folder, manifest)


async def seed(
    folder: Path, count: int, config: str, on_progress: Callable[[int], None] = lambda done: None, *, age_ms: int = 0
) -> Seeded:
    """Fill a new store with `count` live sessions, each with the event of its creation, in groups of 2,000.

    The store is the one that `config` names; a database must be empty. The folder's former content is deleted.
    `on_progress` is called with the number of sessions stored so far. The youngest session is `age_ms` milliseconds
    old.
    """
    prepared = _prepare(folder, config)
    policy = prepared.policies[APPLICATION]
    # 100 sessions are created per millisecond.
    first = SystemClock().now() - age_ms - count // 100
    manifest = _Manifest(count, config, _schema(), os.urandom(16).hex(), first)
    address = prepared.store
    store: Store = (
        await SqliteStore.open(folder / "data" / "sessiond.db")
        if address is None
        else await PostgresStore.open(address)
    )
    try:
        for start in range(0, count, _GROUP):
            numbers = range(start, min(start + _GROUP, count))
            await store.write(_opening(manifest, numbers, policy))
            on_progress(numbers.stop)
    finally:
        await store.close()
    return _finish(folder, manifest)


def _prepare(folder: Path, config: str) -> Config:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "data").mkdir(mode=0o700)
    if not config:
        return load_config(None)
    file = folder / "sessiond.toml"
    file.write_text(config, encoding="utf-8")
    return load_config(file)


def _finish(folder: Path, manifest: _Manifest) -> Seeded:
    seeded = Seeded(folder, manifest)
    # The manifest is written last: a folder without one is incomplete.
    (folder / "manifest.json").write_text(json.dumps(asdict(manifest), indent=2), encoding="utf-8")
    return seeded


def _opening(manifest: _Manifest, numbers: range, policy: Policy) -> Callable[[Transaction], Awaitable[Decision[None]]]:
    async def decide(transaction: Transaction) -> Decision[None]:
        return Decision(_changes(manifest, numbers, transaction.head.revision, policy), None)

    return decide


def _changes(manifest: _Manifest, numbers: range, head: Revision, policy: Policy) -> Changes:
    changes = Changes()
    for number in numbers:
        revision = Revision(head + len(changes.events) + 1)
        session = _session(manifest, number, policy, revision)
        changes.sessions[session.id] = session
        changes.events.append(
            Event(
                revision=revision,
                type=EventType.SESSION_CREATED,
                at=session.created,
                application=session.application,
                subject=session.subject,
                session_id=session.id,
                cause=Cause(CauseKind.REQUEST, "caller"),
                client=session.client,
                generation=session.generation,
                authentication=session.authentication,
                signals=(),
            )
        )
    return changes


def _session(manifest: _Manifest, number: int, policy: Policy, revision: Revision) -> Session:
    session_id, secret = _identity(manifest, number)
    created = _created(manifest, number)
    authentication = Authentication(1, ("pwd",), created)
    return open_session(
        session_id,
        APPLICATION,
        f"user-{number:07d}",
        digest(secret),
        authentication,
        client_of(number),
        policy,
        created,
        revision=revision,
    )


def _created(manifest: _Manifest, number: int) -> Instant:
    return Instant(manifest.first_created + number // 100)


def _identity(manifest: _Manifest, number: int) -> tuple[SessionId, bytes]:
    drawn = hashlib.sha256(f"{manifest.secrets}/{number}".encode()).digest()
    return SessionId.make(_created(manifest, number), lambda size: drawn[:size]), drawn[16:]


def _schema() -> str:
    return hashlib.sha256("\n".join(migrations()).encode()).hexdigest()
