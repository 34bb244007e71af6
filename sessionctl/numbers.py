"""Options whose values are numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import click

__all__ = ["checked_seconds", "whole_number"]

_Check = Callable[[click.Context, click.Parameter, str | None], int | None]


def whole_number(least: int, most: int | None = None) -> _Check:
    """The callback of an option for a whole number from `least` to `most`; without `most` there is no upper limit.

    It raises click.BadParameter that says which numbers are accepted.
    """
    accepted = f", {least} or more" if most is None else f" from {least} to {most}"

    def checked(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
        if value is None:
            return None
        try:
            number = int(value)
        except ValueError:
            number = least - 1
        if number < least or (most is not None and number > most):
            raise click.BadParameter(f"must be a whole number{accepted}, not '{value}'", context, parameter)
        return number

    return checked


def checked_seconds(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """The value of an option that is a number of seconds, more than 0. Raises click.BadParameter."""
    if value is None:
        return None
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise click.BadParameter(f"must be a number of seconds, more than 0, not '{value}'", context, parameter)
    return number
