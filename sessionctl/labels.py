"""The option `--label`: labels of a new session, or a filter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

__all__ = ["label_option", "labels_text"]

F = TypeVar("F", bound=Callable[..., Any])


def _checked_labels(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """`KEY=VALUE` arguments as labels. The server checks their form; the same key twice is an error."""
    found: dict[str, str] = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not equals or not key:
            raise click.BadParameter("write a label as KEY=VALUE", context, parameter)
        if key in found:
            raise click.BadParameter(f"{key!r} is given twice", context, parameter)
        found[key] = text
    return found


def label_option(text: str) -> Callable[[F], F]:
    """The option, with this help text; its parameter is `labels`."""
    return click.option("--label", "labels", multiple=True, callback=_checked_labels, metavar="KEY=VALUE", help=text)


def labels_text(labels: Mapping[str, str]) -> str:
    """Labels in one line, sorted by key."""
    return " ".join(f"{key}={value}" for key, value in sorted(labels.items()))
