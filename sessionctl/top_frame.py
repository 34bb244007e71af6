"""One frame of `top` for people: lines that fit the screen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from sessionctl.output import printable, when
from sessionctl.screen import clipped, columns_of, rfc3339, screen
from sessionctl.settings import settings
from sessionctl.tables import Cell, Column, Row, Table
from sessionctl.top_state import ALARMS, Activity, Frame
from sessionctl.views import LOCKS, event_row, lock_row

if TYPE_CHECKING:
    from sessiond_client import Authority, Event

__all__ = ["Look", "frame_lines"]

_APPLICATIONS = (
    Column("APPLICATION", cut=True),
    Column("LIVE"),
    Column("CREATED/S"),
    Column("LOGINS/S"),
    Column("RENEWED/S"),
    Column("ENDED/S"),
    Column("ALARMS"),
)
_ALARM_COLUMNS = (
    Column("SUBJECT", cut=True, least=14),
    Column("ALARM"),
    Column("TIME"),
    Column("APPLICATION", cut=True, rank=1),
    Column("DETAIL", cut=True, least=24),
)
_ALARM_CELLS = (0, 1, 2, 4, 7)
"""The places of these columns in a row of an event."""
_KEYS = "q quit   p pause   a application   h help"
_HELP = (
    "q  quit, as Ctrl-C does",
    "p  pause, and continue: the frame stays, and nothing is lost",
    "a  show the next application only, and then all of them again",
    "h  leave this page, or show it again",
    "",
    "LIVE       live sessions; 10,000+ means that no more were counted",
    "CREATED/S  events a second since the previous frame; LOGINS/S and the others too",
    "ALARMS     suspected hijacks and guesses, and locks, since this command started",
    "changes/s  all revisions of the log a second, also those that are not shown",
)
_LEAST_TITLE = 20
"""If the name of the server had fewer columns, it would be shown alone, or the word `paused` alone."""


class Look(NamedTuple):
    """What the operator has chosen to see."""

    target: str
    application: str = ""
    """Empty: all."""
    seconds: float = 2.0
    """Between two frames."""
    paused: bool = False
    helping: bool = False
    keys: bool = False
    """Whether the last line names the keys; then the frame fills the screen, and is not higher than it."""


def frame_lines(frame: Frame, look: Look) -> list[list[Cell]]:
    """The lines of a frame, each as parts with their styles. None is wider than the screen, unless output is `wide`."""
    head = _head(frame, look)
    if look.helping:
        body: list[list[Cell]] = [[], *([(_cut(line), "")] for line in _HELP)]
    elif look.keys:
        body = _tables(frame, max(0, screen().height - len(head) - 1))
    else:
        body = _tables(frame, None)
    if not look.keys:
        return [*head, *body]
    room = screen().height - 1
    lines = [*head, *body][:room]
    return [*lines, *([] for _ in range(room - len(lines))), [(_cut(_KEYS), "dim")]]


def _head(frame: Frame, look: Look) -> list[list[Cell]]:
    """The server, its position, and what is wrong."""
    version = "" if frame.authority is None else f" {frame.authority.version}"
    which = f"application {look.application}" if look.application else "all applications"
    left = printable(f"sessiond{version}, {which}, at {look.target}")
    time = rfc3339(frame.time) if settings().wide else rfc3339(frame.time).partition("T")[2]
    right = f"paused at {time}" if look.paused else time
    lines: list[list[Cell]] = [_title(left, right, "yellow" if look.paused else "")]
    if frame.unreachable_since is not None:
        since = f"not reachable since {rfc3339(frame.unreachable_since)}: {frame.reason}"
        lines.append([(_cut(printable(since)), "bold red")])
    if frame.authority is not None:
        lines.append([(_cut(_position(frame.authority, frame.changes_per_second)), "")])
        lines += [
            [(_cut(printable(f"other policies at {name}; see `sessionctl reload`")), "yellow")]
            for name in frame.authority.replicas_with_other_policies
        ]
    if frame.restart_time is not None:
        lines.append([(_cut(f"the event log began a new incarnation {when(frame.restart_time)}"), "yellow")])
    lines += [[(_cut(printable(f"no {note}")), "yellow")] for note in frame.notes]
    return lines


def _title(left: str, right: str, style: str) -> list[Cell]:
    """The two texts at the ends of a line, or as much of them as there is room for."""
    if settings().wide:
        return [(f"{left}  ", "bold"), (right, style)]
    room = screen().width - columns_of(right) - 2
    if room < _LEAST_TITLE:
        return [(_cut(right if style else left), style or "bold")]
    left = clipped(left, room)
    return [(left, "bold"), (" " * (room + 2 - columns_of(left)), ""), (right, style)]


def _position(authority: Authority, changes: float | None) -> str:
    parts = [f"revision {authority.revision:,}", f"{_rate(changes)} changes/s"]
    parts += [f"horizon {authority.horizon:,}", f"incarnation {authority.incarnation[:8]}"]
    parts.append(f"authority {authority.authority_id}")
    return printable(", ".join(parts))


def _tables(frame: Frame, room: int | None) -> list[list[Cell]]:
    """The tables that have rows, each after an empty line, in at most `room` lines; None: as many as it takes."""
    tables = [
        (_APPLICATIONS, _applications(frame.applications)),
        (_ALARM_COLUMNS, [_alarm_row(event) for event in frame.alarms]),
        (LOCKS, [lock_row(lock) for lock in frame.locks]),
    ]
    filled = [(columns, rows) for columns, rows in tables if rows]
    lines: list[list[Cell]] = []
    left = room
    for number, (columns, rows) in enumerate(filled):
        table = Table.for_rows(columns, rows)
        count = (
            len(rows) if left is None else _share(len(rows), left, [len(other) for _, other in filled[number + 1 :]])
        )
        if count < 1:
            break
        part = [[], table.header_parts(), *map(table.parts, rows[:count])]
        if count < len(rows):
            part[-1] = [(_cut(f"... and {len(rows) - count + 1} more"), "dim")]
        lines += part
        left = None if left is None else left - len(part)
    return lines


def _share(wanted: int, left: int, others: Sequence[int]) -> int:
    """How many rows a table gets of the lines that are left, so that the tables below it have their share too."""
    titles = 2  # an empty line and the header
    rows = left - titles * (1 + len(others))
    reserved = sum(min(other, max(1, rows // (1 + len(others)))) for other in others)
    return min(wanted, rows - reserved)


def _applications(activities: Sequence[Activity]) -> list[Row]:
    rows = [_activity_row(one) for one in sorted(activities, key=_busyness)]
    return [_total_row(activities), *rows] if len(rows) > 1 else rows


def _busyness(one: Activity) -> tuple[float, int, str]:
    """The key that sorts the busiest applications to the top."""
    return -sum((one.rates or {}).values()), -(one.live or 0), one.application


def _activity_row(one: Activity) -> Row:
    alarms = sum(one.totals.get(kind, 0) for kind in ALARMS)
    return (
        (one.application, "bold"),
        ("-" if one.live is None else f"{one.live:,}{'' if one.is_complete else '+'}", ""),
        *((_rate(None if one.rates is None else _sum(one, kinds)), "") for kinds in _RATES),
        (f"{alarms:,}" if one.rates is not None or alarms else "-", "bold red" if alarms else ""),
    )


_RATES = (
    ("SESSION_CREATED",),
    ("SESSION_AUTHENTICATED",),
    ("SESSION_RENEWED",),
    ("SESSION_EXPIRED", "SESSION_REVOKED"),
)


def _sum(one: Activity, kinds: Sequence[str]) -> float:
    return sum((one.rates or {}).get(kind, 0.0) for kind in kinds)


def _total_row(activities: Sequence[Activity]) -> Row:
    counted = [one.live for one in activities if one.live is not None]
    rates: Counter[str] = Counter()
    totals: Counter[str] = Counter()
    for one in activities:
        rates.update(one.rates or {})
        totals.update(one.totals)
    return _activity_row(
        Activity(
            application="(all)",
            live=sum(counted) if counted else None,
            is_complete=len(counted) == len(activities) and all(one.is_complete for one in activities),
            rates=rates if any(one.rates is not None for one in activities) else None,
            totals=totals,
        )
    )


def _alarm_row(event: Event) -> Row:
    row = event_row(event)
    return tuple(row[index] for index in _ALARM_CELLS)


def _rate(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _cut(text: str) -> str:
    return text if settings().wide else clipped(text, screen().width)
