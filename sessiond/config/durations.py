"""Durations in the form that people write, such as `1h30m`."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

from sessiond.domain.values import Millis

__all__ = ["Duration", "DurationOrZero", "Timeout", "format_duration", "parse_duration"]

_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"(?:[0-9]{1,30}(?:ms|s|m|h|d))+")
_PART = re.compile(r"([0-9]+)(ms|s|m|h|d)")
_LONGEST = 3650 * _UNITS["d"]


def parse_duration(text: Any) -> Millis:
    """Return a duration such as `30m`, `1h30m` or `250ms` in milliseconds. Raises ValueError with the accepted form."""
    if not isinstance(text, str) or not _DURATION.fullmatch(text):
        raise ValueError('must be a duration such as "30s", "15m", "1h30m" or "30d"')
    millis = sum(int(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    if not 0 < millis <= _LONGEST:
        raise ValueError('must be longer than zero and at most "3650d"')
    return Millis(millis)


def format_duration(millis: Millis | None) -> str:
    """Return a duration in the form that `parse_duration` accepts, the largest unit first; `none` for no timeout."""
    if millis is None:
        return "none"
    text, rest = "", int(millis)
    for unit, size in sorted(_UNITS.items(), key=lambda item: -item[1]):
        count, rest = divmod(rest, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def _parse_timeout(text: Any) -> Millis | None:
    if text == "none":
        return None
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ValueError(f'{error}, or "none"') from error


def _parse_duration_or_zero(text: Any) -> Millis:
    if text == "0s":
        return Millis(0)
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ValueError(f'{error}, or "0s"') from error


Duration = Annotated[Millis, BeforeValidator(parse_duration)]
DurationOrZero = Annotated[Millis, BeforeValidator(_parse_duration_or_zero)]
Timeout = Annotated[Millis | None, BeforeValidator(_parse_timeout)]
