"""What a value has that is created without it: the defaults of the units of work and of the authority's results."""

from __future__ import annotations

import pytest

from sessiond.authority.question import DataRequest, Question
from sessiond.authority.requirements import NO_REQUIREMENTS, Requirements
from sessiond.authority.results import (
    AnswerSpec,
    ChangeResult,
    IssuedCompanion,
    Limit,
    RevocationResult,
    TicketChoice,
    ValidationResult,
)
from sessiond.changes.data import UpdateData
from sessiond.changes.judging import Outcome
from sessiond.changes.limits import Choice, LimitDecision
from sessiond.changes.login import Authenticate, Create, Refresh
from sessiond.changes.maintenance import RecordOther
from sessiond.changes.revocation import Revoke, RevokeMany
from sessiond.changes.use import Use
from sessiond.crypto.tokens import Token
from sessiond.domain.event import EventType
from sessiond.domain.judge import PLAIN, Presented, Verdict
from sessiond.domain.login import Login
from sessiond.domain.requirements import AuthenticationRequirements
from sessiond.domain.values import Cause, CauseKind, Instant, Revision
from tests.contracts import samples
from tests.support.clock import START
from tests.support.work import call_of

CALL, LOGIN, TOKEN = call_of(), Login("ada"), Token("t")
ID, VALID, DIGEST, CAUSE = samples.session_id(), Verdict.VALID, bytes(32), Cause(CauseKind.SIGNAL)
PRESENTED = Presented(ID, 0, DIGEST)
CHANGED = ChangeResult(VALID, None, Revision(1))


def encode(_: object) -> bytes:
    """The bytes of an answer."""
    return b""


@pytest.mark.parametrize(
    ("default", "written_out"),
    [
        (DataRequest(), DataRequest(frozenset(), 0)),
        (Question(CALL, TOKEN), Question(CALL, TOKEN, False, NO_REQUIREMENTS, False, None, None)),
        (Requirements(), Requirements(AuthenticationRequirements(0, None), None, None)),
        (NO_REQUIREMENTS, Requirements(AuthenticationRequirements(0, None), None, None)),
        (ValidationResult(PLAIN), ValidationResult(PLAIN, None, None, None, None, (), None, None, None, Revision(0))),
        (CHANGED, ChangeResult(VALID, None, Revision(1), None, None, (), None, None, None, None, Instant(0))),
        (Limit(3), Limit(3, (), None, None, 0)),
        (RevocationResult(CHANGED, revoked=True), RevocationResult(CHANGED, True, None)),
        (TicketChoice(), TicketChoice(None, (), False)),
        (IssuedCompanion(VALID), IssuedCompanion(VALID, None, None)),
        (AnswerSpec(encode), AnswerSpec(encode, None)),
        (Outcome(PLAIN, None), Outcome(PLAIN, None, (), None, None, None)),
        (LimitDecision(), LimitDecision((), None)),
        (Choice(b"key", START, []), Choice(b"key", START, [], False)),
        (Create(CALL, ID, LOGIN, DIGEST, {}), Create(CALL, ID, LOGIN, DIGEST, {}, False, None)),
        (
            Authenticate(CALL, PRESENTED, LOGIN, DIGEST),
            Authenticate(CALL, PRESENTED, LOGIN, DIGEST, False, None, None),
        ),
        (Refresh(CALL, PRESENTED), Refresh(CALL, PRESENTED, None)),
        (UpdateData(CALL, ID, {}, None), UpdateData(CALL, ID, {}, None, False)),
        (Use(CALL, PRESENTED, passive=False), Use(CALL, PRESENTED, False, None, True)),
        (Revoke(CALL, ID), Revoke(CALL, ID, None, None)),
        (RevokeMany(CALL, [], by_subject=False), RevokeMany(CALL, [], False, ())),
        (
            RecordOther(EventType.POLICY_CHANGED, "default", CAUSE),
            RecordOther(EventType.POLICY_CHANGED, "default", CAUSE, ""),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_by_default(default: object, written_out: object) -> None:
    """What is not named is absent, empty or off; a use renews the session unless it says otherwise."""
    assert default == written_out
