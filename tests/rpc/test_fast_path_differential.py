"""The fast path of validation gives the same answers as the ordinary path, compared over whole stories."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import sessiond.app
from sessiond.app import App
from sessiond.authority.sweeper import Sweeper
from sessiond.rpc.fast_path import FastPath
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.support.clock import ManualClock
from tests.support.fuzz import bounded
from tests.support.server import AsyncStub, config_for, stub_for
from tests.support.tokens import revision_in

loose: Any = pb  # so that a submessage can be written as a dict
SECOND, MINUTE = 1_000, 60_000
LAPTOP = {
    "ip_address": "192.0.2.1",
    "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
}
PHONE = {
    "ip_address": "198.51.100.7",
    "user_agent": "Mozilla/5.0 (Android 15; Mobile; rv:140.0) Gecko/140.0 Firefox/140.0",
}
CLIENTS = [None, LAPTOP, {**LAPTOP, "ip_address": "192.0.2.77"}, PHONE]
CONFIGS = [
    "[applications.default]\n",
    '[applications.default]\nidle_timeout = "10m"\n[applications.default.reactions]\nip_change = "step-up"\n',
]
_folders = itertools.count()


# The steps of a story. Sessions and tokens have numbers: token 0 of a session is its newest token.


@dataclass(frozen=True)
class Open:
    """Open a session."""

    client: int = 1
    subject: str = "ada"


@dataclass(frozen=True)
class Ask:
    """Validate, several times with the same bytes."""

    session: int = 0
    token: int = 0
    client: int = 1
    passive: bool = False
    fields: tuple[str, ...] = ()
    at_least: bool = False
    times: int = 2


@dataclass(frozen=True)
class AskAgain:
    """Repeat the latest questions with the same bytes, and so with the tokens that they had."""

    questions: int = 3


@dataclass(frozen=True)
class Change:
    """Make a call that changes or ends a session."""

    rpc: str
    session: int = 0
    client: int = 1


@dataclass(frozen=True)
class Wait:
    """Let time pass."""

    millis: int


@dataclass(frozen=True)
class Sweep:
    """Run the sweeper once."""


@dataclass(frozen=True)
class Reload:
    """Put other policies into effect."""

    config: int


Step = Open | Ask | AskAgain | Change | Wait | Sweep | Reload
_EXTRAS: dict[str, Any] = {
    "with_csrf_token": True,
    "data": {},
    "requirements": {"min_level": 1},
}
_BY_TOKEN = ("AuthenticateSession", "RollSession", "RefreshSession")
_CHANGES = (*_BY_TOKEN, "RevokeSession", "UpdateSessionData", "ReportSignal")
_few = st.integers(0, 2)
_clients = st.sampled_from([1, 1, 1, 1, 1, 1, 0, 2, 3])
_minutes = st.sampled_from([5, 9, 11, 29, 31, 61, 8 * 60]).map(lambda minutes: minutes * MINUTE)
_waits = st.sampled_from([1, SECOND, 29 * SECOND, 59 * SECOND, 61 * SECOND]) | _minutes
_asks = st.builds(
    Ask,
    _few,
    st.sampled_from([0, 0, 0, 0, 0, 1, 2]),
    _clients,
    st.booleans(),
    st.sampled_from([*[()] * 6, ("with_csrf_token",), ("data",), ("requirements",)]),
    st.booleans(),
    st.integers(1, 3),
)
_weights = {
    st.builds(Open, _clients, st.sampled_from(["", "ada"])): 2,
    _asks: 8,
    st.builds(AskAgain, st.integers(1, 6)): 8,
    st.builds(Change, st.sampled_from(_CHANGES), _few, _clients): 3,
    st.builds(Wait, _waits): 3,
    st.just(Sweep()): 1,
    st.builds(Reload, st.integers(0, 1)): 1,
}
steps = st.sampled_from([step for step, weight in _weights.items() for _ in range(weight)]).flatmap(lambda step: step)
stories = st.lists(steps, min_size=10, max_size=30).map(lambda story: [Open(), *story])
LONG_STORY: list[Step] = [
    *(Open(), Open(client=0, subject="")),
    *(Ask(times=5), Ask(passive=True, times=5), Ask(client=0, at_least=True, times=5), Ask(1, client=0, times=5)),
    *(Wait(30 * SECOND), AskAgain(4), Wait(61 * SECOND), AskAgain(4), AskAgain(4)),
    *(Reload(1), AskAgain(4), AskAgain(4), Reload(0), AskAgain(4)),
    *(Ask(client=2), Ask(client=3), AskAgain(6), Sweep(), AskAgain(6)),
    *(Change("UpdateSessionData"), AskAgain(6), Change("RollSession"), AskAgain(6), Ask(times=3), AskAgain(2)),
    *(Wait(29 * MINUTE), AskAgain(2), Wait(29 * MINUTE), AskAgain(2), Wait(5 * MINUTE), AskAgain(2)),
    *(Ask(), AskAgain(3)),
    *(Reload(1), AskAgain(3), AskAgain(3), Wait(9 * MINUTE), AskAgain(3), Change("RefreshSession"), AskAgain(3)),
    *(Change("RevokeSession"), AskAgain(3), Open(), Ask(2), Wait(11 * MINUTE), AskAgain(1), Sweep(), AskAgain(1)),
]


class Counting(FastPath):
    """The real fast path; it counts its answers."""

    answered = 0

    def answer(self, *question: Any) -> Any:
        found = super().answer(*question)
        self.answered += found is not None
        return found


class SwitchedOff(Counting):
    """No fast path: every question takes the ordinary path."""

    def answer(self, *question: Any) -> Any:
        return None


class Stale(Counting):
    """A wrong fast path: it repeats its first answer forever."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self._known: dict[Any, Any] = {}

    def answer(self, *question: Any) -> Any:
        found = super().answer(*question)
        if found is not None:
            self._known.setdefault(question, found)
        return self._known.get(question)


class Side:
    """One of the authorities, and what its callers know."""

    def __init__(self, app: App, stub: AsyncStub, clock: ManualClock, folder: Path, fast_path: Counting) -> None:
        self.fast_path = fast_path
        self._app = app
        self._stub = stub
        self._clock = clock
        self._folder = folder
        self._tokens: dict[str, list[str]] = {}
        self._asked: list[pb.ValidateSessionRequest] = []
        self._state = ""

    async def answers(self, step: Step) -> list[str]:
        """Run a step and return the responses as text."""
        match step:
            case Open(client, subject):
                seen = CLIENTS[client]
                return [await self._call("CreateSession", subject=subject, client=seen, data={"cart": b"3 apples"})]
            case Ask():
                question = self._question(step)
                self._asked.append(question)
                return [await self._ask(question) for _ in range(step.times)]
            case AskAgain(count):
                return [await self._ask(question) for question in self._asked[-count:]]
            case Change(rpc, session, client):
                return [await self._change(rpc, session, client)]
            case Wait(millis):
                self._clock.advance(millis)
            case Sweep():
                await self._app.sweeper.sweep()
                await self._app.sweeper.save_activity()
            case Reload(config):
                await self._app.reload(config_for(self._folder, CONFIGS[config]))
        return []

    async def ending(self) -> list[str]:
        """Return the state at the end of a story: every session, and the whole history of the subject."""
        states = [pb.SESSION_STATE_ACTIVE, pb.SESSION_STATE_EXPIRED, pb.SESSION_STATE_REVOKED]
        lists = [await self._call("ListSessions", filter={"state": state}, page_size=1000) for state in states]
        return [*lists, await self._call("ListActivity", subject="ada", page_size=1000)]

    def _token(self, session: int, age: int) -> str:
        tokens = list(self._tokens.values())[session % len(self._tokens)]
        return tokens[max(0, len(tokens) - 1 - age)]

    def _question(self, step: Ask) -> pb.ValidateSessionRequest:
        extras = {name: _EXTRAS[name] for name in step.fields}
        question: pb.ValidateSessionRequest = loose.ValidateSessionRequest(
            token=self._token(step.session, step.token), client=CLIENTS[step.client], passive=step.passive, **extras
        )
        if step.at_least:
            question.at_least = self._state
        return question

    async def _ask(self, question: pb.ValidateSessionRequest) -> str:
        return await self._told(self._stub.ValidateSession(question))

    async def _change(self, rpc: str, session: int, client: int) -> str:
        token = self._token(session, 0)
        fields: dict[str, Any] = {"token": token} if rpc in _BY_TOKEN else {"session": {"token": token}}
        if rpc == "UpdateSessionData":
            return await self._call(rpc, **fields, set={"cart": b"4 apples"})
        if rpc == "AuthenticateSession":
            fields |= {"subject": "ada", "authentication": {"level": 1}}
        return await self._call(rpc, **fields, client=CLIENTS[client])

    async def _call(self, rpc: str, **fields: Any) -> str:
        return await self._told(getattr(self._stub, rpc)(getattr(loose, f"{rpc}Request")(**fields)))

    async def _told(self, call: Awaitable[Any]) -> str:
        """Return a response as text, with only the revision of its consistency token, which else names the database."""
        try:
            answer = await call
        except grpc.aio.AioRpcError as error:
            return f"{error.code()}: {error.details()}"
        for name in ("token", "renewed_token"):
            if token := getattr(answer, name, ""):
                known = self._tokens.setdefault(answer.session.session_id, [])
                known.extend([token] if token not in known else [])
        if getattr(answer, "consistency_token", ""):
            self._state = answer.consistency_token
            answer.consistency_token = f"revision {revision_in(answer)}"
        return f"{answer.DESCRIPTOR.name} {answer}"


@asynccontextmanager
async def authority(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: Callable[..., Counting], *, from_memory: bool = True
) -> AsyncIterator[Side]:
    """Run an authority with that fast path. If not `from_memory`, it judges every question in full.

    Its clock and its random values are the same each time, and it sweeps only on request.
    """
    made: list[Counting] = []

    def make(*parts: Any, **_: Any) -> Counting:
        made.append(kind(*parts))
        return made[-1]

    async def no_rounds(_: Sweeper) -> None:
        pass

    numbers, clock = itertools.count(), ManualClock()

    def entropy(count: int) -> bytes:
        return hashlib.shake_128(next(numbers).to_bytes(8, "big")).digest(count)

    with monkeypatch.context() as patch:
        patch.setattr(sessiond.app, "FastPath", make)
        patch.setattr(Sweeper, "run", no_rounds)
        app = await App.start(config_for(folder, CONFIGS[0]), clock, entropy)
    if not from_memory:
        monkeypatch.setattr(app.authority.validation, "plain_valid_result", lambda *_, **__: None)
    try:
        async with stub_for(app.address) as stub:
            yield Side(app, stub, clock, folder, made[0])
    finally:
        await app.stop()


async def differences(story: Sequence[Step], one: Side, other: Side) -> list[tuple[object, str, str]]:
    """Return the first difference between the two authorities' responses, or else in their final states."""

    def unequal(step: object, here: list[str], there: list[str]) -> list[tuple[object, str, str]]:
        return [(step, *pair) for pair in zip(here, there, strict=True) if pair[0] != pair[1]]

    for step in story:
        if found := unequal(step, await one.answers(step), await other.answers(step)):
            return found
    return unequal("at the end", await one.ending(), await other.ending())


@asynccontextmanager
async def two(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: Callable[..., Counting], *, from_memory: bool = True
) -> AsyncIterator[tuple[Side, Side]]:
    """Return an authority with that fast path and one without; if not `from_memory`, it judges in full."""
    here = folder / str(next(_folders))
    async with (
        authority(here / "fast", monkeypatch, kind) as fast,
        authority(here / "ordinary", monkeypatch, SwitchedOff, from_memory=from_memory) as ordinary,
    ):
        yield fast, ordinary


@pytest.mark.parametrize("from_memory", [True, False], ids=["ordinary path", "full judgement"])
@bounded(20)
@given(story=stories)
@example(story=LONG_STORY)
async def test_every_answer_is_the_ordinary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, from_memory: bool, story: list[Step]
) -> None:
    """Over any story, an authority with the fast path returns exactly the messages of one without."""
    async with two(tmp_path, monkeypatch, Counting, from_memory=from_memory) as (fast, ordinary):
        assert await differences(story, fast, ordinary) == []


ORDINARY_USE = {
    "active": Ask(),
    "passive": Ask(passive=True),
    "without a client": Ask(client=0),
    "at least as new": Ask(at_least=True),
}


@pytest.mark.parametrize("question", ORDINARY_USE.values(), ids=ORDINARY_USE.keys())
async def test_a_repeated_question_takes_the_fast_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, question: Ask
) -> None:
    """Of ten equal questions about a session in ordinary use, the fast path answers nine."""
    async with authority(tmp_path, monkeypatch, Counting) as side:
        await side.answers(Open())
        for _ in range(5):
            await side.answers(question)
        assert side.fast_path.answered == 9


async def test_the_long_story_takes_both_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the long story the fast path answers many of the questions, and none if it is switched off."""
    async with two(tmp_path, monkeypatch, Counting) as (fast, ordinary):
        assert await differences(LONG_STORY, fast, ordinary) == []
        assert fast.fast_path.answered >= 30
        assert ordinary.fast_path.answered == 0


async def test_a_wrong_fast_path_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The long story reveals a fast path that repeats an outdated answer."""
    async with two(tmp_path, monkeypatch, Stale) as (fast, ordinary):
        assert await differences(LONG_STORY, fast, ordinary)
