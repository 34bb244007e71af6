"""Commands about what happened, and about the authority itself: activity, watch, authority."""

from __future__ import annotations

from itertools import islice

import click

from sessionctl.failures import Command
from sessionctl.labels import label_option
from sessionctl.output import as_json, event_line, printable, show, show_facts
from sessionctl.settings import Settings, global_options, settings
from sessiond_client import Checkpoint, Client, Event, EventQuery, Events, EventType

__all__ = ["COMMANDS"]

_INTERRUPTED = 130
_TYPES = [str(item) for item in EventType if item is not EventType.UNSPECIFIED]


@click.command(cls=Command)
@click.argument("subject")
@click.option("--limit", type=click.IntRange(min=1), default=None, help="At most this many.")
@global_options
def activity(subject: str, limit: int | None) -> None:
    """Show a subject's history, newest first."""
    asked = settings()
    with asked.client() as client:
        empty = True
        for event in islice(client.activity(subject, page_size=min(limit or 500, 500)), limit):
            empty = False
            if asked.json:
                as_json(event)
            else:
                event_line(event)
    if empty and not asked.json:
        click.echo("no event", err=True)


@click.command(cls=Command)
@click.option("--after", metavar="CURSOR", default=None, help="Begin directly after this cursor.")
@click.option("--earliest", is_flag=True, help="Begin with the oldest event that is kept.")
@click.option("--subject", "subjects", multiple=True, help="Only of this subject; may be repeated.")
@click.option(
    "--type",
    "types",
    multiple=True,
    type=click.Choice(_TYPES, case_sensitive=False),
    metavar="TYPE",
    help=f"Only of this type; may be repeated. One of {', '.join(_TYPES).lower()}.",
)
@label_option("Only of sessions with this label; may be repeated, then with all of them.")
@click.option("--checkpoints", is_flag=True, help="Show checkpoints, too; the first says that the stream has begun.")
@click.option("--limit", type=click.IntRange(min=1), default=None, help="End after this many lines.")
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
    """Follow the events as they happen.

    Continues after broken connections and restarts. Without --application, follows all applications. With --json each
    line has a `cursor` for --after.
    """
    if after is not None and earliest:
        raise click.UsageError("begin at one of --after and --earliest")
    asked = settings()
    query = EventQuery(
        applications=[asked.application] if asked.application else [],
        subjects=subjects,
        types=[EventType(item) for item in types],
        labels=labels,
    )
    if after is not None:
        query["after"] = after
    elif earliest:
        query["start"] = "earliest"
    with asked.client() as client:
        client.authority()  # a stream waits for its authority for ever; a wrong --target should fail at once
        with _events(client, query, checkpoints=checkpoints) as events:
            try:
                for item in islice(events, limit):
                    _tell(item, asked)
            except KeyboardInterrupt:
                if events.cursor and not asked.json:
                    click.echo(f"\ncontinue with: sessionctl watch --after {printable(events.cursor)}", err=True)
                context.exit(_INTERRUPTED)


def _events(client: Client, query: EventQuery, *, checkpoints: bool) -> Events[Event] | Events[Event | Checkpoint]:
    if checkpoints:
        return client.events(include_checkpoints=True, **query)
    return client.events(**query)


def _tell(item: Event | Checkpoint, asked: Settings) -> None:
    kind = "event" if isinstance(item, Event) else "checkpoint"
    if asked.json:
        as_json(item, kind=kind)
    elif isinstance(item, Event):
        event_line(item)
    else:
        show((f"-- all up to #{item.revision} has been seen", "dim"))


@click.command(cls=Command)
@global_options
def authority() -> None:
    """Show the authority: version, position, applications."""
    asked = settings()
    with asked.client() as client:
        answer = client.authority()
    if asked.json:
        as_json(answer)
        return
    show_facts(
        [
            ("authority", answer.authority_id),
            ("version", answer.version),
            ("incarnation", answer.incarnation),
            ("revision", str(answer.revision)),
            ("horizon", str(answer.horizon)),
        ]
    )
    show_facts(
        ("application", f"{application.name}, preset {application.policy.preset or 'unknown'}")
        for application in answer.applications
    )
    show(("sessionctl policies shows the rules", "dim"))


COMMANDS = (activity, watch, authority)
