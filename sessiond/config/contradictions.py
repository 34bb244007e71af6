"""What no single key shows: settings of one policy that cannot hold together."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from sessiond.config.durations import parse_duration
from sessiond.domain.policy import Policy

__all__ = ["Contradiction", "contradictions"]

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_LONGEST_TICKET = parse_duration("1h")


class Contradiction(NamedTuple):
    """A key, what would be right, and the other key that is part of it, if there is one."""

    key: str
    remedy: str
    other: str = ""


def contradictions(application: str, policy: Policy) -> Iterator[Contradiction]:
    """Everything that is wrong with an application's policy as a whole."""
    if not _NAME.fullmatch(application):
        yield Contradiction("preset", "an application's name has 1 to 64 of a-z, 0-9, '.', '_' and '-'")
    yield from _timeouts(policy)
    yield from _remembering(policy)
    yield from _cookie(policy)
    if policy.ticket_timeout > _LONGEST_TICKET:
        yield Contradiction("ticket_timeout", 'must be at most "1h"')
    guessing = policy.guessing
    if guessing.lock_after and guessing.alarm_after > guessing.lock_after:
        yield Contradiction(
            "guessing.alarm_after", "must not be more than lock_after, unless that is 0", "guessing.lock_after"
        )


def _timeouts(policy: Policy) -> Iterator[Contradiction]:
    if policy.idle_timeout is None and policy.absolute_timeout is None:
        yield Contradiction("absolute_timeout", "without an idle timeout there must be an absolute one")
    if policy.absolute_timeout is not None:
        for key in ("idle_timeout", "renewal_timeout", "login_timeout"):
            value = getattr(policy, key)
            if value is not None and value > policy.absolute_timeout:
                yield Contradiction(key, "must not be longer than absolute_timeout", "absolute_timeout")
    if policy.renewal_timeout is not None and policy.renewal_overlap > policy.renewal_timeout:
        yield Contradiction("renewal_overlap", "must not be longer than renewal_timeout", "renewal_timeout")


def _cookie(policy: Policy) -> Iterator[Contradiction]:
    """Browsers drop such cookies without a word (RFC 6265bis; CHIPS)."""
    cookie = policy.cookie
    if cookie.secure:
        return
    if cookie.same_site == "None":
        yield Contradiction("cookie.same_site", 'must not be "None" unless cookie.secure is on', "cookie.secure")
    if cookie.partitioned:
        yield Contradiction("cookie.partitioned", "must be off unless cookie.secure is on", "cookie.secure")


def _remembering(policy: Policy) -> Iterator[Contradiction]:
    idle, absolute = policy.remember_idle_timeout, policy.remember_absolute_timeout
    if idle is None:
        if absolute is not None:
            yield Contradiction(
                "remember_idle_timeout",
                "must be set where remember_absolute_timeout is: without it sessions cannot be remembered",
                "remember_absolute_timeout",
            )
        return
    if absolute is None:
        yield Contradiction(
            "remember_absolute_timeout",
            "must be set where remember_idle_timeout is: a remembered session ends some day",
            "remember_idle_timeout",
        )
    elif absolute < idle:
        yield Contradiction(
            "remember_absolute_timeout", "must not be shorter than remember_idle_timeout", "remember_idle_timeout"
        )
    # An ordinary session without the timeout ends with the browser, so there is nothing to compare with.
    for kind in ("idle_timeout", "absolute_timeout"):
        ordinary, remembered = getattr(policy, kind), getattr(policy, f"remember_{kind}")
        if ordinary is not None and remembered is not None and remembered < ordinary:
            yield Contradiction(f"remember_{kind}", f"must not be shorter than {kind}", kind)
