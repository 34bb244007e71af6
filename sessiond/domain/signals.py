"""Signals: individual reasons for suspicion, with their evidence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from enum import StrEnum

from sessiond.domain.immutable import immutable

__all__ = ["Reaction", "Signal", "SignalType", "as_copies", "strongest", "token_replay"]


class SignalType(StrEnum):
    """The types of signals."""

    TOKEN_REPLAY = "token_replay"  # noqa: S105 - a kind of signal, not a secret
    TOKEN_COPY = "token_copy"  # noqa: S105 - a kind of signal, not a secret
    USER_AGENT_CHANGE = "user_agent_change"
    IP_CHANGE = "ip_change"
    NETWORK_CHANGE = "network_change"
    COUNTRY_CHANGE = "country_change"
    CERTIFICATE_MISMATCH = "certificate_mismatch"
    DEVICE_MISMATCH = "device_mismatch"
    CONCURRENT_USE = "concurrent_use"
    COMPANION_MISMATCH = "companion_mismatch"
    REPORTED = "reported"


class Reaction(StrEnum):
    """What a policy does about a signal, from mildest to most severe."""

    IGNORE = "ignore"
    ALERT = "alert"
    STEP_UP = "step-up"
    REVOKE_SESSION = "revoke-session"
    REVOKE_SUBJECT = "revoke-subject"


_STRENGTH = {reaction: strength for strength, reaction in enumerate(Reaction)}


def strongest(reactions: Iterable[Reaction]) -> Reaction:
    """Return the most severe reaction; IGNORE if there are none."""
    return max(reactions, key=_STRENGTH.__getitem__, default=Reaction.IGNORE)


@immutable
class Signal:
    """One reason for suspicion: what was expected and what was seen. It never holds a token or session data."""

    type: SignalType
    expected: str
    seen: str


def as_copies(signals: tuple[Signal, ...]) -> tuple[Signal, ...]:
    """Return the signals with each TOKEN_REPLAY changed to TOKEN_COPY.

    For an old token that the session's own client presented: its device holds a second copy of the token, for example
    from a backup, or received the new token late.
    """
    return tuple(replace(s, type=SignalType.TOKEN_COPY) if s.type is SignalType.TOKEN_REPLAY else s for s in signals)


def token_replay(current: int, presented: int, *, other_secret: bool) -> Signal:
    """Return the signal for a replayed old token. Its evidence: both generations, and whether a roll lies between."""
    return Signal(
        SignalType.TOKEN_REPLAY,
        expected=f"generation {current}",
        seen=f"generation {presented}" + (", rolled away" if other_secret else ""),
    )
