"""Reactions: what follows from a judgement, as a table."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis.strategies import booleans, fixed_dictionaries, lists, sampled_from

from sessiond.domain.judge import PLAIN, Judgement, Verdict
from sessiond.domain.policy import PRESETS, Policy
from sessiond.domain.reactions import Consequences, consequences_of
from sessiond.domain.session import Session
from sessiond.domain.signals import Reaction, Signal, SignalType
from tests.contracts import samples

IGNORE, ALERT, STEP_UP = Reaction.IGNORE, Reaction.ALERT, Reaction.STEP_UP
REVOKE_SESSION, REVOKE_SUBJECT = Reaction.REVOKE_SESSION, Reaction.REVOKE_SUBJECT
OF_THE_SESSION = (SignalType.TOKEN_REPLAY, SignalType.TOKEN_COPY, SignalType.CONCURRENT_USE, SignalType.REPORTED)
OF_THE_CLIENT = (
    SignalType.USER_AGENT_CHANGE,
    SignalType.IP_CHANGE,
    SignalType.NETWORK_CHANGE,
    SignalType.COUNTRY_CHANGE,
    SignalType.CERTIFICATE_MISMATCH,
    SignalType.DEVICE_MISMATCH,
    SignalType.COMPANION_MISMATCH,
)
FREE = samples.session()
HELD = replace(FREE, must_authenticate=True)
DENIED = [verdict for verdict in Verdict if verdict is not Verdict.VALID]


class Row(NamedTuple):
    """What follows from a VALID token's use with one signal: the verdict and whether the signal shows; the effects."""

    reaction: Reaction
    must_authenticate: bool
    of_the_session: bool
    verdict: Verdict
    shows: bool
    effects: frozenset[str] = frozenset()


ENDS, ENDS_ALL, HOLDS = frozenset({"session"}), frozenset({"session", "subject"}), frozenset({"holds"})
TABLE = [
    Row(IGNORE, False, False, Verdict.VALID, False),
    Row(IGNORE, False, True, Verdict.VALID, False),
    Row(IGNORE, True, False, Verdict.INSUFFICIENT, False),
    Row(IGNORE, True, True, Verdict.INSUFFICIENT, False),
    Row(ALERT, False, False, Verdict.VALID, True),
    Row(ALERT, False, True, Verdict.VALID, True),
    Row(ALERT, True, False, Verdict.INSUFFICIENT, True),
    Row(ALERT, True, True, Verdict.INSUFFICIENT, True),
    Row(STEP_UP, False, False, Verdict.INSUFFICIENT, True),
    Row(STEP_UP, False, True, Verdict.INSUFFICIENT, True, HOLDS),
    Row(STEP_UP, True, False, Verdict.INSUFFICIENT, True),
    Row(STEP_UP, True, True, Verdict.INSUFFICIENT, True),
    *(
        Row(reaction, must_authenticate, of_the_session, Verdict.REVOKED, True, effects)
        for reaction, effects in ((REVOKE_SESSION, ENDS), (REVOKE_SUBJECT, ENDS_ALL))
        for must_authenticate in (False, True)
        for of_the_session in (False, True)
    ),
]
CASES = [
    pytest.param(row, kind, id=f"{row.reaction}-{kind}{'-held' if row.must_authenticate else ''}")
    for row in TABLE
    for kind in (OF_THE_SESSION if row.of_the_session else OF_THE_CLIENT)
]


def rules(reaction: Reaction, *kinds: SignalType) -> Policy:
    """A policy that reacts so to these kinds, and ignores all others."""
    return replace(PRESETS["owasp-low"], reactions=dict.fromkeys(SignalType, IGNORE) | dict.fromkeys(kinds, reaction))


def signal(kind: SignalType) -> Signal:
    """Evidence of that kind."""
    return Signal(kind, "home", "elsewhere")


def effects(consequences: Consequences) -> frozenset[str]:
    """What is to be carried out."""
    flags = {
        "session": consequences.ends_session,
        "subject": consequences.ends_subject,
        "holds": consequences.requires_authentication,
    }
    return frozenset(name for name, is_set in flags.items() if is_set)


def test_the_table_is_whole() -> None:
    """The table has a row for each reaction, each state of the session, and each kind of signal."""
    assert {*OF_THE_SESSION, *OF_THE_CLIENT} == set(SignalType)
    rows = {(row.reaction, row.must_authenticate, row.of_the_session) for row in TABLE}
    assert len(rows) == len(TABLE) == len(Reaction) * 4


@pytest.mark.parametrize(("row", "kind"), CASES)
def test_a_valid_token_with_a_signal(row: Row, kind: SignalType) -> None:
    """A VALID token's verdict, shown signals and effects are those of the table."""
    judgement = Judgement(Verdict.VALID, signals=(signal(kind),))
    session = HELD if row.must_authenticate else FREE
    found = consequences_of(session, judgement, rules(row.reaction, kind))
    assert found.judgement == Judgement(row.verdict, signals=judgement.signals if row.shows else ())
    assert (found.reaction, effects(found)) == (row.reaction, row.effects)
    assert found.changes_session is bool(row.effects)


@pytest.mark.parametrize(("row", "kind"), CASES)
def test_a_denied_token_with_a_signal(row: Row, kind: SignalType) -> None:
    """A verdict that denies stays as it is, signals included; the effects are those of the table all the same."""
    for verdict in DENIED:
        judgement = Judgement(verdict, signals=(signal(kind),))
        found = consequences_of(HELD if row.must_authenticate else FREE, judgement, rules(row.reaction, kind))
        assert found.judgement is judgement
        assert (found.reaction, effects(found)) == (row.reaction, row.effects)


@pytest.mark.parametrize("verdict", [Verdict.VALID, *DENIED])
def test_no_signal_has_no_effect(verdict: Verdict) -> None:
    """Without a signal nothing is to be carried out, and the judgement is the one that was given."""
    judgement = PLAIN if verdict is Verdict.VALID else Judgement(verdict)
    found = consequences_of(FREE, judgement, rules(REVOKE_SUBJECT, *SignalType))
    assert found.judgement is judgement
    assert (found.reaction, effects(found)) == (IGNORE, frozenset())


def test_a_held_session_is_insufficient_without_a_signal() -> None:
    """A session that must authenticate is INSUFFICIENT whoever uses it, and nothing more is to be carried out."""
    found = consequences_of(HELD, PLAIN, rules(REVOKE_SUBJECT, *SignalType))
    assert found.judgement == Judgement(Verdict.INSUFFICIENT)
    assert (found.reaction, effects(found)) == (IGNORE, frozenset())


@pytest.mark.parametrize("reaction", [ALERT, STEP_UP])
@pytest.mark.parametrize("judgement", [Judgement(Verdict.VALID, activates=True), Judgement(Verdict.VALID, hand_out=7)])
def test_what_follows_for_the_token_stays(judgement: Judgement, reaction: Reaction) -> None:
    """A first use or a successor to hand out stays in the judgement as long as the session lives."""
    suspected = replace(judgement, signals=(signal(SignalType.IP_CHANGE),))
    found = consequences_of(FREE, suspected, rules(reaction, SignalType.IP_CHANGE)).judgement
    assert (found.activates, found.hand_out) == (judgement.activates, judgement.hand_out)


@pytest.mark.parametrize("judgement", [Judgement(Verdict.VALID, activates=True), Judgement(Verdict.VALID, hand_out=7)])
def test_a_revoked_session_has_no_next_token(judgement: Judgement) -> None:
    """Where the reaction ends the session, neither a first use nor a successor is left in the judgement."""
    suspected = replace(judgement, signals=(signal(SignalType.IP_CHANGE),))
    found = consequences_of(FREE, suspected, rules(REVOKE_SESSION, SignalType.IP_CHANGE))
    assert found.judgement == Judgement(Verdict.REVOKED, signals=suspected.signals)


@pytest.mark.parametrize("first", list(Reaction))
@pytest.mark.parametrize("second", list(Reaction))
def test_the_strongest_reaction_counts(first: Reaction, second: Reaction) -> None:
    """Of two signals the one with the stronger reaction decides, in either order; both stand as evidence."""
    strongest = max(first, second, key=list(Reaction).index)
    one, other = signal(SignalType.IP_CHANGE), signal(SignalType.USER_AGENT_CHANGE)
    policy = replace(rules(IGNORE), reactions={one.type: first, other.type: second})
    for signals in ((one, other), (other, one)):
        found = consequences_of(FREE, Judgement(Verdict.VALID, signals=signals), policy)
        assert found.reaction is strongest
        assert found.judgement.signals == (() if strongest is IGNORE else signals)


def test_a_step_up_for_a_stranger_holds_no_other_client() -> None:
    """A signal of the whole session holds it only by its own step-up, not by one that a client's signal asks for."""
    both = (signal(SignalType.CONCURRENT_USE), signal(SignalType.DEVICE_MISMATCH))
    found = consequences_of(FREE, Judgement(Verdict.VALID, signals=both), rules(STEP_UP, SignalType.DEVICE_MISMATCH))
    assert (found.reaction, found.requires_authentication) == (STEP_UP, False)
    found = consequences_of(FREE, Judgement(Verdict.VALID, signals=both), rules(STEP_UP, SignalType.CONCURRENT_USE))
    assert (found.reaction, found.requires_authentication) == (STEP_UP, True)


def test_a_stronger_reaction_leaves_nothing_to_hold() -> None:
    """A session that ends by one signal is not held for another."""
    reactions = {SignalType.CONCURRENT_USE: STEP_UP, SignalType.DEVICE_MISMATCH: REVOKE_SESSION}
    policy = replace(rules(IGNORE), reactions=reactions)
    both = (signal(SignalType.CONCURRENT_USE), signal(SignalType.DEVICE_MISMATCH))
    assert effects(consequences_of(FREE, Judgement(Verdict.VALID, signals=both), policy)) == ENDS


@pytest.mark.parametrize("verdict", [Verdict.VALID, Verdict.REPLAYED])
def test_an_anonymous_session_has_no_subject_to_end(verdict: Verdict) -> None:
    """Under `revoke-subject` an anonymous session ends alone: all guests together are no subject."""
    judgement = Judgement(verdict, signals=(signal(SignalType.TOKEN_REPLAY),))
    found = consequences_of(replace(FREE, subject=""), judgement, rules(REVOKE_SUBJECT, SignalType.TOKEN_REPLAY))
    assert (found.reaction, effects(found)) == (REVOKE_SUBJECT, ENDS)


# The next step of a copy

COPY, REPLAY = SignalType.TOKEN_COPY, SignalType.TOKEN_REPLAY
COPIED = Judgement(Verdict.REPLAYED, signals=(signal(COPY),), newer_in_use=True)


@pytest.mark.parametrize("session", [FREE, HELD])
@pytest.mark.parametrize("reaction", list(Reaction))
def test_a_copy_keeps_the_token_of_a_session_that_lives_on(session: Session, reaction: Reaction) -> None:
    """The client of a copy keeps its token, unless the reaction ends the session; nothing else changes."""
    found = consequences_of(session, COPIED, rules(reaction, COPY))
    lives = reaction in (IGNORE, ALERT, STEP_UP)
    assert found.judgement == replace(COPIED, keeps_token=lives)
    assert found.ends_session is not lives


@pytest.mark.parametrize(
    ("session", "judgement"),
    [
        (FREE, replace(COPIED, newer_in_use=False)),
        (replace(FREE, subject=""), COPIED),
        (FREE, replace(COPIED, signals=(signal(REPLAY),))),
        (FREE, replace(COPIED, signals=(signal(COPY), signal(REPLAY)))),
        (FREE, replace(COPIED, signals=(signal(COPY), signal(SignalType.REPORTED)))),
        (FREE, replace(COPIED, signals=())),
        *((FREE, replace(COPIED, verdict=verdict)) for verdict in DENIED if verdict is not Verdict.REPLAYED),
    ],
)
def test_every_other_denied_token_is_discarded(session: Session, judgement: Judgement) -> None:
    """A token that is not newer, a guest's, a stranger's, or denied for any other reason is not kept."""
    assert consequences_of(session, judgement, rules(IGNORE)).judgement is judgement


def test_a_client_that_may_have_missed_a_roll_keeps_its_token() -> None:
    """Its new token may be late instead of lost, so the answer about the old one touches no cookie."""
    judgement = Judgement(Verdict.REPLAYED, may_have_missed_roll=True)
    found = consequences_of(FREE, judgement, rules(REVOKE_SUBJECT, *SignalType))
    assert found.judgement == replace(judgement, keeps_token=True)
    assert (found.reaction, effects(found)) == (IGNORE, frozenset())


@given(
    verdict=sampled_from(Verdict),
    kinds=lists(sampled_from(SignalType), max_size=3),
    newer=booleans(),
    missed=booleans(),
    subject=sampled_from(["", "ada"]),
    reactions=fixed_dictionaries({kind: sampled_from(Reaction) for kind in SignalType}),
)
def test_what_is_kept_is_denied(
    verdict: Verdict,
    kinds: list[SignalType],
    newer: bool,
    missed: bool,
    subject: str,
    reactions: dict[SignalType, Reaction],
) -> None:
    """Whatever a policy says, only denied old tokens of sessions that live on are kept: copies, and missed rolls."""
    signals = tuple(signal(kind) for kind in kinds)
    judgement = Judgement(verdict, signals=signals, newer_in_use=newer, may_have_missed_roll=missed)
    policy = replace(PRESETS["owasp-low"], reactions=reactions)
    found = consequences_of(replace(FREE, subject=subject), judgement, policy)
    behind = missed or (newer and bool(subject) and set(kinds) == {COPY})
    assert found.judgement.keeps_token is (verdict is Verdict.REPLAYED and behind and not found.ends_session)
