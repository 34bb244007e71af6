"""The command that shows what a server does at this moment, like `top`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import click

from sessionctl.applications import chosen
from sessionctl.failures import Command
from sessionctl.numbers import checked_seconds, whole_number
from sessionctl.output import as_json, show, styled
from sessionctl.screen import screen
from sessionctl.settings import Settings, global_options, settings
from sessionctl.top_frame import Look, frame_lines

if TYPE_CHECKING:
    from sessionctl.fullscreen import FullScreen
    from sessionctl.top_state import Frame

__all__ = ["top"]

_SHORTEST = 0.1


def _checked_interval(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    seconds = checked_seconds(context, parameter, value)
    if seconds is not None and seconds < _SHORTEST:
        raise click.BadParameter(f"must be at least {_SHORTEST:g} seconds", context, parameter)
    return seconds


@click.command(cls=Command)
@click.option(
    "--interval",
    metavar="SECONDS",
    default="2",
    callback=_checked_interval,
    help="The time between two frames, at least 0.1. [default: 2]",
)
@click.option("--count", metavar="N", callback=whole_number(1), default=None, help="Stop after N frames.")
@click.option("--once", is_flag=True, help="Show one frame, after one interval. The default without a terminal.")
@global_options
def top(interval: float, count: int | None, once: bool) -> None:
    """Show live what the server is doing, until you press q.

    The frame has the server's version and position, the live sessions and the events a second of each application, the
    alarms since the command started, and the locked sources. Keys: q quits, p pauses, a switches to the next
    application, h shows help. With --once, or if the output is not a terminal, one frame is written. With -o json each
    frame is one line.

    Sessions and locks need the role operator, and events the role subscriber; what the caller may not see is left out.
    While the server cannot be reached, the frame says since when, and the command tries again.
    """
    if once and count is not None:
        raise click.UsageError("use either --once or --count")
    asked = settings()
    interactive = not once and not asked.json and screen().terminal and os.environ.get("TERM") != "dumb"
    frames = count if count is not None else 1 if once or not (interactive or asked.json) else None
    look = Look(asked.target, asked.application, interval, keys=interactive)
    with ExitStack() as stack:
        take = _begin(asked, interval, stack, patient=interactive)
        if interactive:
            _on_terminal(take, look, frames)
        else:
            _in_lines(take, look, frames)


def _begin(asked: Settings, interval: float, stack: ExitStack, *, patient: bool) -> Callable[[], Frame]:
    """Begin to ask the server, until the stack is left; what is returned takes a frame.

    `patient`: somebody sees the next frames too, so that the first one need not have everything.
    """
    from sessionctl.top_source import Source  # these imports are here so that help does not wait for gRPC
    from sessionctl.top_state import State

    state = State()
    source = Source(asked, state, interval)
    stack.callback(source.stop)
    chosen(source.start().applications)
    if not patient:
        source.wait(asked.timeout)
    now = screen().now
    state.frame(now(), time.monotonic())  # the rates of a frame are those since the one before
    return lambda: state.frame(now(), time.monotonic())


def _in_lines(take: Callable[[], Frame], look: Look, frames: int | None) -> None:
    """Write frames one after the other; None: until Ctrl-C."""
    number = 0
    while frames is None or number < frames:
        time.sleep(look.seconds)
        frame = take().only(look.application)
        number += 1
        if settings().json:
            as_json(_document(frame), kind="frame", target=look.target)
            continue
        if number > 1:
            show()
        for line in frame_lines(frame, look):
            show(*line)


def _on_terminal(take: Callable[[], Frame], look: Look, frames: int | None) -> None:
    """Show frames in place of each other, and obey the keys."""
    from sessionctl.fullscreen import FullScreen, Terminated

    try:
        with FullScreen() as terminal:
            _Session(take, look, terminal).run(frames)
    except Terminated as asked:
        asked.end()


class _Session:
    """Somebody in front of the screen."""

    def __init__(self, take: Callable[[], Frame], look: Look, terminal: FullScreen) -> None:
        self._take, self._look, self._terminal = take, look, terminal
        self._may_switch = not look.application

    def run(self, frames: int | None) -> None:
        """Show so many frames, or frames until q is pressed."""
        frame, number = self._take(), 1
        due = time.monotonic() + self._look.seconds
        while True:
            self._draw(frame)
            key = self._terminal.key(due - time.monotonic())
            if key == "q":
                return
            self._obey(key, [one.application for one in frame.applications])
            if time.monotonic() < due:
                continue
            due = time.monotonic() + self._look.seconds
            if not self._look.paused:
                if number == frames:
                    return
                frame, number = self._take(), number + 1

    def _obey(self, key: str, names: list[str]) -> None:
        look = self._look
        match key:
            case "p":
                self._look = look._replace(paused=not look.paused)
            case "h" | "?":
                self._look = look._replace(helping=not look.helping)
            case "a" if self._may_switch:
                following = dict(pairwise(["", *names, ""]))  # an application that is gone has none
                self._look = look._replace(application=following.get(look.application, ""))
            case _:
                pass

    def _draw(self, frame: Frame) -> None:
        self._terminal.draw([styled(*line) for line in frame_lines(frame.only(self._look.application), self._look)])


def _document(frame: Frame) -> Frame:
    """The frame without what a program does not need each time: the policies of the applications."""
    if frame.authority is None:
        return frame
    return replace(frame, authority=replace(frame.authority, applications=()))
