"""Answers whose fields are read when they are needed cannot be told from those that were made whole."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import pytest

from sessiond_client import ClientContext, Session, Validation, Verdict, calls, convert, reading
from sessiond_client.lazy import complete
from sessiond_stubs.v1 import session_authority_pb2 as pb

loose: Any = pb
SESSION = loose.Session(
    session_id="01a3185c-5000-7a57-94dd-cf2ab225a8a1",
    application="shop",
    subject="ada",
    state=pb.SESSION_STATE_ACTIVE,
    create_time={"seconds": 1_800_000_000, "nanos": 123_000_000},
    client={"ip_address": "192.0.2.1", "user_agent": "x"},
    labels={"tenant": "acme"},
)
ANSWER = loose.ValidateSessionResponse(verdict=pb.VERDICT_VALID, session=SESSION, consistency_token="state")


def made_whole() -> tuple[Session, Validation]:
    """The same values with all fields from the beginning."""
    return complete(Session, convert._SESSION, SESSION), complete(Validation, reading._VALIDATION, ANSWER)


@pytest.mark.parametrize(
    ("kind", "readers"), [(Session, convert._SESSION), (Validation, reading._VALIDATION)], ids=["Session", "Validation"]
)
def test_every_field_has_its_reader(kind: Any, readers: Any) -> None:
    """Each field is read from the message, and nothing else is."""
    assert set(readers) == {field.name for field in dataclasses.fields(kind)}


def test_it_equals_what_was_made_whole() -> None:
    """Comparing, showing, hashing, copying, pickling and replacing need no field to have been read before."""
    whole_session, whole = made_whole()
    assert reading.validation(ANSWER) == whole
    assert repr(reading.validation(ANSWER)) == repr(whole)
    assert copy.copy(reading.validation(ANSWER)) == copy.deepcopy(reading.validation(ANSWER)) == whole
    assert dataclasses.asdict(reading.validation(ANSWER)) == dataclasses.asdict(whole)
    assert dataclasses.replace(reading.validation(ANSWER), verdict=Verdict.REVOKED).session == whole_session
    assert pickle.loads(pickle.dumps(convert.lazy_session(SESSION))) == whole_session
    assert convert.lazy_session(SESSION) != dataclasses.replace(whole_session, subject="bob")


def test_it_is_frozen() -> None:
    """Fields cannot be set, read or not, and there are no others."""
    answer: Any = reading.validation(ANSWER)
    for _ in range(2):
        with pytest.raises(dataclasses.FrozenInstanceError):
            answer.verdict = Verdict.REVOKED
        assert answer.verdict is Verdict.VALID
    for wrong in ("subjet", "_source_", "__wrapped__"):
        with pytest.raises(AttributeError, match=wrong):
            getattr(answer, wrong)
    with pytest.raises(AttributeError):
        getattr(made_whole()[1], "_source")  # noqa: B009 - type checkers know that it has none


def test_a_field_is_read_once() -> None:
    """The same object comes again, even if the message should change."""
    message = pb.ValidateSessionResponse()
    message.CopyFrom(ANSWER)
    answer = reading.validation(message)
    first = answer.verdict, answer.session, answer.cookies
    message.Clear()
    assert all(one is other for one, other in zip(first, (answer.verdict, answer.session, answer.cookies), strict=True))


def test_an_answer_of_a_batch_does_not_keep_the_batch() -> None:
    """Each answer of a batch has a message of its own, so that one that is kept does not keep the others."""
    batch = pb.ValidateSessionsResponse(responses=[ANSWER] * 3)
    answers: list[Any] = list(reading.validations(batch))
    batch.responses[0].session.subject = "bob"
    assert [answer.session.subject for answer in answers] == ["ada"] * 3


def test_an_empty_client_context_is_sent() -> None:
    """A client context without content is set in the request, unlike none."""
    assert calls.validate("shop", "x", client=ClientContext()).request.HasField("client")
    assert not calls.validate("shop", "x").request.HasField("client")
