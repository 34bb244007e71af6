"""A second, simple authority: an independent implementation of design sections 3 and 4, without `sessiond.domain`.

It has no store, no cache and no clock of its own. If the design permits several outcomes (a crash may lose activity, by
less than the granularity), the model keeps the whole range until it sees the outcome.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf

VALID, UNKNOWN, REVOKED, INSUFFICIENT = "VALID", "UNKNOWN", "REVOKED", "INSUFFICIENT"
IDLE, ABSOLUTE = "EXPIRED_IDLE", "EXPIRED_ABSOLUTE"
REPLAYED, SUPERSEDED = "REPLAYED", "SUPERSEDED"
ALERT, STEP_UP, REVOKE_SESSION, REVOKE_SUBJECT = "alert", "step-up", "revoke-session", "revoke-subject"
REJECT, EVICT_OLDEST, EVICT_LEAST_RECENT, ASK = "reject", "evict-oldest", "evict-least-recent", "ask"
MOST_LABELS = 8


@dataclass(frozen=True)
class Rules:
    """An application's policy as an operator would set it. Times are in milliseconds.

    tolerance, lost     how long a rolled token is SUPERSEDED, and how long it may be due to a lost response
    on_replay           the reaction to a replay
    most, at_most       the session limit per subject (0: none), and what happens beyond it
    remember_*          for remembered sessions: both timeouts, and the level that theirs falls to
    kept, guests_kept   how long an ended session is kept, and an ended anonymous one
    """

    idle: int | None
    absolute: int | None
    renewal: int | None
    overlap: int
    tolerance: int
    refresh_extends: bool
    lost: int = 0
    on_replay: str = REVOKE_SESSION
    most: int = 0
    at_most: str = ""
    elevation: int = 60_000
    fold: int = 3_600_000
    login: int = 12_000
    remember_idle: int | None = None
    remember_absolute: int | None = None
    remember_level: int = 1
    kept: int = 10**10
    guests_kept: int = 10**10

    @property
    def granularity(self) -> int:
        """How far recorded activity may lag, in milliseconds: a twentieth of the idle timeout, at most 60 s."""
        return 60_000 if self.idle is None else max(1, min(self.idle // 20, 60_000))

    @property
    def login_kept(self) -> int:
        """How long the first response to a login is repeated, in milliseconds."""
        return max(self.tolerance, self.lost)


@dataclass(frozen=True)
class Times:
    """A session's own timeouts; None: the policy's."""

    idle: int | None = None
    absolute: int | None = None


@dataclass(frozen=True)
class Ticket:
    """The content of a token: its session, which of the session's secrets, and the generation."""

    session: int
    secret: int
    generation: int


@dataclass(frozen=True)
class Expected:
    """The expected result of presenting a token.

    hand_out   the generation of the token to return
    moves_on   this is the first use of the successor
    missed     it is an old token, possibly because of a lost response
    suspected  it raises the signal `token_replay`
    """

    verdict: str
    hand_out: int | None = None
    moves_on: bool = False
    missed: bool = False
    suspected: bool = False


class Record:
    """One session. Its last activity is between `active_from` and `active`, which differ only after a crash."""

    def __init__(
        self,
        application: str,
        rules: Rules,
        subject: str,
        now: int,
        *,
        level: int = 0,
        persistent: bool = False,
        login_page: bool = False,
        times: Times | None = None,
        labels: Mapping[str, str] | None = None,
        data: Mapping[str, bytes] | None = None,
    ) -> None:
        self.application = application
        self.rules = rules
        self.subject = subject
        self.level = level
        self.raised: tuple[int, int] | None = None  # its level, and when it ends
        self.persistent = persistent
        self.login_page = login_page
        self.times = self._bounded(times or Times())
        self.labels = dict(labels or {})
        self.data = dict(data or {})
        self.version = 1 if data else 0
        self.held = False
        self.old_token = False
        self.reported: int | None = None  # when a replay was last reported
        self.created = now
        self.generation = 0
        self.since = now
        self.secret = 0
        self.secrets = 1
        self.rolled: int | None = None
        self.rolled_at = 0
        self.ended: tuple[str, int] | None = None  # the verdict from then on, and its time
        self.purge_at: int | None = None
        self.pruned = False
        self.active_from = self.active = now
        self.absolute: int | None = None
        self.live_again(now)
        if login_page:
            self.absolute = now + rules.login if self.absolute is None else min(self.absolute, now + rules.login)

    # Timeouts

    @property
    def _policy_times(self) -> Times:
        if self.persistent:
            return Times(self.rules.remember_idle, self.rules.remember_absolute)
        return Times(self.rules.idle, self.rules.absolute)

    def _bounded(self, times: Times) -> Times:
        """Return the session's own timeout, but never longer than the policy's."""
        limit = self._policy_times
        return Times(_if_shorter(times.idle, limit.idle), _if_shorter(times.absolute, limit.absolute))

    @property
    def idle(self) -> int | None:
        """The effective idle timeout."""
        return self._policy_times.idle if self.times.idle is None else self.times.idle

    @property
    def whole(self) -> int | None:
        """The effective absolute timeout."""
        return self._policy_times.absolute if self.times.absolute is None else self.times.absolute

    @property
    def granularity(self) -> int:
        """How far recorded activity may lag, for the shorter idle timeout."""
        own = self.times.idle
        return self.rules.granularity if own is None else max(1, min(own // 20, self.rules.granularity))

    @property
    def idle_end(self) -> int | None:
        """When the session ends without further activity."""
        return None if self.idle is None else self.active + self.idle

    def be_active(self, now: int) -> None:
        """Record activity: the idle timeout restarts, and a level that has fallen becomes permanent."""
        self.level = self.own_level(now)
        self.active_from = self.active = now

    def live_again(self, now: int) -> None:
        """Restart the absolute timeout."""
        self.absolute = None if self.whole is None else now + self.whole

    def refresh(self, now: int, times: Times | None) -> None:
        """Refresh the session. With timeouts of its own, nothing may last longer than the policy allows."""
        if times is not None:
            self.times = self._bounded(times)
        self.be_active(now)
        if self.login_page:
            return
        if self.rules.refresh_extends:
            self.live_again(now)
        elif times is not None and self.whole is not None:
            left = self.absolute
            self.absolute = now + self.whole if left is None else min(left, now + self.whole)

    def standing(self, now: int) -> str:
        """Return VALID, or how the session has ended: by its first deadline, at the exact moment of the deadline."""
        if self.pruned:
            return UNKNOWN
        if self.ended is not None:
            return self.ended[0]
        idle, absolute = self.idle_end, self.absolute
        if idle is not None and now >= idle and (absolute is None or idle <= absolute):
            return IDLE
        return ABSOLUTE if absolute is not None and now >= absolute else VALID

    def ended_at(self, standing: str) -> int | None:
        """Return when the session ended, in any way."""
        if self.ended is not None:
            return self.ended[1]
        return self.idle_end if standing == IDLE else self.absolute

    def end(self, verdict: str, at: int | None) -> None:
        """Record the session's end, which is final and deletes its data."""
        assert at is not None
        assert self.ended is None
        self.ended = (verdict, at)
        self.purge_at = at + (self.rules.kept if self.subject else self.rules.guests_kept)
        self.data = {}

    # Tokens

    def expect(self, ticket: Ticket, now: int, *, lenient: bool = False) -> Expected:
        """Return the expected result of presenting a token of this session.

        `lenient` is for calls that an intruder may make as well: in them it has no effect that the session's own token
        is used after an old one was presented.
        """
        standing = self.standing(now)
        if standing != VALID:
            return Expected(standing)
        found = self._judge(ticket, now)
        if found.verdict == REPLAYED and not found.missed:
            return Expected(REPLAYED, suspected=True)
        if found.verdict != VALID:
            return found
        second = self.old_token and not lenient
        if second and self.rules.on_replay in (REVOKE_SESSION, REVOKE_SUBJECT):
            return Expected(REVOKED, suspected=True)
        if self.held or (second and self.rules.on_replay == STEP_UP):
            return Expected(INSUFFICIENT, suspected=second)
        return Expected(VALID, found.hand_out, found.moves_on, suspected=second)

    def _judge(self, ticket: Ticket, now: int) -> Expected:
        if ticket.secret == self.secret:
            if ticket.generation == self.generation:
                old = self.rules.renewal is not None and now - self.since >= self.rules.renewal
                return Expected(VALID, hand_out=self.generation + 1 if old else None)
            if ticket.generation == self.generation + 1:
                return Expected(VALID, moves_on=True)
            if ticket.generation == self.generation - 1 and now - self.since < self.rules.overlap:
                return Expected(VALID, hand_out=self.generation)
        elif ticket.secret == self.rolled:
            if now - self.rolled_at < self.rules.tolerance:
                return Expected(SUPERSEDED)
            unused = self.active <= self.rolled_at and ticket.generation >= self.generation - 2
            if self.subject and unused and now - self.rolled_at < self.rules.lost:
                return Expected(REPLAYED, missed=True)
        return Expected(REPLAYED)

    def move_on(self, now: int) -> None:
        """Record the first use of the successor."""
        self.generation += 1
        self.since = now

    def roll(self, now: int) -> None:
        """Replace the secret, and go to the next generation."""
        self.rolled, self.rolled_at = self.secret, now
        self.secret, self.secrets = self.secrets, self.secrets + 1
        self.move_on(now)
        self.be_active(now)

    # The level, and the clients

    def own_level(self, now: int) -> int:
        """Return the level without an elevation: that of a remembered session falls while the session is not used."""
        falls = self.persistent and self.rules.idle is not None and now - self.active >= self.rules.idle
        return min(self.level, self.rules.remember_level) if falls else self.level

    def level_at(self, now: int) -> int:
        """Return the effective level: an elevation ends by itself at its time."""
        return self.raised[0] if self.raised is not None and now < self.raised[1] else self.own_level(now)

    def bind(self, subject: str, level: int, now: int, *, persistent: bool, times: Times | None) -> None:
        """Record a login: an elevation ends, suspicions are cleared, and both timeouts restart."""
        self.persistent = persistent or self.persistent
        self.roll(now)
        self.subject, self.level, self.raised = subject, level, None
        self.login_page = False
        self.times = self._bounded(self.times if times is None else times)
        self.live_again(now)
        self._start_afresh()

    def elevate(self, level: int, now: int) -> None:
        """Record an elevation for a limited time."""
        self.roll(now)
        self.raised = (level, now + self.rules.elevation)
        self._start_afresh()

    def welcome(self, now: int) -> bool:
        """Record that the subject has logged in again with the old token; return whether that changes anything."""
        starts_again = self.old_token or (self.rolled is not None and now >= self.late_from)
        self.old_token = False
        if starts_again:
            self.rolled_at = now
        return starts_again

    @property
    def late_from(self) -> float:
        """When a repeated login is late: a fifth of the tolerance after the roll, and never without a tolerance."""
        return self.rolled_at + self.rules.tolerance / 5 if self.rules.tolerance else inf

    def _start_afresh(self) -> None:
        self.held, self.old_token, self.reported = False, False, None

    def reports(self, now: int) -> bool:
        """Return whether a replay is reported now: a repeat that changes nothing is folded into the earlier report."""
        holds = self.rules.on_replay == STEP_UP and not self.held
        changes = holds or self.rules.on_replay in (REVOKE_SESSION, REVOKE_SUBJECT)
        if not changes and self.reported is not None and now - self.reported < self.rules.fold:
            return False
        self.reported = now
        self.held = self.held or holds
        return True

    # What is lost with the process

    def crash(self) -> None:
        """Record a crash: what is only in memory is lost, which is less activity than the granularity."""
        if self.ended is None:
            self.active_from = self.active - (self.granularity - 1)

    def see_activity(self, at: int) -> None:
        """Check that the last activity is within the range that the model allows, and adopt it."""
        assert self.active_from <= at <= self.active, f"active at {at}, not {self.active_from} to {self.active}"
        self.active_from = self.active = at

    def edges(self) -> Iterator[int]:
        """Return the moments at which a response changes."""
        yield from self.edges_of_the_token_in_use()
        yield self.since + self.rules.overlap
        if self.rolled is not None:
            yield self.rolled_at + self.rules.tolerance
            yield self.rolled_at + self.rules.tolerance // 5
            yield self.rolled_at + self.rules.lost
        if self.purge_at is not None:
            yield self.purge_at

    def edges_of_the_token_in_use(self) -> Iterator[int]:
        """Return the moments at which the response to the current token changes."""
        for edge in (self.idle_end, self.absolute):
            if edge is not None:
                yield edge
        if self.raised is not None:
            yield self.raised[1]
        if self.persistent and self.rules.idle is not None:
            yield self.active + self.rules.idle
        if self.rules.renewal is not None:
            yield self.since + self.rules.renewal


def _if_shorter(own: int | None, limit: int | None) -> int | None:
    return None if own is None or (limit is not None and own >= limit) else own
