"""What events say of the change that they record: its cause, and the client that the caller saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from sessiond.changes.data import UpdateData
from sessiond.changes.judging import EndBatch, Suspicion
from sessiond.changes.login import Authenticate, Create, Refresh, Roll, restart_tolerances
from sessiond.changes.maintenance import Expire
from sessiond.changes.revocation import Revoke, RevokeMany
from sessiond.changes.use import Report, Use
from sessiond.domain.judge import Presented
from sessiond.domain.login import Login
from sessiond.domain.policy import PRESETS
from sessiond.domain.session import Session
from sessiond.domain.signals import Reaction, Signal, SignalType
from sessiond.domain.values import NOBODY, Authentication, Cause, CauseKind, ClientContext, Instant, Millis
from sessiond.eventlog.work import Needs, Work
from tests.contracts import samples
from tests.support.clock import START
from tests.support.work import call_of, work_on

LOW = PRESETS["owasp-low"]
HOME, ELSEWHERE = ClientContext("192.0.2.10", "Firefox"), ClientContext("203.0.113.66", "Safari", b"t" * 32, "phone")
DIGEST, ROLLED, FRESH = b"d" * 32, b"o" * 32, b"f" * 32
POLICY = replace(
    LOW,
    reactions={
        **LOW.reactions,
        SignalType.IP_CHANGE: Reaction.REVOKE_SUBJECT,
        SignalType.CONCURRENT_USE: Reaction.STEP_UP,
        SignalType.REPORTED: Reaction.REVOKE_SESSION,
    },
    remember_idle_timeout=Millis(86_400_000),
)
CALL = call_of(POLICY, ELSEWHERE, reason="asked for")
LIMITED = call_of(replace(POLICY, max_sessions=1), ELSEWHERE, reason="asked for")
ASKED = Cause(CauseKind.REQUEST, "caller", "asked for")
RENEWAL, LIMIT, SIGNAL, IDLE = (
    Cause(kind, "authority", "")
    for kind in (CauseKind.RENEWAL, CauseKind.CONCURRENCY_LIMIT, CauseKind.SIGNAL, CauseKind.IDLE_TIMEOUT)
)
REPORTED = Cause(CauseKind.SIGNAL, CALL.caller.name)

MINE = samples.session(
    START - 600_000,
    generation=5,
    digest=DIGEST,
    rolled_digest=ROLLED,
    rolled_at=Instant(START - 30_000),
    last_active=Instant(START - 40_000),
    client=HOME,
)
OTHER = samples.session(START - 300_000, client=HOME)
GUEST = samples.session(subject="", digest=DIGEST)
DUE = samples.session(idle_deadline=START, client=HOME)
REMEMBERED = samples.session(
    START - 9_000_000,
    digest=DIGEST,
    persistent=True,
    authentication=Authentication(2, ("pwd", "otp"), Instant(START - 9_000_000)),
)


def token_of(session: Session, generation: int | None = None, digest: bytes = DIGEST) -> Presented:
    """The session's own token, or one of that generation and secret."""
    return Presented(session.id, session.generation if generation is None else generation, digest)


def opening(subject: str = "ada", call: Any = CALL) -> Create:
    """The unit that opens a session."""
    return Create(call, samples.session_id(), Login(subject), FRESH, {})


def noticed(kind: SignalType) -> Suspicion:
    """What was noticed about a use of the session."""
    return Suspicion((Signal(kind, "home", "elsewhere"),), HOME)


@dataclass
class WelcomeAgain:
    """A unit that gives a login's first answer again."""

    session: Session

    def needs(self) -> Needs:
        """The session."""
        return Needs(sessions=(self.session.id,))

    def apply(self, work: Work) -> None:
        """Give it."""
        restart_tolerances(work, CALL, self.session)


Facts = Sequence[tuple[str, Cause, ClientContext]]
CASES: dict[str, tuple[Any, Facts]] = {
    "open": (opening(), [("session_created", ASKED, ELSEWHERE)]),
    "log in": (
        Authenticate(CALL, token_of(GUEST), Login("ada"), FRESH),
        [("session_authenticated", ASKED, ELSEWHERE), ("session_rolled", ASKED, ELSEWHERE)],
    ),
    "elevate": (
        Authenticate(CALL, token_of(MINE), Login("ada"), FRESH, elevates=True),
        [("session_authenticated", ASKED, ELSEWHERE), ("session_rolled", ASKED, ELSEWHERE)],
    ),
    "log in as another subject": (
        Authenticate(CALL, token_of(MINE), Login("bob"), FRESH, fresh=opening("bob")),
        [
            ("session_created", ASKED, ELSEWHERE),
            ("session_revoked", replace(ASKED, reason="another subject logged in"), ELSEWHERE),
        ],
    ),
    "log in over the limit": (
        opening(call=LIMITED),
        [
            ("concurrency_limit_reached", ASKED, NOBODY),
            ("session_revoked", LIMIT, ELSEWHERE),
            ("session_revoked", LIMIT, ELSEWHERE),
            ("session_revoked", LIMIT, ELSEWHERE),
            ("session_created", ASKED, ELSEWHERE),
        ],
    ),
    "log in once more": (
        WelcomeAgain(replace(MINE, old_token=4)),
        [("session_refreshed", ASKED, ELSEWHERE)],
    ),
    "roll": (Roll(CALL, token_of(MINE), FRESH), [("session_rolled", ASKED, ELSEWHERE)]),
    "refresh": (Refresh(CALL, token_of(MINE)), [("session_refreshed", ASKED, ELSEWHERE)]),
    "change data": (
        UpdateData(CALL, token_of(MINE), {"a": b"1"}, None),
        [("session_data_changed", ASKED, ELSEWHERE)],
    ),
    "log out": (
        Revoke(CALL, token_of(MINE), opening("")),
        [("session_created", ASKED, ELSEWHERE), ("session_revoked", ASKED, ELSEWHERE)],
    ),
    "revoke by id": (Revoke(CALL, OTHER.id), [("session_revoked", ASKED, ELSEWHERE)]),
    "revoke many": (RevokeMany(CALL, [MINE, OTHER], by_subject=True), [("session_revoked", ASKED, ELSEWHERE)] * 2),
    "use for the first time": (
        Use(CALL, token_of(MINE, 6), passive=False),
        [("session_renewed", RENEWAL, ELSEWHERE)],
    ),
    "use an old token": (
        Use(CALL, token_of(MINE, 4, ROLLED), passive=False),
        [("old_token_presented", SIGNAL, ELSEWHERE)],
    ),
    "use two at once": (
        Use(CALL, token_of(MINE), False, noticed(SignalType.CONCURRENT_USE)),
        [("hijack_suspected", SIGNAL, ELSEWHERE)],
    ),
    "use from another agent": (
        Use(CALL, token_of(MINE), False, noticed(SignalType.USER_AGENT_CHANGE)),
        [("hijack_suspected", SIGNAL, ELSEWHERE)],
    ),
    "use from another network": (
        Use(CALL, token_of(MINE), False, noticed(SignalType.IP_CHANGE)),
        [
            ("hijack_suspected", SIGNAL, ELSEWHERE),
            ("session_revoked", SIGNAL, ELSEWHERE),
            ("session_revoked", SIGNAL, ELSEWHERE),
            ("session_revoked", SIGNAL, ELSEWHERE),
        ],
    ),
    "report": (
        Report(CALL, token_of(MINE)),
        [("hijack_suspected", REPORTED, ELSEWHERE), ("session_revoked", REPORTED, ELSEWHERE)],
    ),
    "end some": (EndBatch(CALL, [MINE.id], "ada", LIMIT), [("session_revoked", LIMIT, ELSEWHERE)]),
    "use what has been idle": (
        Use(CALL, token_of(REMEMBERED), passive=False),
        [("session_level_lowered", IDLE, ELSEWHERE)],
    ),
    "roll what has been idle": (
        Roll(CALL, token_of(REMEMBERED), FRESH),
        [("session_level_lowered", IDLE, ELSEWHERE), ("session_rolled", ASKED, ELSEWHERE)],
    ),
    "refresh what has been idle": (
        Refresh(CALL, token_of(REMEMBERED)),
        [("session_level_lowered", IDLE, ELSEWHERE), ("session_refreshed", ASKED, ELSEWHERE)],
    ),
    "elevate what has been idle": (
        Authenticate(CALL, token_of(REMEMBERED), Login("ada"), FRESH, elevates=True),
        [
            ("session_level_lowered", IDLE, ELSEWHERE),
            ("session_authenticated", ASKED, ELSEWHERE),
            ("session_rolled", ASKED, ELSEWHERE),
        ],
    ),
    "use what is over": (Use(CALL, token_of(DUE), passive=False), [("session_expired", IDLE, NOBODY)]),
    "sweep": (Expire([DUE.id], {"default": POLICY}, POLICY), [("session_expired", IDLE, NOBODY)]),
}


@pytest.mark.parametrize("case", CASES)
def test_the_facts_of_an_event(case: str) -> None:
    """An event has its cause, its time and the client that the call was about; an expiry has no client."""
    unit, facts = CASES[case]
    work = work_on(MINE, OTHER, GUEST, DUE, REMEMBERED)
    work.run(unit)
    assert [(event.type.value, event.cause, event.client) for event in work.changes.events] == facts
    assert {event.at for event in work.changes.events} == {START}
    ended = {s.id for s in work.changes.sessions.values() if s.ending is not None}
    assert work.changes.retention == dict.fromkeys(ended, POLICY.retention)
