"""Commands about session data."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from sessionctl.exits import Exit
from sessionctl.failures import Failure, Group
from sessionctl.numbers import whole_number
from sessionctl.output import as_json, show, show_facts
from sessionctl.secret_input import checked_session_id
from sessionctl.sessions import pairs
from sessionctl.settings import global_options, settings
from sessionctl.tables import Column, show_table

if TYPE_CHECKING:
    from sessiond_client import Verdict

__all__ = ["data"]

_VALUES = (Column("KEY", cut=True), Column("VALUE", cut=True))

_expected_version = click.option(
    "--expected-version",
    metavar="N",
    callback=whole_number(0),
    default=None,
    help="Write only if this is the current version.",
)


@click.group(cls=Group)
def data() -> None:
    """Read and write a session's data."""


@data.command("get")
@click.argument("session_id", callback=checked_session_id)
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option("--raw", is_flag=True, help="Write the value of a single KEY, byte for byte.")
@global_options
def get(session_id: str, keys: tuple[str, ...], raw: bool) -> None:
    """Show a session's data, all of it or only some keys."""
    if raw and len(keys) != 1:
        raise click.UsageError("--raw writes the value of exactly one KEY")
    asked = settings()
    with asked.client() as client:
        answer = client.get_data(session_id=session_id, keys=keys)
    _require_live(answer.verdict)
    missing = [key for key in keys if key not in answer.data]
    if missing:
        raise Failure(f"KEY: the session has no key '{missing[0]}'; without a KEY all keys are shown")
    if raw:
        value = answer.data[keys[0]]
        if sys.stdout.isatty() and not _is_harmless(value):
            raise Failure("--raw: the value has control characters; write it to a file or a pipe", Exit.USAGE)
        click.echo(value, nl=False)
    elif asked.json:
        as_json(answer)
    else:
        show_facts([("version", str(answer.version))])
        texts = {key: value.decode("utf-8", "backslashreplace") for key, value in sorted(answer.data.items())}
        show_table(_VALUES, [((key, "bold"), (text, "")) for key, text in texts.items()])


@data.command("set")
@click.argument("session_id", callback=checked_session_id)
@click.argument("values", nargs=-1, required=True, callback=pairs, metavar="KEY=VALUE...")
@_expected_version
@global_options
def set_(session_id: str, values: dict[str, bytes], expected_version: int | None) -> None:
    """Set keys of a session's data, either all of them or none.

    KEY=- reads the value from standard input, byte for byte, or from a hidden prompt. Use it for secrets: other users
    of the machine can read arguments.
    """
    _update(session_id, values, (), expected_version)


@data.command("delete")
@click.argument("session_id", callback=checked_session_id)
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@_expected_version
@global_options
def delete(session_id: str, keys: tuple[str, ...], expected_version: int | None) -> None:
    """Delete keys of a session's data, either all of them or none."""
    _update(session_id, {}, keys, expected_version)


def _update(session_id: str, values: dict[str, bytes], keys: tuple[str, ...], expected_version: int | None) -> None:
    asked = settings()
    with asked.client() as client:
        answer = client.update_data(session_id=session_id, set=values, delete=keys, expected_version=expected_version)
    _require_live(answer.verdict)
    if asked.json:
        as_json(answer)
    else:
        show(("written", "green"), f": version {answer.version}")


def _is_harmless(value: bytes) -> bool:
    """Whether a terminal shows the bytes as text and interprets none of them but line ends and tabs."""
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\n\t" for character in text)


def _require_live(verdict: Verdict) -> None:
    if verdict != "VALID":
        raise Failure(f"SESSION_ID: the session is {verdict}; only a live session has data")
