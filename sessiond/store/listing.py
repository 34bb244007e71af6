"""From a query for sessions to the statement that lists them, shared by every engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sessiond.domain.immutable import immutable
from sessiond.domain.query import SessionQuery
from sessiond.domain.session import SessionState
from sessiond.domain.values import CauseKind

__all__ = ["LABEL_CONDITION", "STATE_CONDITIONS", "Listing", "listing", "walk_end"]

_LAST_ID = b"\xff" * 17
_EXPIRED_KINDS = ", ".join(
    f"'{kind.value}'" for kind in (CauseKind.IDLE_TIMEOUT, CauseKind.ABSOLUTE_TIMEOUT, CauseKind.LOGIN_TIMEOUT)
)
STATE_CONDITIONS = {
    SessionState.ACTIVE: "ended_at IS NULL AND (due_at IS NULL OR due_at > :due_after)",
    SessionState.EXPIRED: f"((ended_at IS NULL AND due_at <= :now) OR end_kind IN ({_EXPIRED_KINDS}))",
    SessionState.REVOKED: f"ended_at IS NOT NULL AND end_kind NOT IN ({_EXPIRED_KINDS})",
}
LABEL_CONDITION = (
    "session_id IN (SELECT session_id FROM session_labels "
    "WHERE log = 0 AND application = :application AND key = :label_key_{letter} AND value = :label_value_{letter}"
    "{window})"
)
_LETTERS = "abcdefgh"


@immutable
class Listing:
    """A statement that lists sessions: its name in `queries.sql`, its conditions, and the values of its parameters."""

    name: str
    conditions: str
    values: Mapping[str, Any]


def listing(query: SessionQuery) -> Listing:
    """Return the statement for one page of sessions."""
    conditions = [STATE_CONDITIONS[query.state]]
    values: dict[str, Any] = {
        "application": query.application,
        "now": query.now,
        "due_after": query.now - query.activity_lag,
        "limit": query.limit,
    }
    if query.subject is not None:
        conditions.append("subject = :subject")
        values["subject"] = query.subject
    if query.ip_range is not None:
        conditions.append("ip_key BETWEEN :ip_first AND :ip_last")
        values["ip_first"], values["ip_last"] = query.ip_range
    if query.created_from is not None:
        conditions.append("created_at >= :created_from")
        values["created_from"] = query.created_from
    if query.created_until is not None:
        conditions.append("created_at < :created_until")
        values["created_until"] = query.created_until
    window = []
    if query.before is not None:
        window.append("session_id < :before")
        values["before"] = bytes(query.before)
    if query.down_to is not None:
        window.append("session_id >= :down_to")
        values["down_to"] = bytes(query.down_to)
    conditions += window
    within = "".join(f" AND {bound}" for bound in window)
    for letter, (key, value) in zip(_LETTERS, query.labels, strict=False):
        conditions.append(LABEL_CONDITION.format(letter=letter, window=within))
        values |= {f"label_key_{letter}": key, f"label_value_{letter}": value}
    walks = query.down_to is not None and query.state is not SessionState.ACTIVE
    return Listing("walk_sessions" if walks else "list_sessions", " AND ".join(conditions), values)


def walk_end(query: SessionQuery, rows: int) -> Listing:
    """Return the statement for the last id of a scan of that many rows."""
    name = "walk_end_of_live" if query.state is SessionState.ACTIVE else "walk_end_of_all"
    before = _LAST_ID if query.before is None else bytes(query.before)
    return Listing(name, "", {"application": query.application, "before": before, "rows": rows})
