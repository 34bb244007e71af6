"""The command about policies: the values in force, and where each one comes from."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from sessionctl.applications import chosen
from sessionctl.durations import in_config_notation
from sessionctl.failures import Command
from sessionctl.output import as_json, fitted, printable, show
from sessionctl.settings import global_options, settings
from sessionctl.tables import Column, show_table

if TYPE_CHECKING:
    from sessiond_client import Application, Policy

__all__ = ["effective", "policies"]

_UNKNOWN = "unknown"
_DERIVED = ("browser_name", "browser_anonymous_name")
"""The cookies' names with their prefix. They follow from the configuration and are not keys of it."""


_VALUES = (Column("KEY"), Column("VALUE", cut=True), Column("ORIGIN", cut=True, cut_start=True))


@click.command(cls=Command)
@global_options
def policies() -> None:
    """Show the policies in force, and where each value comes from.

    These are the policies of the running server, not those of the file. ORIGIN is a preset, or a file and line. Keys
    and values are written as in the configuration, in JSON too. `cookie.browser_name` and
    `cookie.browser_anonymous_name` are derived: the names of the cookies as browsers send them.
    """
    asked = settings()
    with asked.client() as client:
        found = chosen(client.authority().applications)
    for number, application in enumerate(found):
        if asked.json:
            _as_document(application)
            continue
        if number:
            show()
        _as_table(application)


def effective(policy: Policy) -> dict[str, Any]:
    """Every configured value of a policy by its path in the configuration (`reactions.ip_change`), as written there."""
    from sessiond_client import SignalType

    values: dict[str, Any] = {}
    for field in dataclasses.fields(policy):
        value = getattr(policy, field.name)
        if field.name == "origins":
            continue
        if isinstance(value, Mapping):
            # In the order of the enumeration, since a map has none.
            values |= {f"{field.name}.{kind.lower()}": _written(value[kind]) for kind in SignalType if kind in value}
        elif dataclasses.is_dataclass(value):
            for inner in dataclasses.fields(value):
                if inner.name not in _DERIVED:
                    values[f"{field.name}.{inner.name}"] = _written(getattr(value, inner.name))
        else:
            values[field.name] = _written(value)
    return values


def _written(value: Any) -> Any:
    from sessiond_client import Reaction

    match value:
        case None | timedelta():
            return in_config_notation(value)
        case Reaction():
            return value.lower().replace("_", "-")
        case tuple():
            return list(value)
        case _:
            return value


def _as_document(application: Application) -> None:
    origins = application.policy.origins
    values = {
        key: {"value": value, "origin": origins.get(key, "")} for key, value in effective(application.policy).items()
    }
    cookie = application.policy.cookie
    names = {name: getattr(cookie, name) for name in _DERIVED}
    as_json({"application": application.name, "values": values, "cookie_names": names})


def _as_table(application: Application) -> None:
    show((fitted(f"application: {printable(application.name)}"), "bold"))
    origins = application.policy.origins
    rows = []
    for key, value in effective(application.policy).items():
        origin = origins.get(key, _UNKNOWN)
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        # Values set in the file stand out from those of the preset.
        style = "" if origin.startswith("preset ") or origin == _UNKNOWN else "bold cyan"
        rows.append(((key, ""), (text, style), (origin, "dim")))
    cookie = application.policy.cookie
    rows += [((f"cookie.{name}", ""), (getattr(cookie, name), ""), ("derived", "dim")) for name in _DERIVED]
    show_table(_VALUES, rows)
