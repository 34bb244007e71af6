"""A second, simple authority: what design sections 3 and 4 say, written down without a look at `sessiond.domain`.

It knows no store, no cache and no clock of its own. Where the design leaves the authority a choice (a crash may end a
session early by at most the touch granularity) the model holds the whole range, and narrows it by what it sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

VALID, UNKNOWN, REVOKED = "VALID", "UNKNOWN", "REVOKED"
IDLE, ABSOLUTE = "EXPIRED_IDLE", "EXPIRED_ABSOLUTE"
REPLAYED, SUPERSEDED = "REPLAYED", "SUPERSEDED"
ALERT, REVOKE_SESSION, REVOKE_SUBJECT = "alert", "revoke-session", "revoke-subject"
REJECT, EVICT_OLDEST, ASK = "reject", "evict-oldest", "ask"


@dataclass(frozen=True)
class Rules:
    """An application's policy in milliseconds, as an operator would set it.

    `most` sessions a subject may have (0: any number), and `at_most` says what happens then.
    """

    idle: int | None
    absolute: int | None
    renewal: int | None
    overlap: int
    tolerance: int
    refresh_extends: bool
    on_replay: str = REVOKE_SESSION
    most: int = 0
    at_most: str = ""
    elevation: int = 60_000
    fold: int = 3_600_000

    @property
    def granularity(self) -> int:
        """How far recorded activity may lag: idle timeout / 20, 60 s at most."""
        return 0 if self.idle is None else min(self.idle // 20, 60_000)


@dataclass(frozen=True)
class Ticket:
    """What a token stands for: which session, which of its secrets, which generation."""

    session: int
    secret: int
    generation: int


@dataclass(frozen=True)
class Expected:
    """What a token that is proven good brings along: the generation to hand out, and whether it moves on to its own."""

    verdict: str
    hand_out: int | None = None
    moves_on: bool = False


class Record:
    """One session. The idle deadline lies between `idle_from` and `idle_to`, which differ only after a crash."""

    def __init__(self, application: str, rules: Rules, subject: str, now: int, level: int = 0) -> None:
        self.application = application
        self.rules = rules
        self.subject = subject
        self.level = level
        self.raised: tuple[int, int] | None = None  # to which level, until when
        self.told: int | None = None  # when a replay was last told of
        self.created = now
        self.generation = 0
        self.since = now
        self.secret = 0
        self.secrets = 1
        self.rolled: int | None = None
        self.rolled_at = 0
        self.revoked = False
        self.swept = False
        self.absolute = None if rules.absolute is None else now + rules.absolute
        self.idle_from: int | None = None
        self.idle_to: int | None = None
        self.active(now)

    def active(self, now: int) -> None:
        """Activity: the idle timeout starts again."""
        if self.rules.idle is not None:
            self.idle_from = self.idle_to = now + self.rules.idle

    def stop(self) -> None:
        """What was told of is remembered in memory alone."""
        self.told = None

    def crash(self) -> None:
        """What only memory knew is gone: the session may end early by at most the granularity."""
        self.stop()
        if self.swept or self.revoked or self.idle_from is None or self.idle_to is None:
            return
        if self.idle_from == self.idle_to:
            self.idle_from = self.idle_to - self.rules.granularity

    def standings(self, now: int) -> set[str]:
        """How the session may stand: one way, unless a crash left a choice."""
        if self.revoked:
            return {REVOKED}
        ways = set()
        for idle in (self.idle_from, self.idle_to):
            # The first deadline decides, and is over at the deadline itself.
            if idle is not None and now >= idle and (self.absolute is None or idle <= self.absolute):
                ways.add(IDLE)
            elif self.absolute is not None and now >= self.absolute:
                ways.add(ABSOLUTE)
            else:
                ways.add(VALID)
        return ways

    def seen(self, standing: str, now: int) -> None:
        """Narrow the range by how the session was seen to stand."""
        if self.idle_from is None or self.idle_to is None or self.revoked:
            return
        if standing == IDLE:
            self.idle_to = min(self.idle_to, now)
        elif standing == ABSOLUTE and self.absolute is not None:
            self.idle_from = max(self.idle_from, self.absolute + 1)
        elif standing == VALID:
            self.idle_from = max(self.idle_from, now + 1)

    def judge(self, ticket: Ticket, now: int) -> Expected:
        """What the token of a live session is worth."""
        if ticket.secret == self.secret:
            if ticket.generation == self.generation:
                old = self.rules.renewal is not None and now - self.since >= self.rules.renewal
                return Expected(VALID, hand_out=self.generation + 1 if old else None)
            if ticket.generation == self.generation + 1:
                return Expected(VALID, moves_on=True)
            if ticket.generation == self.generation - 1 and now - self.since < self.rules.overlap:
                return Expected(VALID, hand_out=self.generation)
        elif ticket.secret == self.rolled and now - self.rolled_at < self.rules.tolerance:
            return Expected(SUPERSEDED)
        return Expected(REPLAYED)

    def move_on(self, now: int) -> None:
        """The successor was used for the first time."""
        self.generation += 1
        self.since = now

    def roll(self, now: int) -> None:
        """A fresh secret and the next generation."""
        self.rolled, self.rolled_at = self.secret, now
        self.secret, self.secrets = self.secrets, self.secrets + 1
        self.move_on(now)
        self.active(now)

    def level_at(self, now: int) -> int:
        """The level that counts: an elevation falls back by itself, at its end."""
        return self.raised[0] if self.raised is not None and now < self.raised[1] else self.level

    def bind(self, subject: str, level: int) -> None:
        """Somebody has logged in: an elevation is over, and suspicion begins anew."""
        self.subject, self.level, self.raised, self.told = subject, level, None, None

    def elevate(self, level: int, now: int) -> None:
        """The level counts for a while."""
        self.raised, self.told = (level, now + self.rules.elevation), None

    def tells(self, now: int) -> bool:
        """Whether a replay is told of now: one that only alerts is folded into the one before."""
        if self.rules.on_replay == ALERT and self.told is not None and now - self.told < self.rules.fold:
            return False
        self.told = now
        return True

    def live_again(self, now: int) -> None:
        """The lifetime starts again."""
        self.absolute = None if self.rules.absolute is None else now + self.rules.absolute

    def edges(self) -> Iterator[int]:
        """The moments at which an answer changes."""
        for edge in (self.idle_from, self.idle_to, self.absolute):
            if edge is not None:
                yield edge
        if self.raised is not None:
            yield self.raised[1]
        if self.rules.renewal is not None:
            yield self.since + self.rules.renewal
        yield self.since + self.rules.overlap
        if self.rolled is not None:
            yield self.rolled_at + self.rules.tolerance
