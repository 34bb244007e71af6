"""Reactions: what follows from a judgement and its signals under a policy. Nothing else decides this."""

from __future__ import annotations

from dataclasses import replace

from sessiond.domain.immutable import immutable
from sessiond.domain.judge import Judgement, Verdict
from sessiond.domain.policy import Policy
from sessiond.domain.session import Session
from sessiond.domain.signals import Reaction, SignalType

__all__ = ["Consequences", "consequences_of"]

_REVOKING = (Reaction.REVOKE_SESSION, Reaction.REVOKE_SUBJECT)
_OF_THE_SESSION = frozenset(
    {SignalType.TOKEN_REPLAY, SignalType.TOKEN_COPY, SignalType.CONCURRENT_USE, SignalType.REPORTED}
)
"""Signals that cannot tell which client is the intruder: a step-up for one of them applies to every client."""


@immutable
class Consequences:
    """What follows from one judgement.

    judgement        as the caller is to get it: the verdict after the reactions
    reaction         to all signals together; IGNORE if there are none
    ends_session     the session must be revoked
    ends_subject     so must every other session of its subject
    holds_session    from now on the session needs authentication, whichever client comes
    """

    judgement: Judgement
    reaction: Reaction
    ends_session: bool
    ends_subject: bool
    holds_session: bool

    @property
    def changes_session(self) -> bool:
        """Whether the reaction changes the session itself: then it must be recorded, however often it was before."""
        return self.ends_session or self.holds_session


def consequences_of(session: Session, judgement: Judgement, policy: Policy) -> Consequences:
    """What follows from a judgement of a live session, signals of the session's use included.

    The strongest reaction of all signals decides. A session that must authenticate is INSUFFICIENT even without a
    signal. A verdict that denies already is not changed by reactions.
    """
    reaction = policy.reaction_to(judgement.signals)
    ends = reaction in _REVOKING
    holds = (
        reaction is Reaction.STEP_UP
        and not session.must_authenticate
        and any(s.type in _OF_THE_SESSION and policy.reactions[s.type] is reaction for s in judgement.signals)
    )
    return Consequences(
        _after_reaction(session, judgement, reaction, ends=ends),
        reaction,
        ends_session=ends,
        ends_subject=reaction is Reaction.REVOKE_SUBJECT and bool(session.subject),
        holds_session=holds,
    )


def _after_reaction(session: Session, judgement: Judgement, reaction: Reaction, *, ends: bool) -> Judgement:
    if judgement.verdict is not Verdict.VALID:
        return judgement
    if ends:
        return Judgement(Verdict.REVOKED, signals=judgement.signals)
    if reaction is Reaction.IGNORE and judgement.signals:
        judgement = replace(judgement, signals=())  # ignored signals are evidence beside another one, and nothing alone
    if reaction is Reaction.STEP_UP or session.must_authenticate:
        return replace(judgement, verdict=Verdict.INSUFFICIENT)
    return judgement
