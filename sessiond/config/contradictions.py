"""Settings of one policy that contradict each other."""

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
    """A key, the remedy, and the other key that it contradicts, if there is another one."""

    key: str
    remedy: str
    other: str = ""


def contradictions(application: str, policy: Policy) -> Iterator[Contradiction]:
    """Yield every contradiction in an application's policy."""
    if not _NAME.fullmatch(application):
        yield Contradiction(
            "preset",
            "the application's name must have 1 to 64 of a-z, 0-9, '.', '_' and '-', and begin with a-z or 0-9",
        )
    yield from _timeouts(policy)
    yield from _remembering(policy)
    yield from _cookie(policy)
    if policy.ticket_timeout > _LONGEST_TICKET:
        yield Contradiction("ticket_timeout", 'must be at most "1h"')
    guessing = policy.guessing
    if guessing.lock_after and guessing.alarm_after > guessing.lock_after:
        yield Contradiction(
            "guessing.alarm_after", "must not be more than lock_after, unless lock_after is 0", "guessing.lock_after"
        )


def _timeouts(policy: Policy) -> Iterator[Contradiction]:
    if policy.idle_timeout is None and policy.absolute_timeout is None:
        yield Contradiction(
            "absolute_timeout", 'must not be "none" if idle_timeout is "none": sessions would never expire'
        )
    if policy.absolute_timeout is not None:
        for key in ("idle_timeout", "renewal_timeout", "login_timeout"):
            value = getattr(policy, key)
            if value is not None and value > policy.absolute_timeout:
                yield Contradiction(key, "must not be longer than absolute_timeout", "absolute_timeout")
    if policy.renewal_timeout is not None and policy.renewal_overlap >= policy.renewal_timeout:
        # Otherwise a late response can put a token back that is no longer accepted: docs/model, SHORT_RENEWAL.
        yield Contradiction("renewal_overlap", "must be shorter than renewal_timeout", "renewal_timeout")


def _cookie(policy: Policy) -> Iterator[Contradiction]:
    """Yield cookie settings that browsers do not accept (RFC 6265bis; CHIPS). They report no error."""
    cookie = policy.cookie
    if cookie.secure:
        return
    if cookie.same_site == "None":
        yield Contradiction(
            "cookie.same_site",
            'must not be "None" if cookie.secure is false: browsers ignore such a cookie',
            "cookie.secure",
        )
    if cookie.partitioned:
        yield Contradiction(
            "cookie.partitioned",
            "must be false if cookie.secure is false: browsers ignore such a cookie",
            "cookie.secure",
        )


def _remembering(policy: Policy) -> Iterator[Contradiction]:
    idle, absolute = policy.remember_idle_timeout, policy.remember_absolute_timeout
    if idle is None:
        if absolute is not None:
            yield Contradiction(
                "remember_idle_timeout",
                "must be set if remember_absolute_timeout is set: without it no session is remembered",
                "remember_absolute_timeout",
            )
        return
    if absolute is None:
        yield Contradiction(
            "remember_absolute_timeout",
            "must be set if remember_idle_timeout is set: a remembered session must end at some time",
            "remember_idle_timeout",
        )
    elif absolute < idle:
        yield Contradiction(
            "remember_absolute_timeout", "must not be shorter than remember_idle_timeout", "remember_idle_timeout"
        )
    # An ordinary session without the timeout ends when the browser closes: there is nothing to compare with.
    for kind in ("idle_timeout", "absolute_timeout"):
        ordinary, remembered = getattr(policy, kind), getattr(policy, f"remember_{kind}")
        if ordinary is not None and remembered is not None and remembered < ordinary:
            yield Contradiction(f"remember_{kind}", f"must not be shorter than {kind}", kind)
