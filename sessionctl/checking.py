"""`check-config`: what is wrong in a configuration, and where it departs from the guidance. Needs no authority."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sessionctl.failures import Command
from sessionctl.output import as_json, printable, show
from sessionctl.settings import json_option, settings

if TYPE_CHECKING:
    from sessiond.config import Departure

__all__ = ["check", "check_config"]

_FITS = 0
_DEPARTS = 1
_BROKEN = 2


def check(file: Path, *, strict: bool, json: bool) -> int:
    """Tell every problem, or else every departure from the guidance, one a line; the exit code.

    0: the file can be used; 1: it departs and `strict` does not let that pass; 2: it cannot be used.
    """
    # Here, because the other commands have no use for it and should not wait for it.
    from sessiond.config import BadConfig, departures, load_config

    try:
        found = departures(load_config(file))
    except BadConfig as error:
        _tell_problems(file, str(error).splitlines(), json=json)
        return _BROKEN
    _tell_departures(file, found, json=json)
    return _DEPARTS if strict and found else _FITS


@click.command("check-config", cls=Command)
@click.argument("file", type=click.Path(path_type=Path), default=Path("sessiond.toml"))
@click.option("--strict", is_flag=True, help="Exit code 1 where the file departs from the guidance.")
@json_option
@click.pass_context
def check_config(context: click.Context, file: Path, strict: bool) -> None:
    """Check a configuration, ./sessiond.toml by default. Asks no authority.

    Tells what is wrong in FILE, which then cannot be used (exit code 2), and which settings are weaker than OWASP,
    ASVS 5.0 or NIST say, each with its line and its source: these may be good decisions.
    """
    context.exit(check(file, strict=strict, json=settings().json))


def _tell_problems(file: Path, problems: list[str], *, json: bool) -> None:
    for problem in problems:
        if json:
            as_json({"kind": "problem", "message": problem})
        else:
            show((printable(problem), "red"))
    if not json:
        show((printable(str(file)), "bold"), f": cannot be used: {_count(len(problems), 'problem')}")


def _tell_departures(file: Path, found: list[Departure], *, json: bool) -> None:
    for departure in found:
        if json:
            as_json(departure, kind="departure")
        else:
            _tell_departure(departure)
    if not json:
        told = f"{_count(len(found), 'departure')} from the guidance" if found else "keeps to the guidance"
        show((printable(str(file)), "bold"), f": can be used; {told}")


def _tell_departure(departure: Departure) -> None:
    key = f"applications.{departure.application}.{departure.key}" if departure.application else departure.key
    show(
        (f"{printable(departure.origin)}: ", "dim"),
        (printable(key), "yellow"),
        f": {printable(departure.message)} ",
        (f"[{departure.source}]", "dim"),
    )


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
