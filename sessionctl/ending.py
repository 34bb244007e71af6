"""The command that ends sessions."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from sessionctl.exits import Exit
from sessionctl.failures import Command, Failure
from sessionctl.labels import label_option
from sessionctl.output import as_json, printable, show
from sessionctl.secret_input import checked_session_id, read_token
from sessionctl.settings import Settings, global_options, settings
from sessionctl.targets import checked_target

if TYPE_CHECKING:
    from sessionctl.revoking import Filter
    from sessiond_client import Client

__all__ = ["revoke"]

_CRASHED_REPLICA_SECONDS = 6.0
"""How long the server may wait for a replica or a cache that has just crashed."""
_HAS_ENDED = ("VALID", "REVOKED", "EXPIRED_IDLE", "EXPIRED_ABSOLUTE")
"""The verdicts before the call that mean that the session has ended after it."""


@click.command(cls=Command)
@click.argument("session_id", callback=checked_session_id, required=False)
@click.option("--token", "by_token", is_flag=True, help="The session of a token, read from standard input or a prompt.")
@click.option("--subject", metavar="SUBJECT", default=None, help="All sessions of this subject.")
@label_option("All sessions with this label. If repeated: with all of these labels. Also narrows --subject.")
@click.option(
    "--except",
    "kept",
    callback=checked_session_id,
    metavar="SESSION_ID",
    default=None,
    help="With --subject or --label: keep this session.",
)
@click.option("--all", "everything", is_flag=True, help="All sessions of the application.")
@click.option("--yes", is_flag=True, help="With --all: do not ask for confirmation.")
@click.option("--reason", metavar="TEXT", default="", help="Why, for the event, such as 'stolen device'.")
@global_options
@click.pass_context
def revoke(
    context: click.Context,
    session_id: str | None,
    by_token: bool,
    subject: str | None,
    labels: dict[str, str],
    kept: str | None,
    everything: bool,
    yes: bool,
    reason: str,
) -> None:
    """End sessions, immediately and permanently.

    End one session, all of a subject, all with a label, or all of an application. Many sessions are ended in steps, and
    --timeout applies to each step. If the command is interrupted, run it again to end the rest. When it has ended
    normally, no replica, worker, sidecar or near cache accepts the sessions any more.
    """
    filtered = subject is not None or bool(labels)
    if [session_id is not None, by_token, filtered, everything].count(True) != 1:
        raise click.UsageError("specify exactly one of SESSION_ID, --token, --subject and/or --label, or --all")
    if kept and not filtered:
        raise click.UsageError("--except needs --subject or --label")
    asked = settings()
    if everything and not yes:
        _confirm(asked)
    token = read_token() if by_token else None
    with asked.client() as client:
        if filtered or everything:
            _revoke_many(context, client, {"subject": subject, "labels": labels}, keep=kept or "", reason=reason)
            return
        # An operator who has read "revoked" may rely on it, whichever replica is asked.
        answer = client.revoke(
            session_id=session_id,
            token=token,
            reason=reason,
            wait_for_caches=True,
            timeout=asked.timeout + _CRASHED_REPLICA_SECONDS,
        )
    if asked.json:
        as_json(answer)
    elif answer.revoked:
        show(("revoked", "green"))
    else:
        verb = "is" if by_token else "was already"
        show(("nothing to revoke", "yellow"), f": the {'token' if by_token else 'session'} {verb} {answer.verdict}")
    if not answer.revoked and answer.verdict not in _HAS_ENDED:
        context.exit(Exit.FAILED)  # the token may belong to a session that is still live


def _revoke_many(context: click.Context, client: Client, which: Filter, *, keep: str, reason: str) -> None:
    from sessionctl.refusals import explained
    from sessionctl.revoking import Halted, revoke_all, shown_progress

    asked = settings()
    try:
        with shown_progress(wanted=not asked.json) as progress:
            answer = revoke_all(client, which, keep=keep, reason=reason, progress=progress)
    except Halted as halted:
        rest = f"revoked so far: {halted.ended}; run the same command again to revoke the rest"
        if not isinstance(halted.cause, Exception):
            click.echo(f"interrupted; {rest}", err=True)
            context.exit(Exit.INTERRUPTED)
        failure = explained(halted.cause)
        if failure is None or not halted.ended:
            raise halted.cause from None
        raise Failure(failure.message, Exit(failure.exit_code), note=rest) from None
    if asked.json:
        as_json(answer)
    else:
        show(("revoked", "green"), f": {answer.revoked_count} {'session' if answer.revoked_count == 1 else 'sessions'}")


def _confirm(asked: Settings) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("--all needs confirmation; standard input is not a terminal, so add --yes")
    checked_target(asked.target, asked.target_from)  # a question about a malformed one is pointless
    question = f"End all sessions of application '{asked.application or 'default'}' at {asked.target}?"
    if not click.confirm(printable(question), err=True):
        raise Failure("not confirmed; no session was revoked")
