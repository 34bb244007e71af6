"""Commands about events and about the server itself: activity, watch, status."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, islice
from typing import TYPE_CHECKING

import click

from sessionctl.applications import chosen
from sessionctl.exits import Exit
from sessionctl.failures import Command, one_of
from sessionctl.labels import label_option
from sessionctl.numbers import limit_option
from sessionctl.output import as_command, as_json, fitted, show, show_facts, show_note
from sessionctl.settings import given_options, global_options, settings
from sessionctl.tables import Column, Table, show_table
from sessionctl.values import words
from sessionctl.views import EVENTS, event_row
from sessiond_client.enums import EventType  # without gRPC, so help is still fast

if TYPE_CHECKING:
    from sessiond_client import Checkpoint, Client, Event, EventQuery, Events

__all__ = ["activity", "authority", "status", "watch"]

_TYPES = [item.lower() for item in EventType if item is not EventType.UNSPECIFIED]
_LARGEST_PAGE = 500
_APPLICATIONS = (
    Column("APPLICATION", cut=True),
    Column("PRESET"),
    Column("IDLE TIMEOUT"),
    Column("ABSOLUTE TIMEOUT"),
    Column("MAX SESSIONS"),
)


@click.command(cls=Command)
@click.option("--subject", metavar="SUBJECT", required=True, help="The subject.")
@limit_option("Show at most this many.")
@global_options
def activity(subject: str, limit: int | None) -> None:
    """Show the events of a subject, newest first."""
    asked = settings()
    with asked.client() as client:
        events = islice(client.activity(subject, page_size=min(limit or _LARGEST_PAGE, _LARGEST_PAGE)), limit)
        if asked.json:
            for event in events:
                as_json(event)
        elif not show_table(EVENTS, map(event_row, events)):
            show_note("no events found")


@click.command(cls=Command)
@click.option("--after", metavar="CURSOR", default=None, help="Start directly after this cursor.")
@click.option("--earliest", is_flag=True, help="Start with the oldest event that is kept.")
@click.option(
    "--subject", "subjects", metavar="SUBJECT", multiple=True, help="Only events of this subject; may be repeated."
)
@click.option(
    "--type",
    "types",
    multiple=True,
    callback=one_of("event type", _TYPES),
    shell_complete=words(_TYPES),
    metavar="TYPE",
    help=f"Only events of this type; may be repeated. Types: {', '.join(_TYPES)}.",
)
@label_option("Only events of sessions with this label. If repeated: with all of these labels.")
@click.option("--checkpoints", is_flag=True, help="Show checkpoints too; the first one means that the stream is open.")
@limit_option("Stop after this many lines.")
@global_options
@click.pass_context
def watch(
    context: click.Context,
    after: str | None,
    earliest: bool,
    subjects: tuple[str, ...],
    types: tuple[str, ...],
    labels: dict[str, str],
    checkpoints: bool,
    limit: int | None,
) -> None:
    """Show events as they happen, until you press Ctrl-C.

    The stream continues after broken connections and restarts of the server. Without --application it has the events of
    all applications. TIME is the time of day in UTC, or the date of an event that is a day old or more. With -o json
    each line has a `cursor` that --after takes.
    """
    if after is not None and earliest:
        raise click.UsageError("use either --after or --earliest")
    asked = settings()
    query: EventQuery = {
        "applications": [asked.application] if asked.application else [],
        "subjects": subjects,
        "types": [EventType(item.upper()) for item in types],
        "labels": labels,
    }
    if after is not None:
        query["after"] = after
    elif earliest:
        query["start"] = "earliest"
    with asked.client() as client:
        # A stream waits for its server for ever. This call fails at once if --target or --application is wrong.
        chosen(client.authority().applications)
        with _events(client, query, checkpoints=checkpoints) as events:
            try:
                _show_stream(events, limit)
            except KeyboardInterrupt:
                if events.cursor:
                    query["after"] = events.cursor
                    show_note(f"\ncontinue with: {_continuation(query, checkpoints=checkpoints)}")
                context.exit(Exit.INTERRUPTED)


def _continuation(query: EventQuery, *, checkpoints: bool) -> str:
    """The command that shows the events after those that were shown; --limit would count again, so it is left out."""
    options = [("--subject", subject) for subject in query["subjects"]]
    options += [("--type", item.lower()) for item in query["types"]]
    options += [("--label", f"{key}={value}") for key, value in query["labels"].items()]
    options += [("--after", str(query["after"]))]
    flags = ["--checkpoints"] if checkpoints else []
    return as_command("sessionctl", "watch", *given_options(), *flags, *chain.from_iterable(options))


def _events(client: Client, query: EventQuery, *, checkpoints: bool) -> Events[Event] | Events[Event | Checkpoint]:
    if checkpoints:
        return client.events(include_checkpoints=True, **query)
    return client.events(**query)


def _show_stream(events: Events[Event] | Events[Event | Checkpoint], limit: int | None) -> None:
    from sessiond_client import Event

    asked = settings()
    table = Table.for_stream(EVENTS)
    for number, item in enumerate(islice(events, limit)):
        if asked.json:
            as_json(item, kind="event" if isinstance(item, Event) else "checkpoint")
            continue
        if not number:
            table.header()
        if isinstance(item, Event):
            table.row(event_row(item, live=True))
        else:
            show((fitted(f"-- all events up to revision {item.revision} have been shown"), "dim"))


@click.command(cls=Command)
@global_options
def status() -> None:
    """Show the server's version, log position and applications."""
    asked = settings()
    with asked.client() as client:
        answer = client.authority()
    applications = chosen(answer.applications)
    if asked.json:
        as_json(replace(answer, applications=tuple(applications)))
        return
    from sessionctl.durations import in_config_notation

    show_facts(
        [
            ("authority id", answer.authority_id),
            ("version", answer.version),
            ("incarnation", answer.incarnation),
            ("revision", str(answer.revision)),
            ("horizon", str(answer.horizon)),
            *(("other policies at", name) for name in answer.replicas_with_other_policies),
        ]
    )
    show()
    show_table(
        _APPLICATIONS,
        [
            (
                (application.name, "bold"),
                (application.policy.preset or "unknown", ""),
                (in_config_notation(application.policy.idle_timeout), ""),
                (in_config_notation(application.policy.absolute_timeout), ""),
                (str(application.policy.max_sessions or "any"), ""),
            )
            for application in applications
        ],
    )


authority = Command(
    "authority", params=status.params, callback=status.callback, help="The former name of `status`.", hidden=True
)
