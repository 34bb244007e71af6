"""Words that leave the process: what stands in databases, configurations, logs and tokens stays as it is."""

from __future__ import annotations

from enum import StrEnum

import pytest

from sessiond.domain.device import DeviceType
from sessiond.domain.event import EventType
from sessiond.domain.guess_limits import GuessLimits
from sessiond.domain.judge import Verdict
from sessiond.domain.policy import LimitRule
from sessiond.domain.query import SessionQuery
from sessiond.domain.requirements import RequirementKind
from sessiond.domain.session import SessionState
from sessiond.domain.signals import Reaction, SignalType
from sessiond.domain.values import CauseKind, Instant, Millis

WITH_UNDERSCORES: list[type[StrEnum]] = [
    CauseKind,
    DeviceType,
    EventType,
    RequirementKind,
    SessionState,
    SignalType,
    Verdict,
]
WITH_HYPHENS: list[type[StrEnum]] = [LimitRule, Reaction]


@pytest.mark.parametrize("words", WITH_UNDERSCORES)
def test_a_word_is_its_name_in_lower_case(words: type[StrEnum]) -> None:
    """Each word of the store and of evidence is its member's name in lower case."""
    assert [word.value for word in words] == [word.name.lower() for word in words]


@pytest.mark.parametrize("words", WITH_HYPHENS)
def test_a_word_of_the_configuration_has_hyphens(words: type[StrEnum]) -> None:
    """Each word that people write into a configuration is its member's name in lower case, with hyphens."""
    assert [word.value for word in words] == [word.name.lower().replace("_", "-") for word in words]


def test_guess_limits_by_default() -> None:
    """20 guesses a minute from one source alarm, 100 lock it for a quarter of an hour, 1,000 from anywhere alarm."""
    assert GuessLimits() == GuessLimits(20, 100, 1_000, Millis(60_000), Millis(900_000), False)


def test_a_query_by_default() -> None:
    """By default a query is for a hundred live sessions of anybody, with deadlines taken by the letter."""
    default = SessionQuery("default", Instant(1))
    assert default == SessionQuery(
        "default", Instant(1), SessionState.ACTIVE, None, None, None, None, (), None, None, Millis(0), 100
    )
