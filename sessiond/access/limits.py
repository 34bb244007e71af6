"""Limits on calls: how many each caller, and all callers of one application, have under way and begin in a second.

A rate is kept as a time, in the manner of the generic cell rate algorithm (ITU-T I.371): each call moves the time until
which everything is paid by the cost of one call, and a call is refused if that time is further ahead than the burst
allows. So an account is a few numbers, and nothing has to run while no calls come.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from sessiond.access.limit_log import LimitLog
from sessiond.access.turns import Lane
from sessiond.domain.call import Caller
from sessiond.domain.call_limits import CallLimit, CallLimits
from sessiond.domain.errors import LimitReached, shown
from sessiond.domain.values import Millis

__all__ = ["Account", "CallLimiter"]

_SECOND, _MILLI = 1_000_000_000, 1_000_000
"""Nanoseconds. Whole numbers, because a sum of fractions would be off by a call now and then."""
_RETRY_CALLS = 200
"""Milliseconds after which a call beyond `max_calls` should be tried again. Nobody knows when another one ends."""
_LONGEST_PROMISE = 10 * _SECOND
"""Nanoseconds. Refused calls get times to try again one after the other, up to this time."""
_FEW_ACCOUNTS = 1_024
"""Accounts up to this number are kept although nothing is under way."""


class Account:
    """The calls of one caller, or about one application: those that are under way, and what their rate has used.

    `who` names it in the message of a refusal, and `settings` are the keys of its limits by kind. `lane` has the calls
    of a caller that wait for those of others.
    """

    __slots__ = (
        "_clock",
        "_cost",
        "_log",
        "_max_calls",
        "_paid_until",
        "_promised_until",
        "_rate",
        "_settings",
        "_slack",
        "in_flight",
        "lane",
        "who",
    )

    def __init__(self, who: str, clock: Callable[[], int], log: LimitLog) -> None:
        self.who = who
        self.in_flight = 0
        self.lane = Lane()
        self._clock = clock
        self._log = log
        self._cost = self._slack = self._paid_until = self._promised_until = 0

    def configure(self, limit: CallLimit, burst: Millis, settings: Mapping[str, str]) -> None:
        """Use these limits from now on. What the rate has used stays used, as a number of calls."""
        cost = _SECOND // limit.rate if limit.rate else 0
        now = self._clock()
        ahead = max(0, self._paid_until - now)
        self._paid_until = self._promised_until = now + (ahead * cost // self._cost if self._cost else 0)
        self._max_calls, self._rate, self._settings = limit.max_calls, limit.rate, settings
        # Not less than the rounding of the times to try again, or each call would make the next promise a little wrong.
        self._cost, self._slack = cost, max(_MILLI, burst * _MILLI - cost)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way, and the rate has nothing to remember."""
        return (
            not self.in_flight and not self.lane.waiting and not self.lane.in_work and self._paid_until <= self._clock()
        )

    def begin(self) -> None:
        """Note that a call begins. Raise `LimitReached` if it may not."""
        self.check()
        if self._cost:
            self.charge(1)
        self.in_flight += 1

    def take(self) -> None:
        """Count one request of a stream. Raise `LimitReached` if nothing may begin because of the rate."""
        if self._cost:
            self.check_rate()
            self.charge(1)

    def end(self) -> None:
        """Note that a call has ended."""
        self.in_flight -= 1

    def check(self) -> None:
        """Raise `LimitReached` if a call may not begin."""
        if self._max_calls and self.in_flight >= self._max_calls:
            raise self._refused(
                "max_calls", f"has {self.in_flight} calls under way, the most that it may have", _RETRY_CALLS
            )
        if self._cost:
            self.check_rate()

    def check_rate(self) -> None:
        """Raise `LimitReached` if nothing may begin because of the rate, which there must be."""
        now = self._clock()
        if self._paid_until - now > self._slack:
            # The calls that were refused before try again first.
            first = max(self._promised_until, self._paid_until)
            wait = first - self._slack - now
            if wait < _LONGEST_PROMISE:
                self._promised_until = first + self._cost
            # Rounded up, so that whoever waits that long does not come too early.
            raise self._refused("rate", f"makes more than {self._rate} calls a second", wait // _MILLI + 1)

    def charge(self, weight: int) -> None:
        """Count so many calls at the rate, more than it allows if need be: later ones then wait for it."""
        if weight > 0 and self._cost:
            now = self._clock()
            self._paid_until = (self._paid_until if self._paid_until > now else now) + weight * self._cost

    def _refused(self, kind: str, what: str, retry_after: int) -> LimitReached:
        setting = self._settings[kind]
        self._log.refused(self.who, setting)
        message = f"{self.who} {what} ({setting}); try again in {retry_after / 1000:g} s"
        return LimitReached(message, setting, retry_after)


class CallLimiter:
    """The accounts of all callers and applications. `clock` returns nanoseconds of a monotonic clock."""

    def __init__(
        self,
        limits: CallLimits | None = None,
        log: LimitLog | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._limits = limits or CallLimits()
        self._log = log or LimitLog()
        self._clock = clock
        self._callers: dict[str, Account] = {}
        self._applications: dict[str, Account] = {}
        self._most_accounts = _FEW_ACCOUNTS
        self.limits_applications = self._limits.application != CallLimit()
        """Whether there is a limit on the calls about an application."""

    def replace(self, limits: CallLimits) -> bool:
        """Use other limits from now on. Calls that are under way go on. Returns whether anything has changed."""
        if limits == self._limits:
            return False
        self._limits = limits
        self.limits_applications = limits.application != CallLimit()
        for name, account in self._callers.items():
            self._configure_caller(account, name)
        for account in self._applications.values():
            self._configure_application(account)
        return True

    def account(self, caller: Caller) -> Account:
        """Return the account of a caller. Without callers, each connection has one."""
        # No name of a caller is the address of a connection, which has a colon.
        name = caller.name if caller.version else caller.peer
        found = self._callers.get(name)
        return self._open_caller(name, is_connection=not caller.version) if found is None else found

    def begin(self, caller: Caller) -> Account:
        """Count a call of a caller until the `end` of its account. Raise `LimitReached` if it may not begin."""
        account = self.account(caller)
        account.begin()
        return account

    def check(self, application: str) -> None:
        """Raise `LimitReached` if no call about an application may begin."""
        if self.limits_applications:
            self._of_application(application).check()

    def charge(self, application: str) -> None:
        """Count a call about an application that is answered at once."""
        if self.limits_applications:
            self._of_application(application).charge(1)

    @contextmanager
    def about(self, applications: Mapping[str, int]) -> Iterator[None]:
        """Count a call about these applications, with its weight for each. Raise `LimitReached` if it may not begin."""
        accounts = [(self._of_application(name), weight) for name, weight in applications.items()]
        for account, _ in accounts:
            account.check()
        for account, weight in accounts:
            account.charge(weight)
            account.in_flight += 1
        try:
            yield
        finally:
            for account, _ in accounts:
                account.end()

    def _open_caller(self, name: str, *, is_connection: bool) -> Account:
        who = f"the connection {name}" if is_connection else f"caller {shown(name)}"
        account = self._opened(self._callers, name, who)
        self._configure_caller(account, name)
        return account

    def _of_application(self, name: str) -> Account:
        account = self._applications.get(name)
        if account is None:
            account = self._opened(self._applications, name, f"application {shown(name)}")
            self._configure_application(account)
        return account

    def _opened(self, accounts: dict[str, Account], name: str, who: str) -> Account:
        """Open an account. Whoever calls chooses the names, so idle accounts are dropped when there are many."""
        if len(accounts) >= self._most_accounts:
            for key in [key for key, account in accounts.items() if account.is_idle]:
                del accounts[key]
            self._most_accounts = max(_FEW_ACCOUNTS, 2 * len(accounts))
        account = accounts[name] = Account(who, self._clock, self._log)
        return account

    def _configure_caller(self, account: Account, name: str) -> None:
        settings = {kind: f"limits.{kind}_per_caller" for kind in ("max_calls", "rate")}
        if name in self._limits.callers:
            settings = {kind: f"limits.callers.{name}.{kind}" for kind in settings}
        account.configure(self._limits.of_caller(name), self._limits.burst, settings)

    def _configure_application(self, account: Account) -> None:
        settings = {kind: f"limits.{kind}_per_application" for kind in ("max_calls", "rate")}
        account.configure(self._limits.application, self._limits.burst, settings)
