"""What is wrong with a value or a key, in words."""

from __future__ import annotations

import re
from typing import Any

from sessiond.config.near import must_be_one_of, nearest
from sessiond.config.sections import SECTIONS
from sessiond.domain.signals import SignalType

__all__ = ["path_of", "remedy_for"]

_OF_NAMES = (("applications",), ("sockets",), ("limits", "callers"))
"""The tables whose keys are names."""
_ALMOST_THE_SAME = 0.8
_DOCUMENTED = "see docs/reference/configuration.md"
_WRONG_KEY = "[key]"
"""What pydantic appends to the path of a key of a mapping if the key itself is wrong."""


def path_of(detail: Any) -> tuple[str, ...]:
    """Return the path of the key that a pydantic error is about."""
    path = tuple(str(part) for part in detail["loc"])
    return path[:-1] if path[-1] == _WRONG_KEY else path


def remedy_for(detail: Any) -> str:
    """Return what is wrong in a pydantic error, or what would be right."""
    limits = detail.get("ctx", {})
    if detail["loc"][-1] == _WRONG_KEY and detail["loc"][0] == "applications":
        return _unknown_signal(path_of(detail)[-1])
    match detail["type"]:
        case "extra_forbidden":
            return _unknown_key(path_of(detail), is_table=isinstance(detail["input"], dict))
        case "model_type" | "dict_type":
            return "must be a table"
        case "missing":
            return "must be set"
        case "int_type":
            return "must be a whole number"
        case "bool_type":
            return "must be true or false"
        case "string_type":
            return "must be a string"
        case "list_type":
            return "must be a list"
        case "greater_than_equal":
            return f"must be at least {limits['ge']}"
        case "less_than_equal":
            return f"must be at most {limits['le']}"
        case "too_short":
            return f"must have at least {limits['min_length']} {_entries(limits['min_length'])}"
        case "too_long":
            return f"must have at most {limits['max_length']} {_entries(limits['max_length'])}"
        case "literal_error":
            return must_be_one_of(re.findall(r"'([^']*)'", limits["expected"]), detail["input"])
        case _:
            return str(detail["msg"]).removeprefix("Value error, ")


def _entries(count: int) -> str:
    return "entry" if count == 1 else "entries"


def _unknown_key(path: tuple[str, ...], *, is_table: bool) -> str:
    """Return the remedy for a key that does not exist, with the key that was probably meant."""
    *outer, name = path
    section = tuple("NAME" if tuple(outer[:position]) in _OF_NAMES else part for position, part in enumerate(outer))
    here = SECTIONS[section].model_fields
    elsewhere = [".".join((*other, name)) for other, model in SECTIONS.items() if name in model.model_fields]
    meant = nearest(name, here, similarity=_ALMOST_THE_SAME) or (elsewhere[0] if elsewhere else nearest(name, here))
    problem = "no such section" if is_table and not outer else "no such key"
    return f"{problem}; did you mean '{meant}'?" if meant else f"{problem}; {_DOCUMENTED}"


def _unknown_signal(name: str) -> str:
    """Return the remedy for a key of `reactions` that is no signal."""
    meant = nearest(name, list(SignalType))
    return f"no such key; did you mean '{meant}'?" if meant else f"no such key; the keys are {', '.join(SignalType)}"
