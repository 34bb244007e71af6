"""What the simulation through the gateway remembers, and the faults that it finds in it."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from sessiond_client import Token
from sessiond_client.answers import Created, Revoked, Rolled, Validation
from tests.simulation.bounds import MINUTE, SECOND
from tests.simulation.expected import Life
from tests.simulation.site import Response

__all__ = ["Records", "Shown"]

_LATE = 5 * SECOND  # the gateway's `late_after`
_OVERLAP = MINUTE  # the presets' `renewal_overlap`


class Issue(NamedTuple):
    """What a token belongs to: its session, how often that had been rolled, since when, and its place among all."""

    session_id: str
    rolls: int
    at: int
    number: int


@dataclass(slots=True)
class Shown(Response):
    """A response, with what it was about. `validated` is when the gateway asked about the request.

    `token` is what the browser must have after a login, a step-up or another roll.
    """

    path: str = ""
    user: str = ""
    validated: int = 0
    left: int = 0
    lives: frozenset[Life] = frozenset()
    had_cookie: bool = True
    token: Token | None = None


class _Read(NamedTuple):
    version: int
    values: Mapping[str, bytes]
    began: int
    browser: str
    subject: str


class _Write(NamedTuple):
    version: int
    set: Mapping[str, bytes]
    delete: tuple[str, ...]
    ended: int


class _Use(NamedTuple):
    number: int
    at: int


class _Loss(NamedTuple):
    """A cookie that was deleted or replaced. `kind` is what it counts as; empty: a fault, if its session was live."""

    at: int
    session_id: str
    kind: str
    what: str


@dataclass(slots=True)
class Records:
    """Tokens, reads, writes and cookies of the whole simulation. `faults` are those that are found at once."""

    traffic: Counter[str]
    faults: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    _tokens: dict[str, Issue] = field(default_factory=dict)
    _csrf: dict[str, tuple[str, int]] = field(default_factory=dict)
    _subjects: dict[str, str] = field(default_factory=dict)
    _rolls: Counter[str] = field(default_factory=Counter)
    _newest: dict[str, _Use] = field(default_factory=dict)  # by session: the first use of its newest token
    _reads: dict[str, list[_Read]] = field(default_factory=lambda: defaultdict(list))
    _writes: dict[str, list[_Write]] = field(default_factory=lambda: defaultdict(list))
    _losses: list[_Loss] = field(default_factory=list)
    _number: int = 0

    def now(self) -> int:
        """Return the number of this moment, by which reads and writes are ordered."""
        self._number += 1
        return self._number

    def fault(self, kind: str, example: str) -> None:
        """Count a fault, and keep some examples."""
        self.faults[kind] += 1
        if self.faults[kind] <= 3:
            self.examples.append(f"{kind}: {example}")

    # Answers of the authority

    def issued(self, answer: Created | Rolled | Revoked, at: int) -> None:
        """Note a session's token and CSRF token, unless the answer is that of an earlier call again."""
        session = answer.anonymous_session if isinstance(answer, Revoked) else answer.session
        if session is None or answer.token is None:
            return
        if isinstance(answer, Rolled) and answer.token.reveal() not in self._tokens:
            self._rolls[session.session_id] += 1
        self._subjects[session.session_id] = session.subject
        self._note(answer.token, answer.csrf_token, session.session_id, at)

    def validated(self, answer: Validation, token: str, browser: str, at: int, began: int) -> None:
        """Note what a validation of this token said, and which data it returned."""
        if not answer.valid or answer.session is None:
            return
        session_id, number = answer.session.session_id, self._tokens[token].number
        if session_id not in self._newest or number > self._newest[session_id].number:
            self._newest[session_id] = _Use(number, at)
        self._note(answer.renewed_token, answer.csrf_token, session_id, at)
        if answer.data is not None:
            read = _Read(answer.data.version, answer.data.values, began, browser, answer.session.subject)
            self._reads[session_id].append(read)

    def wrote(self, session_id: str, version: int, changed: Mapping[str, bytes], deleted: Iterable[str]) -> None:
        """Note a write that the authority has carried out."""
        if changed or deleted:
            self._writes[session_id].append(_Write(version, dict(changed), tuple(deleted), self.now()))

    def session_of(self, token: Token) -> str:
        """Return the session of a token that was issued."""
        return self._tokens[token.reveal()].session_id

    def is_explained(self, cookie: str, csrf: str) -> bool:
        """Whether a form's CSRF token is that of another session, or from before a roll of this one."""
        held = self._tokens.get(cookie)
        return held is None or self._csrf.get(csrf) != (held.session_id, held.rolls)

    def owns(self, session_id: str, subject: str) -> bool:
        """Whether a session is one of the subject's."""
        return self._subjects.get(session_id) == subject

    def _note(self, token: Token | None, csrf: Token | None, session_id: str, at: int) -> None:
        rolls = self._rolls[session_id]
        if token is not None and token.reveal() not in self._tokens:
            self._tokens[token.reveal()] = Issue(session_id, rolls, at, len(self._tokens))
        if csrf is not None:
            self._csrf.setdefault(csrf.reveal(), (session_id, rolls))

    # Cookies of browsers

    def taken(self, response: Shown, before: str, after: str, now: int) -> None:
        """Note what a response did to a browser's cookie."""
        held, got = self._tokens.get(before), self._tokens.get(after)
        if response.token is not None:
            if response.token != Token(after):
                self.fault("login without effect", f"{response.user} has another cookie after {response.path}")
            return
        if held is None or before == after or response.path == "/logout" or not self._subjects[held.session_id]:
            return
        if self._is_replaced(held, now):
            return  # the browser never received the newer token, or lost it
        if got is not None and got.session_id == held.session_id and not self._is_replaced(got, now):
            return
        kind = ""
        if response.left <= held.at:
            kind = "cookies overtaken on the network"
        elif response.validated <= held.at and response.left - response.validated <= _LATE:
            kind = "cookies overtaken within five seconds"
        elif not response.had_cookie:
            # It was sent before the login's response arrived, and nobody can tell whose it is.
            kind = "cookies replaced by a guest's request without one"
        took = (response.left - response.validated) // SECOND
        why = " or ".join(sorted(response.lives)) or "no part of the table"
        self._losses.append(_Loss(now, held.session_id, kind, f"{response.path}, which took {took} s ({why})"))

    def _is_replaced(self, held: Issue, now: int) -> bool:
        """Whether a token is no longer accepted because another one has taken its place."""
        newest = self._newest.get(held.session_id)
        renewed = newest is not None and newest.number > held.number and now - newest.at >= _OVERLAP
        return held.rolls < self._rolls[held.session_id] or renewed

    # At the end

    def lost_sessions(self) -> frozenset[str]:
        """Return the sessions whose cookies were lost, if they were live."""
        return frozenset(loss.session_id for loss in self._losses)

    def check(self, ended: Mapping[str, int], start: int) -> None:
        """Find the remaining faults: cookies of live sessions that were lost, and data that nobody wrote.

        `ended` has the time at which each of `lost_sessions` ended, if it has.
        """
        for loss in self._losses:
            if ended.get(loss.session_id, loss.at + 1) <= loss.at:
                continue
            if loss.kind:
                self.traffic[loss.kind] += 1
                continue
            at = (loss.at - start) // MINUTE
            when = f"day {at // 1440} {at // 60 % 24:02}:{at % 60:02}"
            self.fault("logged out by a cookie", f"{when}, {self._subjects[loss.session_id]}, by {loss.what}")
        for session_id, reads in self._reads.items():
            self._check_data(
                session_id, reads, sorted(self._writes.get(session_id, []), key=lambda write: write.version)
            )

    def _check_data(self, session_id: str, reads: list[_Read], writes: list[_Write]) -> None:
        states: list[dict[str, bytes]] = [{}]
        for write in writes:
            kept = {key: value for key, value in states[-1].items() if key not in write.delete}
            states.append({**kept, **write.set})
        versions = [write.version for write in writes]
        for read in reads:
            newest = max((write.version for write in writes if write.ended < read.began), default=0)
            if read.version < newest:
                self.fault("stale data", f"{session_id} at version {read.version} after {newest} was written")
            if states[bisect_right(versions, read.version)] != read.values:
                self.fault("data that nobody wrote", f"{session_id} at version {read.version}")
            for value in read.values.values():
                for item in json.loads(value):
                    owner, _, browser = item.partition(":")[0].partition("@")
                    if browser != read.browser or owner not in ("", read.subject):
                        self.fault(
                            "data of somebody else", f"{read.subject or 'a guest'} sees that of {owner}@{browser}"
                        )
        self.traffic["reads checked"] += len(reads)
        self.traffic["writes checked"] += len(writes)
