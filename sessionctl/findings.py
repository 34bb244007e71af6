"""What `doctor` finds: one fact, whether it is in order, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Finding", "State", "ok", "problem", "refused", "warning"]


class State(StrEnum):
    """How good a finding is."""

    OK = "ok"
    WARNING = "warning"
    """It works, and may not for long or not as safely as it should; or it could not be checked."""
    PROBLEM = "problem"
    """Something does not work, or will not after the next start."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding."""

    check: str
    """What was looked at: `clock`, `disk`, `folder` and so on."""
    state: State
    text: str
    remedy: str = ""
    """What to do; empty if nothing is to be done."""


def ok(check: str, text: str) -> Finding:
    """Something is in order."""
    return Finding(check, State.OK, text)


def warning(check: str, text: str, remedy: str) -> Finding:
    """Something should be looked at."""
    return Finding(check, State.WARNING, text, remedy)


def problem(check: str, text: str, remedy: str) -> Finding:
    """Something must be done."""
    return Finding(check, State.PROBLEM, text, remedy)


def refused(check: str, said: str) -> Finding:
    """The problem in a text of the server, whose first sentence, or what is before a semicolon, is the fact."""
    ends = [place for mark in ("; ", ". ") if (place := said.find(mark)) > 0]
    if not ends:
        return problem(check, said, "correct that, and run this again")
    return problem(check, said[: min(ends)], said[min(ends) + 2 :])
