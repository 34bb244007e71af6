"""The rules of the machine for calls that are repeated with their id."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from sessiond.authority.authority import Authority
from sessiond.authority.results import AnswerSpec
from sessiond.domain.errors import InvalidField
from tests.machine.bench import PICKS, Bench
from tests.machine.model import VALID

__all__ = ["Retries"]


class Retries(Bench):
    """Rules that retry calls."""

    @rule(pick=PICKS, otherwise=st.booleans())
    def ask_again(self, pick: int, otherwise: bool) -> None:
        """Repeat a call with an id: it gets the first response, without an effect; other parameters are refused."""
        if not self.repeats:
            return
        make, request, message, about = self.repeats[-1 - pick % len(self.repeats)]
        if about is not None and self.records[about].standing(self.now) != VALID:
            return  # it is judged again, like any call with such a token
        assert request is not None
        assert message is not None
        if otherwise:
            request = replace(request, parameters=bytes(31) + b"x")
        reply = self.transcript.reply(request)
        for ask in (lambda authority: _recall(authority, reply), lambda authority: make(authority, reply)):
            given = None
            try:
                given = self.ask(ask)
            except InvalidField as refusal:
                assert (otherwise, refusal.field) == (True, "request_id")  # noqa: PT017 - most calls are not refused
            assert (given is None) == otherwise
            assert given is None or given.message == message


async def _recall(authority: Authority, reply: AnswerSpec[Any]) -> Any:
    return await authority.retries.recall(reply)()
