"""The metrics of an authority: verdicts, memory, commits, events, subscribers, the sweeper, the store and the keys."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from time import monotonic

from prometheus_client.metrics_core import Metric

from sessiond.domain.errors import Unavailable
from sessiond.domain.event import EventType
from sessiond.domain.judge import Verdict
from sessiond.domain.key_ring import in_use
from sessiond.domain.values import SessionId
from sessiond.metrics.families import counter, gauge, histogram
from sessiond.metrics.watched import Watched
from sessiond.system.failures import failures

__all__ = ["AuthorityMetrics"]

_STORE_SECONDS = 2.0
"""How long the store may take to answer."""
_LOOK_EVERY, _MEASURE_EVERY = 1.0, 60.0
"""Seconds."""
_NOBODY = SessionId(bytes(16))


class AuthorityMetrics:
    """What an authority counts; see `Source`. `look` asks what must be waited for, and comes first."""

    def __init__(self, watched: Watched, clock: Callable[[], float] = monotonic) -> None:
        """`clock` returns seconds, and never goes backwards."""
        self._watched = watched
        self._clock = clock
        self._is_store_up = False
        self._store_bytes: int | None = None
        self._looked = self._measured = -_MEASURE_EVERY
        self._looking: asyncio.Task[None] | None = None
        self._measuring: asyncio.Task[None] | None = None

    async def look(self) -> None:
        """Find out whether the store answers, at most once a second, whoever asks how often. Never raises.

        Once a minute the store is also asked for its size, which nobody waits for: a large database takes long.
        """
        now = self._clock()
        if self._looking is None or (self._looking.done() and now - self._looked >= _LOOK_EVERY):
            self._looked = now
            self._looking = asyncio.create_task(self._look(), name="metrics: store")
        if now - self._measured >= _MEASURE_EVERY and (self._measuring is None or self._measuring.done()):
            self._measured = now
            self._measuring = asyncio.create_task(self._measure(), name="metrics: size")
        await asyncio.shield(self._looking)

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(_STORE_SECONDS):
                await self._watched.authority.parts.store.session(_NOBODY)
        except (Unavailable, TimeoutError):
            self._is_store_up = False
        else:
            self._is_store_up = True

    async def _measure(self) -> None:
        try:
            self._store_bytes = await self._watched.authority.parts.store.size()
        except (Unavailable, OSError):
            self._store_bytes = None
            self._measured = -_MEASURE_EVERY  # the next one who asks tries again

    def families(self) -> Iterator[Metric]:
        """Yield the metrics as they are now."""
        yield from self._validations()
        yield from self._memory()
        yield from self._log()
        yield from self._upkeep()
        yield from self._access()

    def _validations(self) -> Iterator[Metric]:
        watched = self._watched
        applications = watched.authority.parts.policies
        # Zeros too: Prometheus sees no increase in a series that begins with its first event.
        verdicts = {(app, verdict.value): 0 for app in applications for verdict in Verdict}
        for (app, verdict), count in watched.authority.validation.verdicts.items():
            verdicts[app, verdict.value] = count
        text = "Tokens that this server validated. Answers from near caches, sidecars and workers are not counted."
        yield counter("sessiond_validations", text, verdicts.items(), ("application", "verdict"))
        events = {(app, kind.value): 0 for app in applications for kind in EventType}
        for (app, kind), count in watched.events.events.items():
            events[app, kind.value] = count
        text = "Committed events since the start of this server. Every replica counts those of all replicas."
        yield counter("sessiond_events", text, events.items(), ("application", "type"))
        signals = {
            (app, kind.value, "" if reaction is None else reaction.value): count
            for (app, kind, reaction), count in watched.events.signals.items()
        }
        text = "Signals in HIJACK_SUSPECTED events, by reaction. Every replica counts those of all replicas."
        yield counter("sessiond_signals", text, signals.items(), ("application", "signal", "reaction"))
        locked = watched.authority.parts.gate.locked_sources()
        locks = [((app,), locked.get(app, 0)) for app in applications]
        text = "Sources that are locked now because they guessed tokens."
        yield gauge("sessiond_locked_sources", text, locks, ("application",))

    def _memory(self) -> Iterator[Metric]:
        parts = self._watched.authority.parts
        yield gauge("sessiond_cached_sessions", "Sessions in memory.", len(parts.cache))
        text = "Sessions read from the store, because memory did not have them or might have been outdated."
        yield counter("sessiond_cache_reads", text, parts.cache.reads)
        text = "1: tokens are validated from memory; 0: this replica has no lease, so it reads sessions from the store."
        yield gauge("sessiond_memory_open", text, parts.cache.is_open)
        if parts.follower is not None:
            text = "For how much longer this replica may validate from memory if it cannot renew its lease."
            yield gauge("sessiond_lease_seconds", text, parts.follower.lease_left / 1000)
            text = "Whether this replica does the work of the sweeper for all."
            yield gauge("sessiond_replica_leads", text, parts.follower.leads)
        text = "Sidecars and near caches that follow this server."
        yield gauge("sessiond_following_caches", text, len(parts.caches))

    def _log(self) -> Iterator[Metric]:
        parts = self._watched.authority.parts
        yield gauge("sessiond_revision", "The newest revision that this server has published.", parts.feed.revision)
        yield histogram("sessiond_commit_units", "How many changes each commit contained.", parts.journal.units)
        yield histogram("sessiond_commit_seconds", "How long the store took for a commit.", parts.journal.seconds)
        text = "Commits that failed, or whose outcome is unknown."
        yield counter("sessiond_commit_failures", text, parts.journal.failures)
        lags = parts.feed.lags()
        text = "Subscribers and following caches."
        yield gauge("sessiond_feed_subscribers", text, [((who,), len(one)) for who, one in lags.items()], ("caller",))
        text = "How many events the slowest subscriber of a caller is behind."
        yield gauge("sessiond_feed_lag_events", text, [((who,), max(one)) for who, one in lags.items()], ("caller",))

    def _upkeep(self) -> Iterator[Metric]:
        sweeper, size = self._watched.sweeper, self._store_bytes
        rounds = [((outcome,), count) for outcome, count in sweeper.rounds.items()]
        yield counter("sessiond_sweeper_rounds", "Rounds of the sweeper, by how they ended.", rounds, ("outcome",))
        text = "When the last round with the outcome done ended."
        yield gauge("sessiond_sweeper_done_timestamp_seconds", text, sweeper.done_at / 1000)
        swept = [(("expired",), sweeper.expired), (("deleted",), sweeper.pruned)]
        text = "Sessions whose expiry the sweeper has recorded, or that it has deleted."
        yield counter("sessiond_swept_sessions", text, swept, ("what",))
        yield gauge("sessiond_store_up", "Whether the store answers a read within two seconds.", self._is_store_up)
        yield counter("sessiond_failures", "Unexpected errors in sessiond itself.", failures())
        if size is not None:
            text = "The size of the SQLite files, or of the whole Postgres database."
            yield gauge("sessiond_store_bytes", text, size)

    def _access(self) -> Iterator[Metric]:
        watched = self._watched
        refused = {(setting,): count for setting, count in watched.limits.totals.items()}
        yield counter("sessiond_limited_calls", "Calls refused because of a limit.", refused.items(), ("setting",))
        text = "Audit lines that could not be written to their file."
        yield counter("sessiond_audit_lines_not_written", text, watched.audit.not_written)
        states = Counter((key.state.value,) for key in in_use(watched.keeper.records))
        yield gauge("sessiond_sealing_keys", "Keys of the ring, by state.", states.items(), ("state",))
        text = "Whether this server lacks a key of the key ring, so that it cannot validate some tokens."
        yield gauge("sessiond_key_missing", text, watched.keeper.lacks_keys)
