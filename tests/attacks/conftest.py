"""The attack stories are run twice: with validations as calls of their own, and on a stream."""

from __future__ import annotations

import pytest

from tests.attacks import story

_TIMED = "tests.attacks.test_flood"  # compares times of unary calls


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test of a module that validates tokens by both routes."""
    if hasattr(metafunc.module, "validate") and metafunc.module.__name__ != _TIMED:
        metafunc.fixturenames.append("route")
        metafunc.parametrize("route", ["unary", "stream"], indirect=True)


@pytest.fixture
def route(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How `story.validate` asks."""
    monkeypatch.setattr(story, "on_stream", request.param == "stream")
    return str(request.param)
