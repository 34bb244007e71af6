"""Policies: the reactions of the presets, which of several counts, and the limits of remembered sessions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise, permutations

import pytest

from sessiond.domain.guess_limits import GuessLimits
from sessiond.domain.policy import PRESETS, Policy
from sessiond.domain.signals import Reaction, Signal, SignalType, strongest
from sessiond.domain.values import Millis

MINUTE = 60_000
POLICY = PRESETS["owasp-low"]
REMEMBERING = replace(
    POLICY, remember_idle_timeout=Millis(MINUTE * 60 * 24 * 14), remember_absolute_timeout=Millis(MINUTE * 60 * 24 * 90)
)
MILDEST_FIRST = [
    Reaction.IGNORE,
    Reaction.ALERT,
    Reaction.STEP_UP,
    Reaction.REVOKE_SESSION,
    Reaction.REVOKE_SUBJECT,
]


def reacting(**reactions: Reaction) -> Policy:
    """The default policy with these reactions in place of its own."""
    changed = {SignalType(kind): reaction for kind, reaction in reactions.items()}
    return replace(POLICY, reactions={**POLICY.reactions, **changed})


def signals(*kinds: SignalType) -> list[Signal]:
    """Signals of these kinds."""
    return [Signal(kind, "expected", "seen") for kind in kinds]


# Reactions


@pytest.mark.parametrize("preset", list(PRESETS))
def test_every_signal_has_a_reaction(preset: str) -> None:
    """Every preset says what it does about every kind of signal."""
    assert set(PRESETS[preset].reactions) == set(SignalType)


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize(
    "kind", [SignalType.TOKEN_REPLAY, SignalType.CERTIFICATE_MISMATCH, SignalType.COMPANION_MISMATCH]
)
def test_what_only_a_thief_does_ends_the_session(preset: str, kind: SignalType) -> None:
    """An old token, another certificate or another session's companion token ends the session in every preset."""
    assert PRESETS[preset].reaction_to(signals(kind)) is Reaction.REVOKE_SESSION


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("kind", [SignalType.IP_CHANGE, SignalType.NETWORK_CHANGE])
def test_what_phones_do_disturbs_nobody(preset: str, kind: SignalType) -> None:
    """In no preset does another address or operator keep the subject from working."""
    assert PRESETS[preset].reaction_to(signals(kind)) in (Reaction.IGNORE, Reaction.ALERT)


@pytest.mark.parametrize("preset", list(PRESETS))
def test_no_report_goes_unheard(preset: str) -> None:
    """In no preset is an application's own suspicion ignored."""
    assert PRESETS[preset].reaction_to(signals(SignalType.REPORTED)) is not Reaction.IGNORE


@pytest.mark.parametrize("kind", list(SignalType))
@pytest.mark.parametrize("strict", ["owasp-high", "nist-aal3"])
def test_the_strict_presets_are_never_milder(strict: str, kind: SignalType) -> None:
    """For no kind of signal is a preset for high value milder than the default one."""
    high, low = PRESETS[strict].reactions[kind], POLICY.reactions[kind]
    assert strongest([high, low]) is high


def test_the_order_of_reactions() -> None:
    """Of two reactions the one further down the list is the stronger, in whatever order they come."""
    for milder, stronger in pairwise(MILDEST_FIRST):
        assert strongest([milder, stronger]) is strongest([stronger, milder]) is stronger
    assert all(strongest(some) is Reaction.REVOKE_SUBJECT for some in permutations(MILDEST_FIRST))
    assert set(MILDEST_FIRST) == set(Reaction)


def test_no_reaction_to_nothing() -> None:
    """Of no reactions the strongest is to ignore, and so is the reaction to no signals."""
    assert strongest([]) is Reaction.IGNORE
    assert POLICY.reaction_to([]) is Reaction.IGNORE


def test_of_several_signals_the_worst_counts() -> None:
    """The reaction to several signals is the most severe of theirs, wherever it stands."""
    policy = reacting(ip_change=Reaction.STEP_UP, reported=Reaction.REVOKE_SUBJECT)
    mild = signals(SignalType.USER_AGENT_CHANGE, SignalType.IP_CHANGE)
    assert policy.reaction_to(mild) is Reaction.STEP_UP
    assert policy.reaction_to([*mild, *signals(SignalType.REPORTED)]) is Reaction.REVOKE_SUBJECT
    assert policy.reaction_to([*signals(SignalType.REPORTED), *mild]) is Reaction.REVOKE_SUBJECT


def test_ending_all_of_a_subjects_sessions_is_asked_for() -> None:
    """No preset ends all of a subject's sessions; a policy with one such reaction does."""
    assert not any(policy.revokes_subjects for policy in PRESETS.values())
    assert reacting(token_replay=Reaction.REVOKE_SUBJECT).revokes_subjects
    assert not reacting(token_replay=Reaction.STEP_UP).revokes_subjects


def test_reactions_are_not_to_be_changed() -> None:
    """The reactions of a preset cannot be changed in place: all policies share them."""
    with pytest.raises(TypeError):
        POLICY.reactions[SignalType.REPORTED] = Reaction.IGNORE  # type: ignore[index]  # that is the test


# Limits


@pytest.mark.parametrize("preset", list(PRESETS))
def test_a_preset_is_whole(preset: str) -> None:
    """Every preset locks guessers no sooner than it alarms, and remembers nobody unless told to."""
    policy = PRESETS[preset]
    assert 0 < policy.guessing.alarm_after < policy.guessing.lock_after < policy.guessing.flood_after
    assert policy.guessing == GuessLimits()
    assert not policy.guessing.deny_valid
    assert (policy.remember_idle_timeout, policy.remember_absolute_timeout) == (None, None)
    assert policy.max_sessions == 0
    assert policy.absolute_timeout is not None
    assert 0 < policy.login_timeout < policy.absolute_timeout


@pytest.mark.parametrize(
    ("preset", "elevation"),
    [("owasp-low", 15), ("owasp-high", 5), ("nist-aal1", 15), ("nist-aal2", 15), ("nist-aal3", 5)],
)
def test_how_long_an_elevation_counts(preset: str, elevation: int) -> None:
    """An elevated authentication counts for 15 minutes, in the presets for high value for 5."""
    assert PRESETS[preset].elevation_timeout == elevation * MINUTE


@pytest.mark.parametrize(
    ("timeout_for", "ordinary", "remembered"),
    [
        (Policy.idle_for, REMEMBERING.idle_timeout, REMEMBERING.remember_idle_timeout),
        (Policy.absolute_for, REMEMBERING.absolute_timeout, REMEMBERING.remember_absolute_timeout),
    ],
)
def test_the_timeouts_of_remembered_sessions(
    timeout_for: Callable[..., Millis | None], ordinary: Millis, remembered: Millis
) -> None:
    """A remembered session has the timeouts of remembered sessions, any other the ordinary ones."""
    assert timeout_for(REMEMBERING, persistent=False) == ordinary
    assert timeout_for(REMEMBERING, persistent=True) == remembered


def test_a_remembered_session_may_have_no_absolute_timeout() -> None:
    """A policy that remembers without an absolute timeout means so."""
    policy = replace(REMEMBERING, remember_absolute_timeout=None)
    assert policy.absolute_for(persistent=True) is None


def test_a_policy_that_remembers_no_more() -> None:
    """Under a policy that cannot remember, a session remembered before has the ordinary timeouts, never none."""
    assert POLICY.idle_for(persistent=True) == POLICY.idle_timeout
    assert POLICY.absolute_for(persistent=True) == POLICY.absolute_timeout
