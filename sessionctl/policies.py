"""The command about policies: what is in force, and where each value came from."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import click

from sessionctl.durations import in_config_notation
from sessionctl.failures import Command, applications_to_use
from sessionctl.output import as_json, printable, show, show_table
from sessionctl.settings import global_options, settings
from sessiond_client import Application, Policy, Reaction, SignalType

__all__ = ["effective", "policies"]

_UNKNOWN = "unknown"
_DERIVED = ("browser_name", "browser_anonymous_name")
"""The cookies' names with their prefix: results of the configuration, not keys of it."""


@click.command(cls=Command)
@global_options
def policies() -> None:
    """Show the policies in force, and where each value came from.

    That is a preset, or a line of a file. The values are those of the running authority, not of the file. Keys and
    values are written as in the configuration, with --json too. `cookie.browser_name` and
    `cookie.browser_anonymous_name` are derived from it: the names of the cookies as browsers send them.
    """
    asked = settings()
    with asked.client() as client:
        found = client.authority().applications
    if asked.application:
        names = [application.name for application in found]
        found = tuple(application for application in found if application.name == asked.application)
        if not found:
            refusal = f"application: the authority has no `{printable(asked.application)}`"
            raise click.ClickException(f"{refusal}\n{applications_to_use(names)}")
    for application in found:
        if asked.json:
            _as_document(application)
        else:
            _as_table(application)


def effective(policy: Policy) -> dict[str, Any]:
    """Every configured value of a policy by its path in the configuration (`reactions.ip_change`), as written there."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(policy):
        value = getattr(policy, field.name)
        if field.name == "origins":
            continue
        if isinstance(value, Mapping):
            # In the order of the words, since a map comes in any order.
            values |= {f"{field.name}.{kind.lower()}": _written(value[kind]) for kind in SignalType if kind in value}
        elif dataclasses.is_dataclass(value):
            for inner in dataclasses.fields(value):
                if inner.name not in _DERIVED:
                    values[f"{field.name}.{inner.name}"] = _written(getattr(value, inner.name))
        else:
            values[field.name] = _written(value)
    return values


def _written(value: Any) -> Any:
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
    show(("application ", "dim"), (printable(application.name), "bold"))
    origins = application.policy.origins
    rows = []
    for key, value in effective(application.policy).items():
        origin = origins.get(key, _UNKNOWN)
        text = value if isinstance(value, str) else json.dumps(value)
        # Values set in the file stand out from those of the preset.
        looks = "" if origin.startswith("preset ") or origin == _UNKNOWN else "bold cyan"
        rows.append(((f"  {key}", "dim"), (text, looks), (origin, "dim")))
    cookie = application.policy.cookie
    rows += [((f"  cookie.{name}", "dim"), (getattr(cookie, name), ""), ("derived", "dim")) for name in _DERIVED]
    show_table(rows)
