"""Reactions: the consequences of a judgement and its signals under a policy. No other module decides them."""

from __future__ import annotations

from dataclasses import replace

from sessiond.domain.immutable import immutable
from sessiond.domain.judge import Judgement, Verdict
from sessiond.domain.policy import Policy
from sessiond.domain.session import Session
from sessiond.domain.signals import Reaction, SignalType

__all__ = ["Consequences", "consequences_of"]

_REVOKING = (Reaction.REVOKE_SESSION, Reaction.REVOKE_SUBJECT)
_SESSION_WIDE = frozenset(
    {SignalType.TOKEN_REPLAY, SignalType.TOKEN_COPY, SignalType.CONCURRENT_USE, SignalType.REPORTED}
)
"""Signals that cannot tell which client is the intruder: a step-up for one of them applies to every client."""


@immutable
class Consequences:
    """The consequences of one judgement.

    judgement     the judgement for the caller: its verdict takes the reactions into account
    reaction      the reaction to all signals together; IGNORE if there are none
    ends_session  the session must be revoked
    ends_subject  all other sessions of its subject must be revoked too
    requires_authentication
                  from now on every client of the session must authenticate first
    """

    judgement: Judgement
    reaction: Reaction
    ends_session: bool
    ends_subject: bool
    requires_authentication: bool

    @property
    def changes_session(self) -> bool:
        """Return whether the reaction changes the session. If so, it is recorded even if it was reported recently."""
        return self.ends_session or self.requires_authentication


def consequences_of(session: Session, judgement: Judgement, policy: Policy) -> Consequences:
    """Return the consequences of a judgement on a live session; its signals include those of the session's use.

    The strongest reaction to any of the signals decides. A session whose subject must authenticate first is
    INSUFFICIENT even without a signal. Reactions do not change a verdict that already denies.
    """
    reaction = policy.reaction_to(judgement.signals)
    ends = reaction in _REVOKING
    holds = (
        reaction is Reaction.STEP_UP
        and not session.must_authenticate
        and any(s.type in _SESSION_WIDE and policy.reactions[s.type] is reaction for s in judgement.signals)
    )
    return Consequences(
        _after_reaction(session, judgement, reaction, ends=ends),
        reaction,
        ends_session=ends,
        ends_subject=reaction is Reaction.REVOKE_SUBJECT and bool(session.subject),
        requires_authentication=holds,
    )


def _after_reaction(session: Session, judgement: Judgement, reaction: Reaction, *, ends: bool) -> Judgement:
    if judgement.verdict is not Verdict.VALID:
        keeps = not ends and _may_hold_newer_token(session, judgement)
        return replace(judgement, keeps_token=True) if keeps else judgement
    if ends:
        return Judgement(Verdict.REVOKED, signals=judgement.signals)
    if reaction is Reaction.IGNORE and judgement.signals:
        judgement = replace(judgement, signals=())  # an ignored signal counts only as evidence next to others
    if reaction is Reaction.STEP_UP or session.must_authenticate:
        return replace(judgement, verdict=Verdict.INSUFFICIENT)
    return judgement


def _may_hold_newer_token(session: Session, judgement: Judgement) -> bool:
    """Return whether the client of a denied old token may hold a newer one of the session by the time of the response.

    There are two such clients. One may have missed a roll: its new token may be late instead of lost. The other is the
    session's own, and a newer token than its copy is in use. A guest's copy does not count. A guest may never log in,
    and so would never get rid of a copy that is all the client has.
    """
    if judgement.verdict is not Verdict.REPLAYED:
        return False
    if judgement.may_have_missed_roll:
        return True
    copies = bool(judgement.signals) and all(signal.type is SignalType.TOKEN_COPY for signal in judgement.signals)
    return copies and judgement.newer_in_use and bool(session.subject)
