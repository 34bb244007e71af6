"""Logs: text from clients stays text, whatever characters it has."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import structlog

from sessiond.system.logs import set_up_logs

EVIL = "\x1b[2J\x9b2J\u202egnp.exe\x7f\n2026 forged line"


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_log_cannot_command_a_terminal(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A value, a list of values and the text of an exception are one line each, without control characters."""
    set_up_logs(form, "info")
    log = structlog.get_logger()
    log.info("odd", subject=EVIL, signals=[EVIL])
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert shown.removesuffix("\n").isprintable()
    assert r"\u202e" in shown
    try:
        raise ValueError(EVIL)
    except ValueError:
        log.exception("failed")
    shown = capsys.readouterr().err
    assert all(line.isprintable() for line in shown.split("\n"))
    assert r"\u202e" in shown


def test_json_says_exactly_what_was_logged(capsys: pytest.CaptureFixture[str]) -> None:
    """A program that reads the JSON gets the exact text."""
    set_up_logs("json", "info")
    structlog.get_logger().info("odd", subject=EVIL)
    assert json.loads(capsys.readouterr().err)["subject"] == EVIL
