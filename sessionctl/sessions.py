"""Commands about sessions: create, validate, show, list, revoke, report."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import timedelta
from itertools import islice
from typing import Any, TypeVar

import click

from sessionctl.durations import checked_span
from sessionctl.failures import Command, explain
from sessionctl.labels import label_option
from sessionctl.output import as_json, printable, session_facts, session_line, show, show_facts, signal_text
from sessionctl.revoking import Filter, Halted, revoke_all, shown_progress
from sessionctl.secret_input import checked_session_id, read_token
from sessionctl.settings import Settings, global_options, settings
from sessiond_client import (
    Authentication,
    Client,
    ClientContext,
    ConcurrencyLimitReached,
    Reaction,
    Requirements,
    SessiondError,
    SessionState,
    Verdict,
)

__all__ = ["COMMANDS", "pairs"]

F = TypeVar("F", bound=Callable[..., Any])

_NOT_VALID = 3
_INTERRUPTED = 130
_HAS_ENDED = (Verdict.VALID, Verdict.REVOKED, Verdict.EXPIRED_IDLE, Verdict.EXPIRED_ABSOLUTE)


def _client_options(command: F) -> F:
    """Options for what was seen of a client."""
    for name, text in (
        ("--device-id", "The application's identifier of the client's device."),
        ("--user-agent", "The client's User-Agent header."),
        ("--ip", "The client's IP address."),
    ):
        command = click.option(name, default="", help=text)(command)
    return command


def pairs(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, bytes]:
    """`key=value` arguments as session data; values are UTF-8 text."""
    found = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not equals or not key:
            raise click.BadParameter("session data is given as KEY=VALUE", context, parameter)
        found[key] = text.encode()
    return found


@click.command(cls=Command)
@click.option("--subject", default="", help="The subject; without it the session is anonymous.")
@click.option("--level", type=click.IntRange(0, 3), default=0, help="Assurance level, 1 to 3; 0: not ranked.")
@click.option("--method", "methods", multiple=True, help="An authentication method (pwd, otp, ...); may be repeated.")
@click.option("--data", callback=pairs, multiple=True, metavar="KEY=VALUE", help="Session data; may be repeated.")
@label_option("A public label of the session; may be repeated.")
@_client_options
@click.option("--show-token", is_flag=True, help="Show the token, too.")
@click.option("--token-only", is_flag=True, help="Write the token and nothing else, for piping.")
@global_options
def create(
    subject: str,
    level: int,
    methods: tuple[str, ...],
    data: dict[str, bytes],
    labels: dict[str, str],
    ip: str,
    user_agent: str,
    device_id: str,
    show_token: bool,
    token_only: bool,
) -> None:
    """Open a session.

    Its token is a secret. It is shown only with --show-token or --token-only, and with --json as the field `token`. It
    cannot be shown later. If the subject has reached its limit of sessions, they are listed, and the exit code is 1.
    """
    if show_token and token_only:
        raise click.UsageError("Specify one of --show-token and --token-only: the second writes only the token.")
    if (level or methods) and not subject:
        raise click.UsageError("--level and --method say how a subject was authenticated, so they need --subject.")
    asked = settings()
    with asked.client() as client:
        try:
            created = client.create(
                subject=subject,
                authentication=Authentication(level=level, methods=methods) if subject else None,
                client=ClientContext(ip_address=ip, user_agent=user_agent, device_id=device_id),
                data=data,
                labels=labels,
            )
        except ConcurrencyLimitReached as refusal:
            excess = _show_limit(client, asked, subject, refusal)
            raise click.ClickException(
                f"the subject has reached its limit of {_live_sessions(refusal.limit.max_sessions)}: end"
                f" {'one' if excess == 1 else f'{excess} of them'} with `sessionctl revoke SESSION_ID`,"
                " or raise `max_sessions`"
            ) from None
    if token_only:
        click.echo(created.token.reveal())
    elif asked.json:
        as_json(created, token=created.token.reveal())
    else:
        show_facts(session_facts(created.session))
        show_facts(("evicted", session_id) for session_id in created.evicted_session_ids)
        shown = created.token.reveal() if show_token else "not shown (--show-token, --token-only and --json give it)"
        show_facts([("token", shown)])


def _show_limit(client: Client, asked: Settings, subject: str, refusal: ConcurrencyLimitReached) -> int:
    """List the live sessions; returns how many must end. The ticket is a secret and of no use here: not shown."""
    limit = refusal.limit
    # The authority lists them itself only if the policy asks; an operator may see them in any case.
    live = limit.live_sessions or tuple(client.list(subject=subject))
    if asked.json:
        as_json({"max_sessions": limit.max_sessions, "live_sessions": live})
    else:
        show((f"at most {_live_sessions(limit.max_sessions)}; open now:", "yellow"))
        for session in live:
            session_line(session)
    return max(1, len(live) - limit.max_sessions + 1)  # more than one if the limit was lowered


def _live_sessions(number: int) -> str:
    return f"{number} live session" if number == 1 else f"{number} live sessions"


@click.command(cls=Command)
@_client_options
@click.option("--min-level", type=click.IntRange(0, 3), default=0, help="Require this level of authentication.")
@click.option(
    "--max-age",
    callback=checked_span,
    metavar="DURATION",
    default=None,
    help="Require an authentication younger than this: 15m, 1h30m.",
)
@click.option("--active", is_flag=True, help="Count as activity of the client. Without it, this is only a look.")
@global_options
@click.pass_context
def validate(
    context: click.Context,
    ip: str,
    user_agent: str,
    device_id: str,
    min_level: int,
    max_age: timedelta | None,
    active: bool,
) -> None:
    """Check a token. Exit code 0 for VALID, 3 for any other verdict.

    The token is read from standard input, or from a hidden prompt. A renewed token is never shown: it belongs to the
    client, and the authority returns the same one again. A token that the authority never issued counts as a guess from
    the address that --ip names; without --ip it counts only towards `flood_after` of the policy.
    """
    token = read_token()
    asked = settings()
    with asked.client() as client:
        answer = client.validate(
            token,
            client=ClientContext(ip_address=ip, user_agent=user_agent, device_id=device_id),
            passive=not active,
            requirements=Requirements(min_level=min_level, max_authentication_age=max_age),
        )
    if asked.json:
        document = {"verdict": answer.verdict, "next_step": answer.next_step, "session": answer.session}
        as_json(document, signals=answer.signals, unmet=answer.unmet)
    else:
        show((str(answer.verdict), "bold green" if answer.valid else "bold red"), f"  next step: {answer.next_step}")
        show_facts(("signal", signal_text(item)) for item in answer.signals)
        show_facts((f"lacks {item.kind}", item.remedy) for item in answer.unmet)
        show_facts(session_facts(answer.session) if answer.session is not None else ())
    if not answer.valid:
        context.exit(_NOT_VALID)


@click.command("show", cls=Command)
@click.argument("session_id", callback=checked_session_id)
@global_options
def show_session(session_id: str) -> None:
    """Show one session.

    An ended one, too, while its history is kept.
    """
    asked = settings()
    with asked.client() as client:
        found = client.get(session_id=session_id)
    if found.session is not None and not asked.json:
        show_facts(session_facts(found.session))
    else:
        as_json(found)


@click.command("list", cls=Command)
@click.option("--subject", default=None, help="Of this subject; an empty one means the anonymous sessions.")
@click.option(
    "--state",
    type=click.Choice(["active", "expired", "revoked"], case_sensitive=False),
    default="active",
    show_default=True,
    help="In this state.",
)
@click.option("--network", default="", metavar="CIDR", help="Opened or last authenticated from within this network.")
@label_option("With this label; may be repeated, then with all of them.")
@click.option("--limit", type=click.IntRange(min=1), default=None, help="At most this many.")
@global_options
def list_sessions(subject: str | None, state: str, network: str, labels: dict[str, str], limit: int | None) -> None:
    """List sessions, newest first."""
    asked = settings()
    with asked.client() as client:
        found = client.list(
            subject=subject,
            state=SessionState(state.upper()),
            ip_network=network,
            labels=labels,
            page_size=min(limit or 500, 500),
        )
        empty = True
        for session in islice(found, limit):
            empty = False
            if asked.json:
                as_json(session)
            else:
                session_line(session)
    if empty and not asked.json:
        click.echo("no session", err=True)


@click.command(cls=Command)
@click.argument("session_id", callback=checked_session_id, required=False)
@click.option("--token", "by_token", is_flag=True, help="The session of a token, read from standard input or a prompt.")
@click.option("--subject", default=None, help="All sessions of this subject.")
@label_option("All sessions with this label; may be repeated, then with all of them. Also narrows --subject.")
@click.option(
    "--except",
    "kept",
    callback=checked_session_id,
    metavar="SESSION_ID",
    default=None,
    help="With --subject or --label: but keep this session.",
)
@click.option("--all", "everything", is_flag=True, help="All sessions of the application.")
@click.option("--yes", is_flag=True, help="With --all: do not ask.")
@click.option("--reason", default="", help="Why, for the event: `logout`, `stolen device`, ...")
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
    """End sessions, at once and for good.

    One session, all of a subject, all with a label, or all of an application. Ending many takes as long as it takes:
    --timeout applies to each of many steps. If it is interrupted, run it again to end the rest.
    """
    filtered = subject is not None or bool(labels)
    if [session_id is not None, by_token, filtered, everything].count(True) != 1:
        raise click.UsageError("Specify exactly one of SESSION_ID, --token, --subject and/or --label, and --all.")
    if kept and not filtered:
        raise click.UsageError("--except needs --subject or --label.")
    asked = settings()
    if everything and not yes:
        _confirm(asked)
    token = read_token() if by_token else None
    with asked.client() as client:
        if filtered or everything:
            _revoke_many(context, client, {"subject": subject, "labels": labels}, keep=kept or "", reason=reason)
            return
        answer = client.revoke(session_id=session_id, token=token, reason=reason)
    if asked.json:
        as_json(answer)
    elif answer.revoked:
        show(("revoked", "green"))
    else:
        show(("nothing to end", "yellow"), f": the {'token' if by_token else 'session'} was {answer.verdict}")
    if answer.verdict not in _HAS_ENDED:
        context.exit(1)  # if the token has a session, it is still live


def _revoke_many(context: click.Context, client: Client, which: Filter, *, keep: str, reason: str) -> None:
    asked = settings()
    try:
        with shown_progress(wanted=not asked.json) as progress:
            answer = revoke_all(client, which, keep=keep, reason=reason, progress=progress)
    except Halted as halted:
        rest = f"revoked so far: {halted.ended}; run the same command again to revoke the rest"
        if isinstance(halted.cause, SessiondError):
            if not halted.ended:
                raise halted.cause from None
            raise click.ClickException(f"{explain(halted.cause, asked)}\n{rest}") from None
        click.echo(f"interrupted; {rest}", err=True)
        context.exit(_INTERRUPTED)
    if asked.json:
        as_json(answer)
    else:
        show(("revoked", "green"), f": {answer.revoked_count}")


def _confirm(asked: Settings) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("--all needs confirmation; stdin is not a terminal, so add --yes.")
    question = printable(f"End all sessions of application `{asked.application or 'default'}` at {asked.target}?")
    click.confirm(question, abort=True, err=True)


@click.command(cls=Command)
@click.option("--session-id", required=True, callback=checked_session_id, help="The session that is suspicious.")
@click.option("--reason", required=True, help="What was noticed, for the event: at most 256 characters.")
@global_options
def report(session_id: str, reason: str) -> None:
    """Report a suspicion of your own. The policy reacts to it as to the signal `reported`."""
    asked = settings()
    with asked.client() as client:
        answer = client.report_signal(session_id=session_id, reason=reason)
    if asked.json:
        as_json(answer)
    elif answer.reaction is Reaction.UNSPECIFIED:
        show(("nothing to do", "yellow"), f": the session was {answer.verdict}")
    else:
        show(("reported", "green"), f": reaction {answer.reaction}")


COMMANDS = (create, validate, show_session, list_sessions, revoke, report)
