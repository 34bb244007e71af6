"""What each unit reads before it decides: a unit that misses something would decide from a state that is not there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sessiond.changes.callers import AddCaller, ChangeCertificates, RemoveCaller, RotateCaller
from sessiond.changes.data import UpdateData
from sessiond.changes.idempotency import Idempotent, Recall
from sessiond.changes.judging import EndBatch
from sessiond.changes.key_ring import (
    AddSealingKey,
    PromoteSealingKey,
    ReconcileKeys,
    RecordKeys,
    RemoveSealingKey,
    RetireSealingKey,
)
from sessiond.changes.limits import Choice
from sessiond.changes.login import Authenticate, Create, OpenInstead, Refresh, Roll
from sessiond.changes.maintenance import Expire, ForgetAnswers, Prune, PruneLog, RecordOther, SaveActivity, Total
from sessiond.changes.revocation import Revoke, RevokeMany
from sessiond.changes.sources import Unlock
from sessiond.changes.use import Report, Use
from sessiond.detection.guesses import GuessWatch
from sessiond.domain.access import EVERYTHING, Credential, CredentialKind
from sessiond.domain.event import EventType
from sessiond.domain.judge import Presented, Verdict
from sessiond.domain.login import Login
from sessiond.domain.policy import PRESETS
from sessiond.domain.signals import Reaction, SignalType
from sessiond.domain.values import Cause, CauseKind, Millis, Revision
from sessiond.eventlog.work import NOTHING, QUIET, Needs
from tests.changes.world import units_of_the_server
from tests.contracts import samples
from tests.contracts.journal import retry
from tests.support.clock import START
from tests.support.work import call_of

LOW = PRESETS["owasp-low"]
PLAIN = call_of()
ENDS_ALL = call_of(replace(LOW, reactions={**LOW.reactions, SignalType.REPORTED: Reaction.REVOKE_SUBJECT}))
LIMITED = call_of(replace(LOW, max_sessions=3))
MINE, OTHER = samples.session(), samples.session()
TOKEN = Presented(MINE.id, 0, bytes(32))
KEY = Credential("aaaaaaaaaa", CredentialKind.KEY, bytes(32), START)
LOGIN, CAUSE = Login("ada"), Cause(CauseKind.REQUEST)
CHOICE = Choice(b"t" * 32, START, [OTHER.id])
ALL_OF_IT = Needs(sessions=(MINE.id,), subjects_of=(MINE.id,))
SUBJECT = [("default", "ada")]


def create(call: Any, choice: Choice | None = None) -> Create:
    """The unit that opens a session."""
    return Create(call, samples.session_id(), LOGIN, bytes(32), {}, choice=choice)


CASES: list[tuple[Any, Needs]] = [
    (create(PLAIN), NOTHING),
    (create(LIMITED), Needs(subjects=SUBJECT, max_live=103)),
    (create(LIMITED, CHOICE), Needs(sessions=(OTHER.id,), subjects=SUBJECT, max_live=103, answers=(b"t" * 32,))),
    (OpenInstead(create(LIMITED), Verdict.UNKNOWN), Needs(subjects=SUBJECT, max_live=103)),
    (Authenticate(PLAIN, TOKEN, LOGIN, bytes(32)), Needs(sessions=(MINE.id,))),
    (Authenticate(LIMITED, TOKEN, LOGIN, bytes(32)), Needs(sessions=(MINE.id,), subjects=SUBJECT, max_live=103)),
    (
        Authenticate(LIMITED, TOKEN, LOGIN, bytes(32), choice=CHOICE),
        Needs(sessions=(MINE.id, OTHER.id), subjects=SUBJECT, max_live=103, answers=(b"t" * 32,)),
    ),
    (Authenticate(ENDS_ALL, TOKEN, LOGIN, bytes(32)), replace(ALL_OF_IT, subjects=SUBJECT)),
    (Roll(PLAIN, TOKEN, bytes(32)), Needs(sessions=(MINE.id,))),
    (Roll(ENDS_ALL, TOKEN, bytes(32)), ALL_OF_IT),
    (Refresh(PLAIN, TOKEN), Needs(sessions=(MINE.id,))),
    (Refresh(ENDS_ALL, TOKEN), ALL_OF_IT),
    (UpdateData(PLAIN, MINE.id, {}, None), Needs(sessions=(MINE.id,), data=(MINE.id,))),
    (UpdateData(ENDS_ALL, TOKEN, {}, None), replace(ALL_OF_IT, data=(MINE.id,))),
    (Use(PLAIN, TOKEN, passive=False), Needs(sessions=(MINE.id,))),
    (Use(ENDS_ALL, TOKEN, passive=False), ALL_OF_IT),
    (Report(PLAIN, MINE.id), Needs(sessions=(MINE.id,))),
    (Report(ENDS_ALL, TOKEN), ALL_OF_IT),
    (Revoke(PLAIN, MINE.id), Needs(sessions=(MINE.id,))),
    (Revoke(ENDS_ALL, TOKEN), ALL_OF_IT),
    (RevokeMany(PLAIN, [MINE, OTHER], by_subject=True), Needs(sessions=[MINE.id, OTHER.id])),
    (EndBatch(PLAIN, [MINE.id, OTHER.id], "ada", CAUSE), Needs(sessions=[MINE.id, OTHER.id])),
    (Expire([MINE.id, OTHER.id], {}, LOW), Needs(sessions=[MINE.id, OTHER.id])),
    (SaveActivity([]), QUIET),
    (Prune([MINE.id]), NOTHING),
    (PruneLog(Revision(1)), NOTHING),
    (ForgetAnswers(), QUIET),
    (Total(1), NOTHING),
    (AddCaller("shop", EVERYTHING, KEY, CAUSE, 1), Needs(callers=True)),
    (RotateCaller("shop", KEY, Millis(0), CAUSE, 1), Needs(callers=True)),
    (RemoveCaller("shop", CAUSE, 1), Needs(callers=True)),
    (ChangeCertificates("shop", (), ("shop.example",), CAUSE, 1), Needs(callers=True)),
    (AddSealingKey(bytes(16), b"", CAUSE), Needs(keys=True)),
    (PromoteSealingKey("", CAUSE), Needs(keys=True)),
    (RetireSealingKey("00000000", False, CAUSE), Needs(keys=True)),
    (RemoveSealingKey(bytes(16)), Needs(keys=True)),
    (ReconcileKeys([bytes(16)], [], {}, "the key file"), Needs(keys=True)),
    (RecordKeys([], {}, "the key file"), Needs(keys=True)),
    (RecordOther(EventType.POLICY_CHANGED, "default", CAUSE), NOTHING),
    (Unlock(GuessWatch(), PLAIN, "192.0.2.1"), NOTHING),
    (Recall([retry(b"a"), retry(b"b")]), Needs(answers=(b"a", b"b"))),
    (
        Idempotent(create(LIMITED, CHOICE), [retry(b"a")], lambda _: b""),
        replace(create(LIMITED, CHOICE).needs(), answers=(b"t" * 32, b"a")),
    ),
]


@pytest.mark.parametrize(("unit", "needs"), CASES, ids=lambda value: type(value).__name__)
def test_what_a_unit_reads(unit: Any, needs: Needs) -> None:
    """A unit reads its sessions, their subjects' others if a signal ends them all, and what limits and retries need."""
    assert unit.needs() == needs


def test_every_unit_is_here() -> None:
    """The table has every unit of work that the server has."""
    assert {type(unit) for unit, _ in CASES} == units_of_the_server()
