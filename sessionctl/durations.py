"""Durations in the notation of the configuration: `30m`, `1h30m`.

The configuration's own code reads and writes them. It is imported only when it is needed, so that commands that do not
use it start quickly.
"""

from __future__ import annotations

from datetime import timedelta

import click

__all__ = ["checked_span", "in_config_notation"]

_MILLISECOND = timedelta(milliseconds=1)


def in_config_notation(length: timedelta | None) -> str:
    """A duration as the configuration writes it; `none` for no timeout."""
    from sessiond.config import format_duration
    from sessiond.domain.values import Millis

    return format_duration(None if length is None else Millis(length // _MILLISECOND))


def checked_span(context: click.Context, parameter: click.Parameter, value: str | None) -> timedelta | None:
    """The value of an option that is a duration. Raises click.BadParameter."""
    if value is None:
        return None
    from sessiond.config import parse_duration

    try:
        return parse_duration(value) * _MILLISECOND
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from None
