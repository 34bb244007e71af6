"""The command that checks a token."""

from __future__ import annotations

from datetime import timedelta

import click

from sessionctl.durations import checked_span
from sessionctl.exits import Exit
from sessionctl.failures import Command
from sessionctl.numbers import whole_number
from sessionctl.output import as_json, show, show_facts
from sessionctl.secret_input import read_token
from sessionctl.sessions import client_options
from sessionctl.settings import global_options, settings
from sessionctl.views import session_facts, signal_text

__all__ = ["validate"]


# Arguments are accepted here so that the error can say where a token belongs.
@click.command(cls=Command, context_settings={"allow_extra_args": True})
@client_options
@click.option(
    "--min-level",
    metavar="LEVEL",
    callback=whole_number(0, 3),
    default="0",
    help="Require this level of authentication, 1 to 3; 0: any.",
)
@click.option(
    "--max-age",
    callback=checked_span,
    metavar="DURATION",
    default=None,
    help="Require an authentication younger than this, such as 15m or 1h30m.",
)
@click.option("--active", is_flag=True, help="Count this as a use of the session: restart its idle timeout.")
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
    """Check a token. Exit code 0 if it is VALID, 3 if not.

    The token is read from standard input or a hidden prompt. If it is due for renewal, the new token is not shown: the
    client gets it with its own next request. A token that the server never issued counts as a guess from the address
    that --ip names; without --ip it counts only towards the policy's `flood_after`.

    The check restarts the idle timeout only with --active. In every other way the token is judged like that of a
    request: an old token raises a signal, and so does a missing certificate or device if the session is bound to one.
    The policy's reaction may end the session.
    """
    if context.args:
        raise click.UsageError("unexpected argument; pass the token on standard input or at the prompt")
    asked = settings()
    token = read_token()
    from sessiond_client import ClientContext, Requirements

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
        show((str(answer.verdict), "bold green" if answer.valid else "bold red"), f", next step {answer.next_step}")
        show_facts(("signal", signal_text(item)) for item in answer.signals)
        show_facts((f"unmet {item.kind}", item.remedy) for item in answer.unmet)
        show_facts(session_facts(answer.session) if answer.session is not None else ())
    if not answer.valid:
        context.exit(Exit.NOT_VALID)
