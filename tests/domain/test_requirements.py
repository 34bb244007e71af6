"""What a request needs of the authentication, each boundary to the level and to the millisecond."""

from __future__ import annotations

import pytest

from sessiond.domain.requirements import AuthenticationRequirements, RequirementKind, check_authentication
from sessiond.domain.values import Authentication, Instant, Millis
from tests.support.clock import START

LOGIN = Authentication(2, ("pwd", "otp"), START)


def missing(
    authentication: Authentication | None, requirements: AuthenticationRequirements, after: int = 0
) -> list[RequirementKind]:
    """What is missing, so many milliseconds after the start."""
    return [unmet.kind for unmet in check_authentication(authentication, requirements, Instant(START + after))]


@pytest.mark.parametrize("authentication", [None, LOGIN])
def test_nothing_required(authentication: Authentication | None) -> None:
    """Without requirements nothing is missing, not even for an anonymous session of any age."""
    assert missing(authentication, AuthenticationRequirements(), 10**12) == []


@pytest.mark.parametrize(("level", "met"), [(0, True), (1, True), (2, True), (3, False)])
def test_the_level(level: int, met: bool) -> None:
    """A level is met by itself and by any higher one."""
    assert missing(LOGIN, AuthenticationRequirements(min_level=level)) == ([] if met else [RequirementKind.LEVEL])


@pytest.mark.parametrize(("after", "met"), [(0, True), (999, True), (1_000, False), (1_001, False)])
def test_the_age(after: int, met: bool) -> None:
    """At exactly its greatest age an authentication is too old."""
    requirements = AuthenticationRequirements(max_age=Millis(1_000))
    assert missing(LOGIN, requirements, after) == ([] if met else [RequirementKind.AUTHENTICATION_AGE])


def test_an_age_of_nothing() -> None:
    """No authentication is younger than nothing."""
    assert missing(LOGIN, AuthenticationRequirements(max_age=Millis(0))) == [RequirementKind.AUTHENTICATION_AGE]


def test_an_anonymous_session() -> None:
    """An anonymous session has level 0 and no authentication of any age."""
    assert missing(None, AuthenticationRequirements(min_level=1)) == [RequirementKind.LEVEL]
    assert missing(None, AuthenticationRequirements(max_age=Millis(10**12))) == [RequirementKind.AUTHENTICATION_AGE]


def test_level_and_age_are_told_together() -> None:
    """Where level and age are both missing, both are told, each with what would meet it."""
    unmet = check_authentication(LOGIN, AuthenticationRequirements(3, Millis(1_500)), Instant(START + 1_500))
    assert [(one.kind, one.min_level, one.max_age) for one in unmet] == [
        (RequirementKind.LEVEL, 3, None),
        (RequirementKind.AUTHENTICATION_AGE, 0, 1_500),
    ]
    assert "level 3" in unmet[0].remedy
    assert "has 2" in unmet[0].remedy
    assert "1.5 s" in unmet[1].remedy


def test_a_long_age_is_told_in_digits() -> None:
    """The remedy gives an age of thirty days and a bit in full."""
    (unmet,) = check_authentication(None, AuthenticationRequirements(max_age=Millis(2_592_001_000)), START)
    assert "2592001 s" in unmet.remedy
