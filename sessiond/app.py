"""The composition root: the only place that constructs concrete parts, and the order they start and stop in."""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import suppress

import structlog

from sessiond import __version__
from sessiond.authority.authority import Authority
from sessiond.authority.policy_book import PolicyBook
from sessiond.authority.sweeper import Sweeper
from sessiond.authority.token_gate import Gate
from sessiond.cache.sessions import SessionCache
from sessiond.config import Config
from sessiond.crypto.session_data import DataCipher
from sessiond.crypto.tokens import load_key_ring
from sessiond.detection.client_facts import FactReader
from sessiond.detection.suspicions import Watching
from sessiond.domain.errors import Unavailable
from sessiond.domain.values import Entropy
from sessiond.eventlog.feed import Feed
from sessiond.eventlog.journal import Journal
from sessiond.rpc.server import RpcServer, is_local
from sessiond.rpc.service import SessionAuthority
from sessiond.store.contract import Commit, StoreFailed
from sessiond.store.sqlite.store import SqliteStore
from sessiond.system.clock import Clock, SystemClock
from sessiond.system.entropy import SystemEntropy

__all__ = ["App", "RemotePlaintext"]

_STOP_GRACE = 5.0
_AT_START = ("event_retention", "cache_sessions", "subscriber_write_timeout", "encrypt_data", "operators", "countries")
_log = structlog.get_logger(__name__)


class RemotePlaintext(Exception):
    """The address can be reached from other machines, and nothing would protect the tokens on the way."""


class App:
    """One authority, running: its parts, wired. Made by `start`, ended by `stop`.

    `failure` is set when the store has failed: the process must then stop.
    """

    address: str
    authority: Authority
    sweeper: Sweeper

    def __init__(self, config: Config, clock: Clock, entropy: Entropy) -> None:
        self._config = config
        self._clock = clock
        self._entropy = entropy
        self.failure: asyncio.Future[StoreFailed] = asyncio.get_running_loop().create_future()

    @classmethod
    async def start(cls, config: Config, clock: Clock | None = None, entropy: Entropy | None = None) -> App:
        """Start serving.

        Raises `RemotePlaintext`, `StoreRefused`, `BadKeyFile`, `BadNetworkFile` or `CannotListen`; nothing is left
        running then.
        """
        if not (config.allow_remote_plaintext or is_local(config.listen)):
            raise RemotePlaintext(
                f"{config.listen} can be reached from other machines, and tokens would travel in the clear: listen on "
                "127.0.0.1 or unix:PATH, or accept the risk with --allow-remote-plaintext"
            )
        app = cls(config, clock or SystemClock(), entropy or SystemEntropy())
        await app._start()
        return app

    async def _start(self) -> None:
        config = self._config
        # The store first: it makes the data folder, and the key file must not be made beside somebody else's database.
        self._store = await SqliteStore.open(config.data / "sessiond.db", self._load_keys)
        try:
            self._feed = Feed(await self._store.head(), self._store.events)
            self._cache = SessionCache(self._store.session, config.cache_sessions)
            self._watching = Watching(FactReader(config.operators, config.countries))
            self._policies = PolicyBook(config.policies, config.origins)
            self._journal = Journal(
                self._store, self._clock, self._cache.with_activity, self._publish, self._on_store_failure
            )
            gate = Gate(self._keys, self._watching.guesses, self._journal, self._clock)
            self.authority = Authority(
                self._store,
                self._journal,
                self._feed,
                self._cache,
                self._keys,
                self._policies,
                gate,
                self._watching,
                self._clock,
                self._entropy,
            )
            self.sweeper = Sweeper(
                self._store,
                self._journal,
                self._cache,
                self._policies,
                gate,
                self._clock,
                config.event_retention,
                self._on_store_failure,
            )
            service = SessionAuthority(self.authority, __version__, config.subscriber_write_timeout / 1000)
            self._server = RpcServer(service)
            self.address = await self._server.start(config.listen)
        except BaseException:
            if hasattr(self, "_journal"):
                await self._journal.close()
            await self._store.close()
            raise
        self._sweeping = asyncio.create_task(self.sweeper.run(), name="sweeper")
        _log.info(
            "serving",
            address=self.address,
            pid=os.getpid(),
            data=str(config.data),
            applications=sorted(config.policies),
            revision=self._feed.revision,
            version=__version__,
        )

    async def reload(self, config: Config) -> None:
        """Put the policies of another configuration in force; what else differs in it waits for a restart."""
        told = await self.authority.change_policies(config.policies, config.origins)
        for application, what in told.items():
            level = logging.WARNING if application not in config.policies else logging.INFO
            _log.log(level, "policy changed", application=application, change=what)
        waiting = [name for name in _AT_START if getattr(config, name) != getattr(self._config, name)]
        if waiting:
            _log.warning("not in force before a restart", settings=waiting)
        if not told:
            _log.info("policies unchanged")

    async def stop(self) -> None:
        """Stop in the order that loses nothing: health, streams, calls, the writer, the file."""
        await self._server.announce_stop()
        self._feed.close()
        await self._server.stop(_STOP_GRACE)
        self._sweeping.cancel()
        with suppress(asyncio.CancelledError):
            await self._sweeping
        with suppress(Unavailable):  # the store failed: what was acknowledged is on disk
            await self.sweeper.save_activity(all_of_it=True)
        await self._journal.close()
        await self._store.close()
        _log.info("stopped", revision=self._feed.revision)

    def _load_keys(self) -> DataCipher:
        self._keys = load_key_ring(self._config.data / "sessiond.key", self._entropy)
        # Also where nothing is to be encrypted: what was encrypted before must stay readable.
        return DataCipher(self._keys.materials(), self._entropy, encrypts=self._config.encrypt_data)

    def _publish(self, commit: Commit) -> None:
        self._cache.apply(commit)
        self._watching.apply(commit.events)
        self._feed.publish(commit.events, commit.horizon)

    def _on_store_failure(self, failure: StoreFailed) -> None:
        if self.failure.done():
            return
        _log.error("store failed", error=str(failure), effect="stopping; everything acknowledged is safe")
        self.failure.set_result(failure)
