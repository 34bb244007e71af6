"""Watching: what the authority of one process remembers of how sessions are used and who guesses."""

from __future__ import annotations

from collections.abc import Sequence

from sessiond.detection.client_facts import FactReader
from sessiond.domain.event import Event, EventType
from sessiond.domain.guessing import GuessWatch
from sessiond.domain.policy import Policy
from sessiond.domain.session import Session
from sessiond.domain.signals import Reaction, Signal
from sessiond.domain.values import NOBODY, ClientContext, Instant
from sessiond.domain.watch import MissedRolls, SuspicionFold, UseWatch, compare

__all__ = ["Watching"]

_ANEW = (EventType.SESSION_AUTHENTICATED, EventType.SESSION_REVOKED, EventType.SESSION_EXPIRED)
_REFUSING = (Reaction.STEP_UP, Reaction.REVOKE_SESSION, Reaction.REVOKE_SUBJECT)


class Watching:
    """Signals of use, their folding, and guesses. All of it bounded, none of it durable: events are."""

    def __init__(self, reader: FactReader) -> None:
        self._reader = reader
        self._uses = UseWatch()
        self._fold = SuspicionFold()
        self._missed = MissedRolls()
        self.guesses = GuessWatch()

    def is_at_home(self, session: Session, client: ClientContext) -> bool:
        """Whether `examine` would find nothing to look at."""
        home = session.client
        silent = client == NOBODY and not _is_bound(home)
        return (client == home or silent or home == NOBODY) and not self._uses.knows(session.id)

    def examine(self, session: Session, client: ClientContext, policy: Policy, now: Instant) -> tuple[Signal, ...]:
        """What is suspicious about this client using this session.

        Nothing can be where nothing was seen, unless the session is bound to something that is then missing.
        """
        if session.client == NOBODY or (client == NOBODY and not _is_bound(session.client)):
            return ()
        if client == session.client:
            if not self._uses.knows(session.id):
                return ()  # nearly always
            seen = expected = self._reader.facts(client, policy.ipv4_prefix, policy.ipv6_prefix)
        else:
            expected = self._reader.facts(session.client, policy.ipv4_prefix, policy.ipv6_prefix)
            seen = self._reader.facts(client, policy.ipv4_prefix, policy.ipv6_prefix)
        signals = compare(expected, seen)
        if policy.reaction_to(signals) in _REFUSING:
            return signals  # who is refused takes no turns with the honest client
        turns = self._uses.see(session.id, expected, seen, policy.concurrent_use_window, now)
        return signals if turns is None else (*signals, turns)

    def miss(self, session: Session) -> None:
        """A token came back whose holder may have missed the answer to the session's roll."""
        self._missed.note(session.id, session.generation)

    def second_holder(self, session: Session) -> tuple[Signal, ...]:
        """That the session's own token is used although one from before its roll came back: two hold the session."""
        return self._missed.signals(session.id, session.generation)

    def is_fresh(self, session: Session, signals: tuple[Signal, ...], policy: Policy, now: Instant) -> bool:
        """Whether any signal that the policy does not ignore was not told lately; they count as told from now on."""
        heard = [signal for signal in signals if policy.reactions[signal.type] is not Reaction.IGNORE]
        return bool(self._fold.news(session.id, heard, policy.fold_window, now))

    def apply(self, events: Sequence[Event]) -> None:
        """Take in what was committed: for sessions that were authenticated again all begins anew, others have ended."""
        for event in events:
            if event.type in _ANEW and event.session_id is not None:
                self._uses.forget(event.session_id)
                self._fold.forget(event.session_id)
                self._missed.forget(event.session_id)


def _is_bound(home: ClientContext) -> bool:
    return bool(home.certificate_thumbprint or home.device_id)
