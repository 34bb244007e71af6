"""Commands about the key ring: the keys with which the server seals tokens and stored data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sessionctl.failures import Group
from sessionctl.output import as_json, printable, show, show_facts, show_note
from sessionctl.settings import global_options, settings
from sessionctl.tables import show_table
from sessionctl.views import KEYS, key_row, short_key

if TYPE_CHECKING:
    from sessiond_client import KeyRing, SealingKeyChanged

__all__ = ["keyring"]

_PATIENCE = 15.0
"""Seconds. Counting what needs a key, and waiting until replicas hold a new one, takes some."""


@click.group(cls=Group)
@global_options
def keyring() -> None:
    """Show and rotate the keys that seal tokens and session data.

    To rotate: `add` a key, `promote` it, and `retire` the previous one once `status` shows no TOKENS for it. The server
    keeps running, and nobody is logged out. These commands show only the fingerprints of keys.
    """


@keyring.command("status")
@global_options
def status() -> None:
    """Show the keys, what each is for, and what still needs it.

    TOKENS is how many live sessions may have a token that the key sealed, and UNTIL when the last of them ends. VALUES
    is how many values of session data are encrypted with the key, and MOVED how many have moved to the sealing key.
    """
    with settings().client() as client:
        ring = client.key_ring(timeout=_PATIENCE)
    if settings().json:
        as_json(ring)
        return
    show_table(KEYS, [key_row(key) for key in ring.keys])
    show("")
    show_facts(_facts(ring))
    if ring.change:
        show_note(f"To add, promote or retire a key, change {printable(ring.change)}.")


@keyring.command("add")
@click.option("--local", is_flag=True, help="Only this server gets the key. Copy its key file to the other replicas.")
@click.option("--reason", default="", help="Why, for the event.")
@global_options
def add(local: bool, reason: str) -> None:
    """Add a new random key, which encrypts nothing until it is promoted.

    The server creates the key and keeps it in its key file. Other replicas get it through the database, where it is
    encrypted under the sealing key. If the sealing key may have been stolen, use --local.
    """
    with settings().client() as client:
        changed = client.add_sealing_key(local=local, reason=reason, timeout=_PATIENCE)
        ring = None if settings().json else client.key_ring(timeout=_PATIENCE)
    _show("added", "green", changed)
    if ring is None:
        return
    lacking = [key.lacking_replicas for key in ring.keys if key.fingerprint == changed.key.fingerprint]
    if any(lacking):
        names = "; ".join(map(printable, lacking[0]))
        show_note(f"Not held yet by: {names}. See `sessionctl keyring status`.")
    show_note("Back up the key file before you promote the key.")


@keyring.command("promote")
@click.argument("fingerprint", default="")
@click.option("--reason", default="", help="Why, for the event.")
@global_options
def promote(fingerprint: str, reason: str) -> None:
    """Encrypt with the key FINGERPRINT from now on.

    The previous sealing key can still decrypt what it encrypted. FINGERPRINT is at least the first 8 digits; the
    default is the key that was added but not promoted yet. The command is refused while a running replica does not
    hold the key.
    """
    with settings().client() as client:
        changed = client.promote_sealing_key(fingerprint, reason=reason, timeout=_PATIENCE)
    _show("sealing", "green", changed)


@keyring.command("retire")
@click.argument("fingerprint")
@click.option(
    "--log-out-sessions",
    is_flag=True,
    help="Retire the key even if live sessions have tokens of it. They are logged out.",
)
@click.option("--reason", default="", help="Why, for the event.")
@global_options
def retire(fingerprint: str, log_out_sessions: bool, reason: str) -> None:
    """Remove the key FINGERPRINT once nothing needs it any more.

    FINGERPRINT is at least the first 8 digits. Stored data that the key encrypted is encrypted again with the sealing
    key, in the background; `sessionctl keyring status` shows the progress. The command is refused while a live session
    may have a token that the key sealed.
    """
    with settings().client() as client:
        changed = client.retire_sealing_key(
            fingerprint, log_out_sessions=log_out_sessions, reason=reason, timeout=_PATIENCE
        )
    removed = changed.key.state.name == "RETIRED"
    _show("removed" if removed else "retiring", "yellow", changed)
    if not removed and not settings().json:
        show_note("It is removed once nothing needs it any more. See `sessionctl keyring status`.")


def _show(done: str, style: str, changed: SealingKeyChanged) -> None:
    if settings().json:
        as_json(changed)
    else:
        show((done, style), f": {short_key(changed.key)}")


def _facts(ring: KeyRing) -> list[tuple[str, str]]:
    """What holds for the whole ring."""
    more = "at least " if ring.values_partial else ""
    facts = [("keys from", ring.source), ("session data", "encrypted" if ring.encrypts_data else "not encrypted")]
    if ring.plain_values:
        facts.append(("plain values", f"{more}{ring.plain_values:,}"))
    return facts
