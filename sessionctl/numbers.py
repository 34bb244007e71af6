"""Options whose values are numbers."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = ["checked_bound", "checked_seconds", "limit_option", "whole_number"]

F = TypeVar("F", bound=Callable[..., Any])
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


def limit_option(text: str) -> Callable[[F], F]:
    """The option `--limit`, with this help text; its parameter is None if nothing limits the result."""
    number = whole_number(1)

    def checked(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
        limit = number(context, parameter, value)
        return None if limit is None or limit > sys.maxsize else limit  # more than `islice` can count

    return click.option("--limit", metavar="N", callback=checked, default=None, help=text)


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


def checked_bound(context: click.Context, parameter: click.Parameter, value: str) -> float:
    """The value of an option that is a number of seconds, 0 or more. Raises click.BadParameter."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise click.BadParameter(f"must be a number of seconds, 0 or more, not '{value}'", context, parameter)
    return number
