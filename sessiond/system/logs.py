"""Logging with structlog: JSON for machines, colours for people. No log contains a token: the repr of `Token` hides it.

Text from clients cannot control the terminal that shows a log: JSON escapes everything but ASCII, and console output
passes `printable`.
"""

from __future__ import annotations

import io
import logging
import sys
from typing import TextIO

import structlog

from sessiond.domain.text import printable
from sessiond.system.ongoing import call_id

__all__ = ["set_up_logs"]


def set_up_logs(form: str, level: str) -> None:
    """Write logs of that level and above to standard error.

    `form` is `json`, `console`, or `auto`: console if standard error is a terminal, else json.
    """
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    # Tracebacks leave out local variables, because one of them could be a request.
    renderers: list[structlog.typing.Processor] = (
        [_harmless, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=_plain_traceback)]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            _with_call_id,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def _with_call_id(
    _: structlog.typing.WrappedLogger, __: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Add the id of the ongoing call to a line that is about one."""
    if "call_id" not in event and (found := call_id()):
        event["call_id"] = found
    return event


def _harmless(
    _: structlog.typing.WrappedLogger, __: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    # Values of other types are shown by their `repr`, which escapes control characters itself.
    return {key: printable(value) if isinstance(value, str) else value for key, value in event.items()}


def _plain_traceback(target: TextIO, exception: structlog.typing.ExcInfo) -> None:
    text = io.StringIO()
    structlog.dev.plain_traceback(text, exception)
    target.write("\n".join(printable(line) for line in text.getvalue().split("\n")))
