"""Lengths of time as the configuration writes them: `30m`, `1h30m`.

The configuration's own code does the work. It is imported when it is needed: most commands have no use for it, and
should not wait for it.
"""

from __future__ import annotations

from datetime import timedelta

import click

__all__ = ["checked_span", "in_config_notation"]

_MILLISECOND = timedelta(milliseconds=1)


def in_config_notation(length: timedelta | None) -> str:
    """A length of time as the configuration takes it; `none` for no timeout."""
    from sessiond.config import format_duration
    from sessiond.domain.values import Millis

    return format_duration(None if length is None else Millis(length // _MILLISECOND))


def checked_span(context: click.Context, parameter: click.Parameter, value: str | None) -> timedelta | None:
    """An option that is a length of time."""
    from sessiond.config import parse_duration

    if value is None:
        return None
    try:
        return parse_duration(value) * _MILLISECOND
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from None
