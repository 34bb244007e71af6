"""Words that leave the process: what stands in databases, configurations, logs and tokens stays as it is."""

from __future__ import annotations

from enum import StrEnum

import pytest

from sessiond.domain.device import DeviceType
from sessiond.domain.event import EventType
from sessiond.domain.judge import Verdict
from sessiond.domain.policy import LimitRule
from sessiond.domain.requirements import RequirementKind
from sessiond.domain.session import SessionState
from sessiond.domain.signals import Reaction, SignalType
from sessiond.domain.values import CauseKind

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
