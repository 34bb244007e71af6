"""Commands about sessions: create, show, list, report."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from itertools import groupby, islice
from operator import attrgetter
from typing import TYPE_CHECKING, TypeVar

import click

from sessionctl.failures import Command, Failure, one_of
from sessionctl.labels import label_option
from sessionctl.numbers import limit_option, whole_number
from sessionctl.output import as_json, printable, show, show_facts, show_note
from sessionctl.secret_input import checked_session_id, read_value
from sessionctl.settings import Settings, global_options, settings
from sessionctl.tables import show_table
from sessionctl.values import words
from sessionctl.views import SESSIONS, session_facts, session_row

if TYPE_CHECKING:
    from sessiond_client import Client, ConcurrencyLimitReached, Session

__all__ = ["COMMANDS", "client_options", "pairs"]

F = TypeVar("F", bound=Callable[..., object])

_STATES = ("active", "expired", "revoked", "all")
_LARGEST_PAGE = 500


def client_options(command: F) -> F:
    """Add the options that describe the client of a session: what the application saw of a browser."""
    for name, metavar, text in (
        ("--device-id", "ID", "The application's identifier of the client's device."),
        ("--user-agent", "TEXT", "The client's User-Agent header."),
        ("--ip", "ADDRESS", "The client's IP address."),
    ):
        command = click.option(name, metavar=metavar, default="", help=text)(command)
    return command


def pairs(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, bytes]:
    """`KEY=VALUE` arguments as session data. A value is UTF-8 text; `-` is the value on standard input, at most once.

    Raises click.BadParameter.
    """
    found = {}
    read = False
    for value in values:
        key, equals, text = value.partition("=")
        if not equals or not key:
            raise click.BadParameter("write session data as KEY=VALUE", context, parameter)
        if text == "-":
            if read:
                raise click.BadParameter("only one value can come from standard input", context, parameter)
            found[key], read = read_value(printable(key)), True
            continue
        try:
            found[key] = text.encode()
        except UnicodeEncodeError:
            raise click.BadParameter(f"the value of {key!r} is not UTF-8 text", context, parameter) from None
    return found


@click.command(cls=Command)
@click.option("--subject", metavar="SUBJECT", default="", help="The user; without it the session is anonymous.")
@click.option(
    "--level",
    metavar="LEVEL",
    callback=whole_number(0, 3),
    default="0",
    help="Level of authentication, 1 to 3; 0: not ranked.",
)
@click.option(
    "--method",
    "methods",
    metavar="METHOD",
    multiple=True,
    help="Authentication method, such as pwd or otp; may be repeated.",
)
@click.option(
    "--data",
    callback=pairs,
    multiple=True,
    metavar="KEY=VALUE",
    help="Session data; may be repeated. KEY=- reads the value from standard input.",
)
@label_option("A public label of the session; may be repeated.")
@client_options
@click.option("--show-token", is_flag=True, help="Show the token too.")
@click.option("--token-only", is_flag=True, help="Write only the token, for a pipe or a file.")
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

    The token is a secret and cannot be shown later. It is written only with --show-token or --token-only, and with -o
    json as the field `token`. If the subject has reached its limit of sessions and the policy evicts none, the command
    lists the live sessions, opens none and exits with code 1.
    """
    if show_token and token_only:
        raise click.UsageError("use either --show-token or --token-only; the latter writes only the token")
    if (level or methods) and not subject:
        raise click.UsageError("--level and --method describe how a subject was authenticated; add --subject")
    from sessiond_client import Authentication, ClientContext, ConcurrencyLimitReached

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
            raise _limit_reached(client, asked, subject, refusal) from None
    if token_only:
        click.echo(created.token.reveal())
    elif asked.json:
        as_json(created, token=created.token.reveal())
    else:
        show_facts(session_facts(created.session))
        show_facts(("evicted session", session_id) for session_id in created.evicted_session_ids)
        if show_token:
            show((f"{'token':<18}  ", "dim"), created.token.reveal())
        else:
            show_facts([("token", "not shown; use --show-token, --token-only or -o json")])


def _limit_reached(client: Client, asked: Settings, subject: str, refusal: ConcurrencyLimitReached) -> Failure:
    """List the live sessions; returns the failure. The ticket of the refusal is a secret and of no use here."""
    limit = refusal.limit
    # The server lists the sessions only if the policy says so; an operator may see them in any case.
    live = limit.live_sessions or tuple(client.list(subject=subject))
    if asked.json:
        as_json({"max_sessions": limit.max_sessions, "live_sessions": live})
    else:
        show_table(SESSIONS, map(session_row, live))
    excess = max(1, len(live) - limit.max_sessions + 1)  # more than one if the limit was lowered
    sessions = "session" if limit.max_sessions == 1 else "sessions"
    return Failure(
        f"the subject has reached its limit of {limit.max_sessions} live {sessions}; end"
        f" {'one' if excess == 1 else excess} with `sessionctl revoke SESSION_ID`, or raise `max_sessions`"
    )


@click.command("show", cls=Command)
@click.argument("session_id", callback=checked_session_id)
@global_options
def show_session(session_id: str) -> None:
    """Show one session.

    Ended sessions can be shown too, as long as the policy keeps them: those of subjects for `retention`, anonymous ones
    for `anonymous_retention`.
    """
    asked = settings()
    with asked.client() as client:
        found = client.get(session_id=session_id)
    if found.session is not None and not asked.json:
        show_facts(session_facts(found.session))
    else:
        as_json(found)


@click.command("list", cls=Command)
@click.option(
    "--subject", metavar="SUBJECT", default=None, help="Only sessions of this subject; '' means the anonymous ones."
)
@click.option(
    "--state",
    callback=one_of("state", _STATES),
    shell_complete=words(_STATES),
    metavar="STATE",
    default="active",
    show_default=True,
    help=f"Only sessions in this state: {', '.join(_STATES)}.",
)
@click.option(
    "--network", default="", metavar="CIDR", help="Only sessions opened or last authenticated from this network."
)
@label_option("Only sessions with this label. If repeated: with all of these labels.")
@limit_option("Show at most this many.")
@global_options
def list_sessions(subject: str | None, state: str, network: str, labels: dict[str, str], limit: int | None) -> None:
    """List sessions, newest first.

    ENDS is when the session ended, or when it will end without further use. More columns appear if the terminal has
    room for them; -o wide shows all of them.
    """
    from sessiond_client import SessionState

    asked = settings()
    with asked.client() as client:

        def listed(one: SessionState) -> Iterator[Session]:
            return client.list(
                subject=subject,
                state=one,
                ip_network=network,
                labels=labels,
                page_size=min(limit or _LARGEST_PAGE, _LARGEST_PAGE),
            )

        wanted = _STATES[:-1] if state == "all" else (state,)
        found = islice(_merged([listed(SessionState(one.upper())) for one in wanted]), limit)
        if asked.json:
            for session in found:
                as_json(session)
        elif not show_table(SESSIONS, map(session_row, found)):
            show_note("no sessions found")


def _merged(lists: list[Iterator[Session]]) -> Iterator[Session]:
    """One list, newest first. A session that ended while the lists were read is in two of them; it is kept once."""
    by_id = attrgetter("session_id")
    for _, same in groupby(heapq.merge(*lists, key=by_id, reverse=True), key=by_id):
        yield list(same)[-1]


@click.command(cls=Command)
@click.argument("session_id", metavar="SESSION_ID", callback=checked_session_id, required=False)
@click.option("--session-id", "named", callback=checked_session_id, hidden=True)
@click.option("--reason", required=True, help="What you noticed, for the event; at most 256 characters.")
@global_options
def report(session_id: str | None, named: str | None, reason: str) -> None:
    """Report that a session looks suspicious.

    The policy decides what follows: see the signal `reported` in `sessionctl policies`.
    """
    chosen = session_id or named
    if chosen is None:
        raise click.UsageError("missing argument SESSION_ID")
    asked = settings()
    with asked.client() as client:
        answer = client.report_signal(session_id=chosen, reason=reason)
    if asked.json:
        as_json(answer)
    elif answer.reaction == "UNSPECIFIED":
        show(("nothing to do", "yellow"), f": the session is {answer.verdict}")
    else:
        show(("reported", "green"), f": reaction {answer.reaction}")


COMMANDS = (create, show_session, list_sessions, report)
