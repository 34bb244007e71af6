"""The composition root of a server: the only place that constructs its parts, and their order of start and stop."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import structlog

from sessiond import __version__
from sessiond.access.audit import Audit
from sessiond.access.audit_reload import record_refused_reload, record_reload
from sessiond.access.book import CallerBook
from sessiond.access.callers import Callers, CallersOfWorkers
from sessiond.access.limit_log import LimitLog
from sessiond.access.limits import CallLimiter
from sessiond.access.tls import server_files
from sessiond.access.tls_watch import TlsWatch
from sessiond.authority.authority import Authority
from sessiond.authority.backup import Backups
from sessiond.authority.callers import CallerAdmin
from sessiond.authority.data import SessionData
from sessiond.authority.following import Following
from sessiond.authority.key_ring import KeyRingAdmin
from sessiond.authority.key_sources import key_source
from sessiond.authority.logins import Logins
from sessiond.authority.parts import Parts
from sessiond.authority.policy_book import PolicyBook
from sessiond.authority.reading import Reading
from sessiond.authority.retries import Retries
from sessiond.authority.ring_keeper import RingKeeper
from sessiond.authority.ring_tasks import RingTasks
from sessiond.authority.sessions import Sessions
from sessiond.authority.sweeper import Sweeper
from sessiond.authority.token_gate import TokenGate
from sessiond.authority.validation import Validation
from sessiond.cache.activity import UnsavedActivity
from sessiond.cache.sessions import SessionCache
from sessiond.config import Config, change_proxies
from sessiond.config.caller_sockets import CallerSocket
from sessiond.config.data_folder import database_in
from sessiond.config.starting import remote_plaintext, workers_need_port
from sessiond.crypto.session_data import DataCipher
from sessiond.crypto.tokens import KeyRing
from sessiond.detection.client_facts import FactReader
from sessiond.detection.guesses import GuessWatch
from sessiond.detection.suspicions import ReportedSignals, Suspicions
from sessiond.detection.uses import SupersededUses, UseWatch
from sessiond.domain.access import CallerRecord
from sessiond.domain.errors import Unavailable
from sessiond.domain.event import Event
from sessiond.domain.immutable import immutable
from sessiond.domain.policy import Policy
from sessiond.domain.session import Session
from sessiond.domain.signals import SignalType
from sessiond.domain.values import ClientContext, Entropy, Instant, Millis, SessionId
from sessiond.endpoints import Endpoints
from sessiond.eventlog.caches import FollowingCaches, LeaseRules
from sessiond.eventlog.event_counts import EventCounts
from sessiond.eventlog.feed import Feed
from sessiond.eventlog.follower import Follower
from sessiond.eventlog.history import recent_events
from sessiond.eventlog.journal import Journal
from sessiond.eventlog.security_log import SecurityLog
from sessiond.http.forward_auth import ForwardAuth
from sessiond.metrics.watched import Watched
from sessiond.monitoring import metrics_server, stop_tracing, tracing_to
from sessiond.proxying import decider_of, http_server, services_for_proxies
from sessiond.rpc.auditing import AuditedCalls
from sessiond.rpc.fast_path import FastPath
from sessiond.rpc.giving_way import UnaryCalls
from sessiond.rpc.response_cache import Refusals, SessionMessages
from sessiond.rpc.secure import server_credentials
from sessiond.rpc.server import DEFAULT_MAX_CALLS, FurtherService, RpcServer, Shared, turns_for
from sessiond.rpc.service.backup import BackupService
from sessiond.rpc.service.callers import CallerService
from sessiond.rpc.service.calls import Calls
from sessiond.rpc.service.data import DataService
from sessiond.rpc.service.events import EventService
from sessiond.rpc.service.following import FollowService
from sessiond.rpc.service.key_ring import KeyRingService
from sessiond.rpc.service.logins import LoginService
from sessiond.rpc.service.reading import ReadingService
from sessiond.rpc.service.sessions import SessionService
from sessiond.rpc.service.validation import ValidationService
from sessiond.rpc.service.validation_stream import ValidationStreams
from sessiond.rpc.stream_limit import StreamBounds
from sessiond.store.contract import Commit, Store, StoreFailed
from sessiond.store.postgres.store import PostgresStore
from sessiond.store.sealed_data import StoreKeys
from sessiond.store.shared import LEASE, SharedStore
from sessiond.store.sqlite.file_lock import FileLock
from sessiond.store.sqlite.files import hold_folder
from sessiond.store.sqlite.store import SqliteStore
from sessiond.system.audit_file import AuditFile, write_to_log
from sessiond.system.clock import Clock, SystemClock, since_boot
from sessiond.system.entropy import SystemEntropy
from sessiond.system.ongoing import outside_calls
from sessiond_client.following import Lease
from sessiond_client.targets import is_local

if TYPE_CHECKING:  # the packages that it needs are optional
    from sessiond.system.tracing import Tracing

__all__ = [
    "App",
    "Process",
    "Reloaded",
    "OpenToOthers",
    "RemotePlaintext",
    "Services",
    "WorkersNeedPort",
    "assemble",
    "rpc_server",
    "services_of",
]

Services = tuple[
    ValidationService,
    LoginService,
    SessionService,
    DataService,
    ReadingService,
    EventService,
    FollowService,
    ValidationStreams,
    CallerService,
    KeyRingService,
    BackupService,
]

_STREAM_BOUNDS = StreamBounds()
_log = structlog.get_logger(__name__)


@immutable
class Process:
    """What an authority process takes from outside."""

    keys: KeyRing
    policies: PolicyBook
    reader: FactReader
    cache_sessions: int
    clock: Clock
    entropy: Entropy
    on_store_failure: Callable[[StoreFailed], None]
    on_events: Callable[[Sequence[Event]], None] = lambda _: None
    """Called with the events of each commit once everything knows of them. Must not raise."""
    on_callers: Callable[[Sequence[CallerRecord]], None] = lambda _: None
    """Called with all callers at the start and after each commit that changes one, before anyone hears of it. Must not
    raise."""
    shared: SharedStore | None = None
    """The store, if other replicas share it."""
    passed: Callable[[], int] = lambda: since_boot() // 1_000_000
    """Milliseconds of a clock that never goes backwards, for leases."""
    keeper: RingKeeper | None = None
    """Keeps `keys` as the store records them. None: they do not change."""


class _Memory:
    """What units of work see beside the store; see `eventlog.work.Memory`. Kept true by every commit."""

    def __init__(self, activity: UnsavedActivity, reported: ReportedSignals, suspicions: Suspicions) -> None:
        self._activity = activity
        self._reported = reported
        self._suspicions = suspicions

    def with_activity(self, session: Session) -> Session:
        return self._activity.apply_to(session)

    def was_reported(self, session_id: SessionId, kind: SignalType, window: Millis, now: Instant) -> bool:
        return self._reported.was_reported(session_id, kind, window, now)

    def is_own_client(self, session: Session, client: ClientContext, policy: Policy) -> bool:
        return self._suspicions.is_own_client(session, client, policy)

    def is_denied_client(self, session: Session, client: ClientContext, policy: Policy) -> bool:
        return self._suspicions.is_denied_client(session, client, policy)

    def is_new_old_token(self, session: Session, client: ClientContext, others: Sequence[ClientContext]) -> bool:
        return self._suspicions.is_new_old_token(session, client, others)

    def presented_old_token(
        self, session: Session, client: ClientContext, policy: Policy, others: Sequence[ClientContext]
    ) -> bool:
        return self._suspicions.presented_old_token(session, client, policy, others)


async def assemble(store: Store, process: Process) -> Authority:
    """An authority over an open store. Its journal runs; whoever asked for it closes journal and store."""
    head = await store.head()
    # After the head: what another replica changes later is in an event that this one follows.
    process.on_callers(await store.callers())
    keeper = process.keeper or RingKeeper(process.keys)
    keeper.apply(await store.keys())
    feed, lease = Feed(head, store), Lease()
    activity, reported, uses = UnsavedActivity(), ReportedSignals(), UseWatch()
    guesses = GuessWatch(lambda application: _lock_time(process.policies, application))
    is_open = None if process.shared is None else lambda: lease.is_valid(process.passed())
    cache = SessionCache(store.session, activity, process.cache_sessions, is_open)
    suspicions = Suspicions(process.reader, uses, SupersededUses())

    def learn(events: Sequence[Event]) -> None:
        reported.apply(events)
        suspicions.apply(events)
        guesses.apply(events)

    def apply(commit: Commit) -> None:
        # Memory first, subscribers last: whoever hears of an event finds everything that it says.
        if commit.callers is not None:
            process.on_callers(commit.callers)
        if commit.keys is not None:
            keeper.apply(commit.keys)
        cache.apply(commit)
        learn(commit.events)
        feed.publish(commit.events, commit.horizon)
        process.on_events(commit.events)

    async for events in recent_events(store, head):
        learn(events)
    rules = LeaseRules(process.passed)
    if process.shared is None and head.revision:
        # Caches may hold leases of the process before this one, which nothing records.
        rules = LeaseRules(process.passed, unknown_until=process.passed() + LEASE + LEASE // 50)
    follower = None
    if process.shared is not None:
        follower = Follower(process.shared, feed, lease, apply, cache.clear, process.passed)
        follower.policies = lambda: process.policies.fingerprint
        feed.on_wait = follower.hint
        rules = LeaseRules(process.passed, lambda: lease.until, asks_always=True, on_acknowledged=follower.hint)
    caches = FollowingCaches(rules)
    if follower is not None:
        follower.applied = caches.applied
        keeper.on_held = follower.report_keys
        await follower.step()
    publish: Callable[[Commit], Awaitable[None] | None] = apply if follower is None else follower.publish
    journal = Journal(store, process.clock, _Memory(activity, reported, suspicions), publish, process.on_store_failure)
    gate = TokenGate(
        process.keys,
        guesses,
        journal,
        process.clock,
        lambda: keeper.lacks_keys or not (is_open is None or is_open()),
    )
    parts = Parts(
        store,
        journal,
        feed,
        cache,
        activity,
        process.keys,
        process.policies,
        gate,
        suspicions,
        reported,
        process.clock,
        process.entropy,
        caches,
        follower,
    )
    validation, retries = Validation(parts), Retries(journal, process.keys)
    logins, reading = Logins(parts, validation, retries), Reading(parts, validation)
    sessions = Sessions(parts, validation, retries, logins)
    data = SessionData(parts, validation, retries, reading)
    following = Following(feed, process.policies, caches)
    callers, key_ring = CallerAdmin(parts, retries), KeyRingAdmin(parts, retries, keeper)
    backups = Backups(store, process.clock)
    return Authority(parts, validation, retries, logins, sessions, data, reading, following, callers, key_ring, backups)


def _lock_time(policies: PolicyBook, application: str) -> Millis:
    policy = policies.get(application)
    return Millis(0) if policy is None else policy.guessing.lock_time


def services_of(
    authority: Authority, bounds: StreamBounds, unary_calls: UnaryCalls, limiter: CallLimiter | None = None
) -> Services:
    """The calls of the contract over an authority, by subject. Some give way to the unary calls that are under way."""
    limiter = limiter or CallLimiter()
    calls, fast_path = Calls(authority), FastPath(authority.validation, authority.parts.entropy, limiter=limiter)
    validations = ValidationService(calls, authority, fast_path, SessionMessages(), Refusals(), unary_calls)
    return (
        validations,
        LoginService(calls, authority.logins),
        SessionService(calls, authority),
        DataService(calls, authority.data, authority.reading),
        ReadingService(calls, authority, __version__),
        EventService(authority.reading, bounds.write_timeout, bounds.subscribers),
        FollowService(authority, bounds.write_timeout, bounds.subscribers),
        ValidationStreams(authority, validations, bounds.write_timeout, bounds.validations, unary_calls, limiter),
        CallerService(authority),
        KeyRingService(authority),
        BackupService(authority.backups, bounds.write_timeout, __version__),
    )


def rpc_server(
    authority: Authority,
    bounds: StreamBounds = _STREAM_BOUNDS,
    max_calls: int = DEFAULT_MAX_CALLS,
    callers: Callers | None = None,
    transport: str = "grpcio",
    limiter: CallLimiter | None = None,
) -> RpcServer:
    """The gRPC server of an authority, not started."""
    shared = Shared(limiter=limiter or CallLimiter(), turns=turns_for(max_calls, transport))
    services = services_of(authority, bounds, shared.unary_calls, shared.limiter)
    return rpc_servers(services, shared, max_calls)(transport, callers or Callers())


def rpc_servers(
    services: Services, shared: Shared, max_calls: int, further: Sequence[FurtherService] = ()
) -> Callable[[str, Callers], RpcServer]:
    """Return what makes servers of an authority, not started. They share all limits but `max_calls`.

    `further` are served beside the contract.
    """

    def server_for(transport: str, callers: Callers) -> RpcServer:
        return RpcServer(
            [*services, *further],
            callers,
            services[0].fast_path,
            max_calls=max_calls,
            transport=transport,
            shared=shared,
        )

    return server_for


@immutable
class Reloaded:
    """What a reload did: what changed, in words, by application; and the keys whose new values need a restart.

    limits_changed  whether other limits on calls are in force
    """

    changed: Mapping[str, str]
    restart_required: Sequence[str]
    limits_changed: bool = False


class RemotePlaintext(Exception):
    """The address can be reached from other machines, and nothing would protect the tokens on the way."""


class OpenToOthers(Exception):
    """The address can be reached from other machines, and without callers everyone there would have full access."""


class WorkersNeedPort(Exception):
    """Workers share a port, and the address is a Unix socket; or they would have to serve TLS."""


class App:
    """One authority, running: its parts, wired. Made by `start`, ended by `stop`.

    `failure` is set when the store has failed: the process must then stop.
    """

    address: str
    authority: Authority
    sweeper: Sweeper

    def __init__(self, config: Config, clock: Clock, entropy: Entropy) -> None:
        self._config = config
        self._proxies = dict(config.proxies)
        self._clock = clock
        self._entropy = entropy
        loop = asyncio.get_running_loop()
        later = outside_calls(loop.call_later)
        self._security_log = SecurityLog(later)
        self._event_counts = EventCounts()
        file = None if config.log_audit_file is None else AuditFile(config.log_audit_file)
        self.audit = Audit(write_to_log, file, clock.now, later)
        self._limit_log = LimitLog(later)
        self._limiter = CallLimiter(config.limits, self._limit_log)
        self._tracing: Tracing | None = None
        self.failure: asyncio.Future[StoreFailed] = loop.create_future()

    @classmethod
    async def start(cls, config: Config, clock: Clock | None = None, entropy: Entropy | None = None) -> App:
        """Start serving.

        Raises `RemotePlaintext`, `OpenToOthers`, `WorkersNeedPort`, `BadTls`, `BadTracing`, `BadAuditFile`,
        `StoreRefused`, `BadKeyFile`, `BadNetworkFile`, `CannotListen` or `WorkersFailed`; nothing is left running then.
        """
        _refuse_contradictions(config)
        app = cls(config, clock or SystemClock(), entropy or SystemEntropy())
        try:
            await app._start()
        except BaseException:
            app.audit.close()
            await stop_tracing(app._tracing)
            raise
        return app

    async def _start(self) -> None:
        config = self._config
        self._tracing = tracing_to(config.tracing, "server.tracing", "sessiond")
        files = server_files(config)
        self._tls = None if files is None else TlsWatch(files, self._clock)
        # The store before its key file: it makes the data folder, and no key file must be made beside somebody else's
        # database.
        shared = self._shared = await self._open_store()
        try:
            self._book = CallerBook((), self._clock.now)
            process = Process(
                self._keys,
                PolicyBook(config.policies, config.origins),
                FactReader(config.operators, config.countries),
                config.cache_sessions,
                self._clock,
                self._entropy,
                self._on_store_failure,
                self._on_events,
                self._book.replace,
                shared,
                keeper=self._keeper,
            )
            self.authority = await assemble(self._store, process)
        except BaseException:
            await self._close_store()
            raise
        parts = self.authority.parts
        self._book.is_confirmed = lambda: parts.cache.is_open
        try:
            self._refuse_open_access()
            self.sweeper = Sweeper(parts, config.event_retention, self._on_store_failure)
            self.ring = RingTasks(parts, self.authority.key_ring, self._keeper, self._on_store_failure)
            await self.ring.record(self._store.keys_before)
            await self._listen()
        except BaseException:
            await parts.journal.close()
            await self._close_store()
            raise
        self._sweeping = asyncio.create_task(self.sweeper.run(), name="sweeper")
        is_ready = self._endpoints.watch(lambda: self.authority.reading.is_ready)
        self._readiness = asyncio.create_task(is_ready, name="readiness")
        self.ring.start()
        self._following: asyncio.Task[None] | None = None
        if parts.follower is not None:
            self._following = asyncio.create_task(parts.follower.run(), name="follower")
        self._watching = None if self._tls is None else asyncio.create_task(self._tls.run(self._on_tls), name="tls")
        facts = {"callers": len(self._book.records), "revision": parts.feed.revision, "version": __version__}
        _log.info("serving", address=self.address, **_settings_of(config), **facts, **self._endpoints.described())
        _log_who_may_call(self._book, config.sockets)

    def _refuse_open_access(self) -> None:
        addresses = filter(None, (self._config.listen, self._config.http_listen))
        remote = [address for address in addresses if not is_local(address)]
        if remote and self._book.is_open and not self._config.allow_without_callers:
            raise OpenToOthers(
                f"{remote[0]} can be reached from other machines, and without callers everyone who connects has full "
                "access: listen on 127.0.0.1 or unix:PATH first, run `sessionctl callers add ops --role admin`, and "
                "then listen there; or accept the risk with --allow-without-callers"
            )

    async def _listen(self) -> None:
        """Answer everywhere."""
        config = self._config
        if config.workers:
            self._callers: Callers = CallersOfWorkers(self._book, audit=self.audit)
        else:
            authorities = None if self._tls is None else self._tls.current.authorities
            reads = config.tls_client_ca is not None
            self._callers = Callers(self._book, reads_certificates=reads, authorities=authorities, audit=self.audit)
        credentials = None if self._tls is None else server_credentials(self._tls)
        bounds = StreamBounds(
            config.subscriber_write_timeout / 1000, config.max_subscribers, config.max_validation_streams
        )
        turns = turns_for(config.max_calls, config.transport)
        shared = Shared(limiter=self._limiter, turns=turns, tracer=self._tracing)
        services = services_of(self.authority, bounds, shared.unary_calls, shared.limiter)
        decider = decider_of(
            self.authority.parts.policies, self._proxies, services, services[0].repeatable, self._limiter, self._entropy
        )
        auth = ForwardAuth(decider.decide, AuditedCalls(self.audit))
        callers, reading = Callers(self._book, audit=self.audit), self.authority.reading
        http = await http_server(config, decider, auth, callers, self._limiter, reading, self._clock, self._tracing)
        further = services_for_proxies(config, decider, auth)
        counts = shared.stats, self._event_counts, self._limit_log, self.audit
        watched = Watched(self.authority, self.sweeper, self._keeper, *counts, self._tls)
        server_for = rpc_servers(services, shared, config.max_calls, further)
        self._endpoints = await Endpoints.start(
            config, self._callers, self._book, server_for, credentials, http, partial(metrics_server, config, watched)
        )
        self.address = self._endpoints.address

    async def reload(self, config: Config) -> Reloaded:
        """Put the policies and limits of another configuration in force; other settings need a restart."""
        self.audit.reopen()
        if self._tls is not None:
            await asyncio.to_thread(self._tls.look, self._clock.now(), at_once=True)
            self._on_tls()
        before = dict(self.authority.parts.policies)
        await self.ring.reload()
        changed = await self.authority.change_policies(config.policies, config.origins)
        for application, what in change_proxies(self._proxies, config.proxies).items():
            changed[application] = ", ".join(filter(None, (changed.get(application), what)))
        for application, what in changed.items():
            level = logging.WARNING if application not in config.policies else logging.INFO
            _log.log(level, "policy changed", application=application, change=what)
        if limits_changed := self._limiter.replace(config.limits):
            _log.info("limits changed", limits=_limits_text(config))
        waiting = self._config.restart_required(config)
        if waiting:
            _log.warning("restart required", settings=waiting)
        if not changed:
            _log.info("policies unchanged")
        record_reload(self.audit, before, config.policies, changed)
        return Reloaded(changed, waiting, limits_changed)

    def refuse_reload(self) -> None:
        """Record that the configuration has errors, so that nothing was changed."""
        self.audit.reopen()
        record_refused_reload(self.audit)

    async def stop(self) -> None:
        """Stop in the order that loses nothing: health, streams, calls, the writer, the file."""
        grace = self._config.drain_timeout / 1000
        delay = 0 if self.failure.done() else self._config.drain_delay / 1000
        self.authority.reading.announce_stop()
        await _cancelled(self._readiness)
        await self._endpoints.withdraw(delay, grace)
        self.authority.parts.feed.close()
        self.authority.backups.close()
        await self._endpoints.stop(grace)
        await self.ring.stop()
        await _cancelled(self._sweeping)
        with suppress(Unavailable):  # the store failed: what was acknowledged is on disk
            await self.sweeper.save_activity(everything=True)
        await self.authority.parts.journal.close()
        if self._following is not None:
            await _cancelled(self._following)
        if self._shared is not None and self.authority.parts.caches.may_answer():
            self._shared.keep_lease()
        await self._close_store()
        self._security_log.end_window()
        self.audit.end_window()
        self.audit.close()
        self._limit_log.end_window()
        if self._watching is not None:
            await _cancelled(self._watching)
        await stop_tracing(self._tracing, grace)
        _log.info("stopped", revision=self.authority.parts.feed.revision)

    async def _open_store(self) -> SharedStore | None:
        """Open the store; return it if other replicas share it."""
        config, database = self._config, database_in(self._config.data)
        self._lock: FileLock | None = None
        if config.store is None:
            self._store: SqliteStore | PostgresStore = await SqliteStore.open(
                database, self._load_keys, max_answer_bytes=config.max_answer_bytes
            )
            return None
        self._lock = hold_folder(database)
        try:
            self._store = store = await PostgresStore.open(
                config.store, self._load_keys, max_answer_bytes=config.max_answer_bytes, name=_replica_name(config)
            )
        except BaseException:
            self._lock.release()
            raise
        return store

    async def _close_store(self) -> None:
        await self._store.close()
        if self._lock is not None:
            self._lock.release()

    def _load_keys(self, is_new: bool) -> StoreKeys:
        source = key_source(self._config, self._entropy)
        self._keys = source.load(may_create=is_new)
        # Also if nothing is to be encrypted: what was encrypted before must stay readable.
        cipher = DataCipher(self._keys.materials(), self._entropy, encrypts=self._config.encrypt_data)
        self._keeper = RingKeeper(self._keys, source, cipher)
        waits = bool(source.change)
        name = source.name if waits else ""
        return StoreKeys(cipher, self._keys.fingerprints(), self._clock.now(), self._keeper.learn, name, waits)

    def _on_events(self, events: Sequence[Event]) -> None:
        self._event_counts.apply(events)
        self._security_log.apply(events)

    def _on_tls(self) -> None:
        """Trust only certificates of clients that the newest authorities have signed."""
        if self._tls is not None:
            self._callers.trust(self._tls.current.authorities)

    def _on_store_failure(self, failure: StoreFailed) -> None:
        if self.failure.done():
            return
        _log.error("store failed", error=str(failure), effect="stopping; everything acknowledged is safe")
        self.failure.set_result(failure)


def _settings_of(config: Config) -> dict[str, object]:
    """Return for the log how a server is configured."""
    sockets: dict[str, object] = {"sockets": {one.caller: one.path for one in config.sockets}} if config.sockets else {}
    return {
        "transport": config.transport,
        "tls": _tls_text(config),
        "pid": os.getpid(),
        "data": str(config.data),
        "store": "sqlite" if config.store is None else str(config.store),
        "config": [str(file.absolute()) for file in config.files],
        "settings": {key: origin for key, origin in config.server_origins.items() if origin != "default"},
        "applications": sorted(config.policies),
        **sockets,
    }


def _refuse_contradictions(config: Config) -> None:
    """Raise `RemotePlaintext` or `WorkersNeedPort` if settings do not fit together."""
    for obstacle in remote_plaintext(config):
        raise RemotePlaintext(f"{obstacle.key}: {obstacle.remedy}")
    for obstacle in workers_need_port(config):
        raise WorkersNeedPort(f"{obstacle.key} {obstacle.remedy}")


def _log_who_may_call(book: CallerBook, sockets: Sequence[CallerSocket]) -> None:
    if book.is_open:
        _log.info(
            "open to everyone who can connect",
            remedy="sessionctl callers add ops --role admin: from then on every call needs a key",
        )
        return
    for one in sockets:
        if book.revision_of(one.caller) is None:
            remedy = f"sessionctl callers add {one.caller} --role ROLE --no-key"
            _log.warning("socket of no caller", caller=one.caller, path=one.path, remedy=remedy)


def _limits_text(config: Config) -> dict[str, int]:
    """Return for the log the limits that hold for every caller and application, and how many callers have their own."""
    limits = config.limits
    return {
        "max_calls_per_caller": limits.caller.max_calls,
        "max_calls_per_application": limits.application.max_calls,
        "rate_per_caller": limits.caller.rate,
        "rate_per_application": limits.application.rate,
        "callers": len(limits.callers),
    }


def _tls_text(config: Config) -> str:
    """Return for the log who proves what: nobody, the server, or both sides."""
    if config.tls_certificate is None:
        return "none"
    return "server" if config.tls_client_ca is None else "mutual"


def _replica_name(config: Config) -> str:
    return f"{socket.gethostname()}, process {os.getpid()}, {config.listen}"


async def _cancelled(task: asyncio.Task[None]) -> None:
    """Cancel a task, and wait until it has ended."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
