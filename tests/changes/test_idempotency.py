"""Idempotency: when a first answer counts, and what is kept of one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from sessiond.changes.idempotency import KEEP_FOR, EncodedAnswer, Idempotent, Recall, Retry
from sessiond.changes.maintenance import RecordOther, Total
from sessiond.domain.errors import InvalidField
from sessiond.domain.event import EventType
from sessiond.domain.session import Session
from sessiond.domain.values import Cause, CauseKind, Instant, Millis
from sessiond.eventlog.work import Done, Needs, Work
from tests.contracts import samples
from tests.support.clock import START
from tests.support.work import HEAD, work_on

MINE, OTHERS = b"k" * 32, b"o" * 32
CALL, OTHER_CALL = b"p" * 32, b"q" * 32
SESSION = samples.session(generation=3)


def seal(message: bytes) -> bytes:
    """A seal that a test can read."""
    return b"sealed:" + message


def unseal(sealed: bytes) -> bytes:
    """The message under that seal."""
    return sealed.removeprefix(b"sealed:")


STRICT = Retry(MINE, CALL, seal, unseal)
LOGIN = Retry(MINE, CALL, seal, unseal, Millis(500), while_current=True)
RECORD = RecordOther(EventType.POLICY_CHANGED, "default", Cause(CauseKind.CONFIGURATION))


def first_answer(**fields: Any) -> Any:
    """The answer to the call, kept until 10 ms after the start."""
    return samples.answer(START + 10, **({"key": MINE, "parameters": CALL, "sealed": seal(b"first")} | fields))


def encode(done: Done[Any]) -> bytes:
    """A message that shows all that it is made from."""
    return f"{done.result} at {done.revision - HEAD}, {done.at - START} ms".encode()


# Recall


@pytest.mark.parametrize("retry", [STRICT, LOGIN])
def test_the_first_answer_is_given_again(retry: Retry) -> None:
    """A call that was made before gets the message of its first answer."""
    assert retry.recall(work_on(answers=[first_answer()])) == EncodedAnswer(b"first")


@pytest.mark.parametrize("retry", [STRICT, LOGIN])
def test_a_call_that_was_never_made(retry: Retry) -> None:
    """If nothing is kept under the call's key there is no first answer, whatever others have asked for."""
    assert retry.recall(work_on()) is None
    assert retry.recall(work_on(answers=[first_answer(key=OTHERS)])) is None


@pytest.mark.parametrize("retry", [STRICT, LOGIN])
def test_a_key_that_was_used_for_another_call(retry: Retry) -> None:
    """A key with other parameters is the caller's mistake, and refused by its field's name."""
    with pytest.raises(InvalidField, match="used for another call") as refused:
        retry.recall(work_on(answers=[first_answer(parameters=OTHER_CALL)]))
    assert refused.value.field == "request_id"


@pytest.mark.parametrize("parameters", [CALL, OTHER_CALL])
@pytest.mark.parametrize("retry", [STRICT, LOGIN])
def test_an_expired_answer(retry: Retry, parameters: bytes) -> None:
    """At its end an answer is gone, and with it the mistake of another call under its key; not a millisecond before."""
    answers = [first_answer(parameters=parameters)]
    assert retry.recall(work_on(now=START + 10, answers=answers)) is None
    if parameters == CALL:
        assert retry.recall(work_on(now=START + 9, answers=answers)) == EncodedAnswer(b"first")


@pytest.mark.parametrize("retry", [STRICT, LOGIN])
@pytest.mark.parametrize(
    ("sessions", "counts"),
    [
        pytest.param([SESSION], True, id="as it was"),
        pytest.param([], False, id="pruned"),
        pytest.param([replace(SESSION, ending=samples.ending(START))], False, id="revoked"),
        pytest.param([replace(SESSION, idle_deadline=Instant(START + 1))], True, id="nearly idle"),
        pytest.param([replace(SESSION, idle_deadline=START)], False, id="idle, not swept"),
        pytest.param([replace(SESSION, absolute_deadline=START)], False, id="expired, not swept"),
        pytest.param([replace(SESSION, generation=4)], False, id="rolled on"),
        pytest.param([replace(SESSION, generation=2)], False, id="an earlier state"),
    ],
)
def test_an_answer_of_a_session(retry: Retry, sessions: list[Session], counts: bool) -> None:
    """An answer that depends on a session counts only while that lives and is still at the token of the answer."""
    work = work_on(*sessions, answers=[first_answer(session_id=SESSION.id, generation=3)])
    assert retry.recall(work) == (EncodedAnswer(b"first") if counts else None)


def test_an_answer_of_no_session() -> None:
    """An answer that depends on no session counts though every session has ended."""
    ended = replace(SESSION, ending=samples.ending(START))
    assert STRICT.recall(work_on(ended, answers=[first_answer()])) == EncodedAnswer(b"first")


def test_recall_takes_the_first_answer_that_counts() -> None:
    """Of several keys of a call the first with an answer that counts gives it; all are read before."""
    by_id, by_login = replace(STRICT, key=OTHERS), LOGIN
    recall = Recall((by_id, by_login))
    assert recall.needs() == Needs(answers=(OTHERS, MINE))
    assert recall.apply(work_on()) is None
    login, request = first_answer(), first_answer(key=OTHERS, sealed=seal(b"by id"))
    assert recall.apply(work_on(answers=[login])) == EncodedAnswer(b"first")
    assert recall.apply(work_on(answers=[login, request])) == EncodedAnswer(b"by id")


def test_recall_keeps_a_first_answer_under_the_id_of_the_repeat() -> None:
    """A second click has an id of its own: from then on the first answer is the answer to that id as well."""
    by_id = replace(STRICT, key=OTHERS)
    work = work_on(answers=[first_answer()])
    assert work.run(Recall((by_id, LOGIN))).result == EncodedAnswer(b"first")
    assert by_id.recall(work) == EncodedAnswer(b"first")
    (kept,) = work.changes.answers
    assert (kept.key, kept.expires, kept.session_id) == (OTHERS, START + KEEP_FOR, None)


# Keep


def kept_by(retry: Retry, granted: Session | None) -> list[Any]:
    """What a retry keeps of an answer that gives a token of that session."""

    @dataclass
    class Keeping:
        retry: Retry

        def needs(self) -> Needs:
            return Needs()

        def apply(self, work: Work) -> None:
            self.retry.keep(work, b"message", granted)

    work = work_on()
    work.run(Keeping(retry))
    return work.changes.answers


@pytest.mark.parametrize("granted", [None, SESSION])
def test_an_answer_under_a_request_id_is_kept_whatever_it_gives(granted: Session | None) -> None:
    """The answer to a call with an id is kept sealed, for 24 hours, and depends on no session."""
    (answer,) = kept_by(STRICT, granted)
    assert KEEP_FOR == 24 * 3_600_000
    assert (answer.key, answer.parameters, answer.sealed) == (MINE, CALL, b"sealed:message")
    assert (answer.expires, answer.session_id, answer.generation) == (START + KEEP_FOR, None, 0)


def test_an_answer_that_depends_on_its_session() -> None:
    """The answer to a login is kept for its time, with the session and the generation that it gives a token of."""
    (answer,) = kept_by(LOGIN, SESSION)
    assert (answer.expires, answer.session_id, answer.generation) == (START + 500, SESSION.id, 3)


def test_an_answer_that_gives_nothing_is_not_kept() -> None:
    """A login that gave no token leaves no answer: asked again, it is decided again."""
    assert kept_by(LOGIN, None) == []


# Once


@dataclass
class Refusing:
    """A unit that records something and then refuses."""

    ran: list[str] = field(default_factory=list)

    def needs(self) -> Needs:
        """Nothing."""
        return Needs()

    def apply(self, work: Work) -> None:
        """Record and refuse."""
        RECORD.apply(work)
        raise InvalidField("subject", "injected")


@dataclass(frozen=True)
class Touching:
    """A unit that saves the session and gives it."""

    def needs(self) -> Needs:
        """The session, and an answer of its own."""
        return Needs(sessions=(SESSION.id,), answers=(b"ticket",))

    def apply(self, work: Work) -> Session:
        """Save it."""
        return work.save(SESSION, EventType.SESSION_ROLLED, Cause(CauseKind.REQUEST))


def test_once_carries_out_once() -> None:
    """Two units of one call in one transaction are carried out once, and both have the first answer."""
    work = work_on(now=START + 7)
    once = Idempotent(RECORD, (STRICT,), encode)
    first = work.run(once)
    again = work.run(once)
    assert first.result == again.result == EncodedAnswer(b"None at 1, 7 ms")
    assert (first.revision, again.revision) == (HEAD + 1, HEAD + 1)
    assert (len(work.changes.events), len(work.changes.answers)) == (1, 1)


def test_once_gives_the_kept_answer_without_asking_the_unit() -> None:
    """A call that was made before changes nothing, though it would be refused now."""
    work = work_on(answers=[first_answer()])
    assert work.run(Idempotent(Refusing(), (STRICT,), encode)).result == EncodedAnswer(b"first")
    assert (work.changes.events, work.changes.answers) == ([], [])


def test_once_needs_what_its_unit_needs() -> None:
    """What is read first is what the unit needs, its answers included, and the first answers under every key."""
    needs = Idempotent(Touching(), (STRICT, replace(LOGIN, key=OTHERS)), encode).needs()
    assert needs == Needs(sessions=(SESSION.id,), answers=(b"ticket", MINE, OTHERS))


def test_a_refusal_leaves_no_answer() -> None:
    """A unit that refuses leaves neither its change nor an answer."""
    work = work_on()
    with pytest.raises(InvalidField, match="injected"):
        work.run(Idempotent(Refusing(), (STRICT,), encode))
    assert (work.changes.events, work.changes.answers) == ([], [])


@pytest.mark.parametrize("always", [False, True])
def test_an_answer_that_changed_nothing(always: bool) -> None:
    """A unit that recorded nothing leaves an answer only if it always does; it is answered either way."""
    work = work_on()
    once = Idempotent(Total(5), (STRICT,), encode, always=always)
    assert work.run(once).result == EncodedAnswer(b"5 at 0, 0 ms")
    assert [answer.key for answer in work.changes.answers] == ([MINE] if always else [])


def test_once_keeps_under_every_key() -> None:
    """A login with an id is kept under both keys; only the one without an id depends on the session."""
    work = work_on(SESSION)
    retries = (replace(STRICT, key=OTHERS), LOGIN)
    work.run(Idempotent(Touching(), retries, lambda _: b"token", granted=lambda session: session))
    kept = {answer.key: (answer.session_id, answer.generation) for answer in work.changes.answers}
    assert kept == {OTHERS: (None, 0), MINE: (SESSION.id, 3)}


def test_a_change_that_gives_nothing_is_kept_by_its_id_alone() -> None:
    """Without a session that it gives a token of, a unit's answer is kept under the request id and nothing else."""
    work = work_on(SESSION)
    work.run(Idempotent(Touching(), (replace(STRICT, key=OTHERS), LOGIN), lambda _: b"refused"))
    assert [answer.key for answer in work.changes.answers] == [OTHERS]


def test_a_kept_answer_shows_nothing() -> None:
    """The message of a kept answer may hold a token: it is in no repr, nor is its seal."""
    (answer,) = kept_by(STRICT, None)
    assert "message" not in repr(EncodedAnswer(b"message")) + repr(answer)
