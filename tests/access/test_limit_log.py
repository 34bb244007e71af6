"""The log of limits that were reached: once for each caller and minute, with the number of refused calls."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from sessiond.access.limit_log import LimitLog


class Later:
    """Keeps what is scheduled."""

    def __init__(self) -> None:
        self.scheduled: list[tuple[float, Callable[[], None]]] = []

    def __call__(self, seconds: float, what: Callable[[], None]) -> None:
        """Schedule."""
        self.scheduled.append((seconds, what))

    def run(self) -> float:
        """Run what was scheduled; return after how many seconds."""
        seconds, what = self.scheduled.pop()
        assert not self.scheduled
        what()
        return seconds


def test_one_line_for_each_caller_and_minute() -> None:
    """The first refusal of a caller is logged at once, the number of all of them after a minute, and nothing else."""
    later = Later()
    log = LimitLog(later)
    with structlog.testing.capture_logs() as lines:
        for _ in range(1_000):
            log.refused('caller "shop"', "limits.rate_per_caller")
        log.refused('caller "desk"', "limits.rate_per_caller")
        assert [line["caller"] for line in lines] == ['caller "shop"', 'caller "desk"']
        assert {line["event"] for line in lines} == {"limit reached"}
        assert later.run() == 60
    (last,) = lines[2:]
    assert (last["caller"], last["refused"], last["setting"]) == ('caller "shop"', 1_000, "limits.rate_per_caller")
    with structlog.testing.capture_logs() as lines:
        log.refused('caller "shop"', "limits.rate_per_caller")
        later.run()
    assert [line["event"] for line in lines] == ["limit reached"]


def test_many_connections() -> None:
    """Of more than sixty callers in a minute, the others have one line together."""
    later = Later()
    log = LimitLog(later)
    with structlog.testing.capture_logs() as lines:
        for number in range(1_000):
            log.refused(f"the connection {number}", "limits.max_calls_per_caller")
        later.run()
    assert len(lines) == 61
    assert (lines[-1]["caller"], lines[-1]["refused"]) == ("others", 940)
