"""The command that measures from outside how long caches accept a session after it was revoked."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from sessionctl.exits import Exit
from sessionctl.failures import Command, Failure
from sessionctl.numbers import checked_bound
from sessionctl.output import as_json
from sessionctl.settings import Settings, global_options, settings
from sessionctl.tables import Cell, Column, show_table
from sessionctl.targets import checked_target

if TYPE_CHECKING:
    from sessiond_client import Client, Created, SessiondError

__all__ = ["verify_caches"]

_REASON = "sessionctl verify-caches"
_LIFE = timedelta(minutes=10)
"""How long the probe's session lives if the command is killed."""
_ROUNDS = 20
"""How often each cache accepts the session before it is revoked, so that it knows it by heart."""
_SETTLED = 0.5
"""Seconds without a yes after which a cache is believed to have stopped."""
_PATIENCE = 5.0
"""Seconds past the bound after which the command stops asking."""
_AWAITED_PATIENCE = 20.0
"""Seconds that an awaited revocation may take: as long as the leases of caches that have crashed, and more."""
_COLUMNS = (
    Column("CACHE", cut=True, least=20),
    Column("REVOCATION"),
    Column("ACCEPTED FOR"),
    Column("BOUND"),
    Column("ASKED", rank=1),
    Column("RESULT"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """How one cache behaved after one revocation."""

    cache: str
    revocation: str
    """`plain` or `awaited`."""
    yes_for: timedelta
    """From the return of the revocation until the cache was last asked with the answer yes; 0: it never was."""
    bound: timedelta
    asked: int
    """How often it was asked after the revocation had returned."""
    still_yes: bool
    """Whether it still said yes when the command stopped asking."""

    @property
    def is_within(self) -> bool:
        """Whether it kept to the bound."""
        return self.yes_for <= self.bound and not self.still_yes


@click.command("verify-caches", cls=Command)
@click.option(
    "--cache",
    "caches",
    metavar="ADDRESS",
    multiple=True,
    help="A server that may answer from a cache: a replica, a server with workers (one of them is asked), a sidecar. "
    "Repeatable. [default: the target]",
)
@click.option(
    "--bound",
    metavar="SECONDS",
    callback=checked_bound,
    default="5",
    help="How long a cache may accept the session after a plain revocation. [default: 5]",
)
@click.option(
    "--awaited-bound",
    metavar="SECONDS",
    callback=checked_bound,
    default="0",
    help="The same after a revocation that waits for caches. [default: 0]",
)
@global_options
@click.pass_context
def verify_caches(context: click.Context, caches: Sequence[str], bound: float, awaited_bound: float) -> None:
    """Measure how long caches accept a session after its end.

    For each kind of revocation, plain and awaited, the command opens an anonymous session at the target, lets every
    cache accept it, revokes it at the target, and asks every cache until it denies it. It reports how long each cache
    still accepted the session after the revocation had returned. The exit code is 5 if one exceeded its bound.

    It is safe in production: it touches only the two sessions that it opens, and uses a connection to each cache.
    """
    asked = settings()
    addresses = [checked_target(address, "--cache") for address in dict.fromkeys(caches)] or [asked.target]
    found = [
        *_measured(asked, addresses, bound, awaited=False),
        *_measured(asked, addresses, awaited_bound, awaited=True),
    ]
    if asked.json:
        for one in found:
            as_json(one, is_within=one.is_within)
    else:
        show_table(_COLUMNS, map(_row, found))
    late = [one for one in found if not one.is_within]
    if late:
        names = ", ".join(dict.fromkeys(one.cache for one in late))
        raise Failure(f"a cache accepted a revoked session for longer than its bound: {names}", Exit.STALE)


def _row(one: Measured) -> Sequence[Cell]:
    return (
        (one.cache, "bold"),
        (one.revocation, ""),
        (f"{'over ' if one.still_yes else ''}{_text(one.yes_for)}", ""),
        (_text(one.bound), ""),
        (str(one.asked), ""),
        ("ok", "green") if one.is_within else ("past the bound", "bold red"),
    )


def _text(span: timedelta) -> str:
    milliseconds = span / timedelta(milliseconds=1)
    return f"{milliseconds / 1000:g} s" if milliseconds >= 1000 else f"{milliseconds:.3g} ms"


def _measured(asked: Settings, addresses: Sequence[str], bound: float, *, awaited: bool) -> list[Measured]:
    """Open a session, let every cache accept it, revoke it, and ask every cache until it stops saying yes."""
    from sessiond_client import SessiondError

    with ExitStack() as stack:
        target = stack.enter_context(asked.client())
        clients = [stack.enter_context(replace(asked, target=address).client()) for address in addresses]
        made = stack.enter_context(_session(target))
        askers = [_Asker(address, client, made) for address, client in zip(addresses, clients, strict=True)]
        for asker in askers:
            stack.callback(asker.stop)
            asker.start()
        for address, asker in zip(addresses, askers, strict=True):
            try:
                asker.wait_until_known()
            except SessiondError as error:
                raise _of_cache(error, address, asked) from None
        target.revoke(
            token=made.token,
            reason=_REASON,
            wait_for_caches=awaited,
            timeout=max(asked.timeout, _AWAITED_PATIENCE) if awaited else None,
        )
        revoked_at = time.monotonic()
        until = revoked_at + bound + _PATIENCE
        return [asker.finish(revoked_at, until, bound, "awaited" if awaited else "plain") for asker in askers]


def _of_cache(error: SessiondError, address: str, asked: Settings) -> Exception:
    """The failure of a cache, which names it and not the target."""
    from sessionctl.refusals import explained

    if address == asked.target:
        return error
    failure = explained(error, replace(asked, target=address, target_from="--cache"))
    if failure is None or address in failure.message:
        return failure or error
    return Failure(f"{address}: {failure.message}", Exit(failure.exit_code))


@contextmanager
def _session(client: Client) -> Iterator[Created]:
    from sessiond_client import Lifetimes, SessiondError

    made = client.create(lifetimes=Lifetimes(absolute_timeout=_LIFE))
    try:
        yield made
    finally:
        with suppress(SessiondError):  # its life is short in any case
            client.revoke(session_id=made.session.session_id, reason=_REASON)


class _Asker:
    """Asks one cache in a thread of its own, from before the revocation until it denies."""

    def __init__(self, address: str, client: Client, made: Created) -> None:
        self._address, self._client, self._made = address, client, made
        self._thread = threading.Thread(target=self._run, name=f"ask {address}", daemon=True)
        self._known = threading.Event()
        self._stopped = threading.Event()
        self._failure: Exception | None = None
        self._asked_at: list[float] = []
        self._last_yes = 0.0

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def wait_until_known(self) -> None:
        """Wait until the cache has accepted the session often enough. Raises what its first question ended in."""
        self._known.wait()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Ask no more."""
        self._stopped.set()

    def finish(self, revoked_at: float, until: float, bound: float, revocation: str) -> Measured:
        """Ask until the cache has denied the session for a while, at most until then."""
        while (now := time.monotonic()) < until and now < max(revoked_at, self._last_yes) + _SETTLED:
            time.sleep(_SETTLED / 10)
        self.stop()
        self._thread.join()
        return Measured(
            cache=self._address,
            revocation=revocation,
            yes_for=timedelta(seconds=max(0.0, self._last_yes - revoked_at)),
            bound=timedelta(seconds=bound),
            asked=sum(moment >= revoked_at for moment in self._asked_at),
            still_yes=self._last_yes + _SETTLED > until,
        )

    def _run(self) -> None:
        from sessiond_client import SessiondError

        try:
            # The first question reaches a replica that may not know of the session yet.
            self._accept(self._made.consistency_token)
            for _ in range(_ROUNDS):
                self._accept("")
        except Exception as error:  # noqa: BLE001 - raised again by `wait_until_known`
            self._failure = error
            return
        finally:
            self._known.set()
        while not self._stopped.is_set():
            asked_at = time.monotonic()
            self._asked_at.append(asked_at)
            with suppress(SessiondError):  # a cache that cannot answer does not say yes
                if self._client.validate(self._made.token).valid:
                    self._last_yes = asked_at
            time.sleep(0.001)

    def _accept(self, at_least: str) -> None:
        from sessiond_client import InvalidArgument, OutOfRange

        try:
            answer = self._client.validate(self._made.token, at_least=at_least)
        except (InvalidArgument, OutOfRange):  # a position of another log
            answer = self._client.validate(self._made.token)
        if not answer.valid:
            raise Failure(
                f"{self._address} answers {answer.verdict} for a new session; "
                "name only caches of the authority at --target"
            )
