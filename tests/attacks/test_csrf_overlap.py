"""The CSRF token from before a step-up: good in the user's other tabs for a time, and of no use to an attacker."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from sessiond.crypto import base64url
from sessiond.domain.signals import Reaction, SignalType
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import (
    ATTACKER,
    HOUR,
    MINUTE,
    SECOND,
    VICTIM,
    authority,
    create,
    fresh_id,
    kinds,
    login,
    policy,
    roll,
    story_of,
    unmet_kinds,
    validate,
)
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub

STRONG = {"level": 2, "methods": ["pwd", "otp"]}
STEP_UPS: dict[str, dict[str, Any]] = {
    "again": {},
    "a higher level": {"authentication": STRONG},
    "elevated": {"authentication": STRONG, "elevate": True},
    "or created": {"or_create": True, "request_id": fresh_id()},
}
step_ups = pytest.mark.parametrize("fields", STEP_UPS.values(), ids=STEP_UPS.keys())
waits = pytest.mark.parametrize("wait", [0, 20 * SECOND, 59 * MINUTE])
LONG = policy(csrf_overlap=HOUR, idle_timeout=2 * HOUR)


async def accepts(stub: AsyncStub, token: str, csrf: str, client: pb.ClientContext = VICTIM) -> bool:
    """Whether a request with side effects and this CSRF token is served; if not, only that token is missing."""
    answer = await validate(stub, token, client, requirements={"csrf": {"csrf_token": csrf}})
    if answer.verdict == pb.VERDICT_VALID:
        return True
    assert (answer.verdict, unmet_kinds(answer)) == (pb.VERDICT_INSUFFICIENT, ["CSRF_TOKEN"])
    assert answer.next_step == pb.NEXT_STEP_KEEP_TOKEN
    return False


def stored_in(folder: Path) -> list[bytes]:
    """The content of every file of the database."""
    return [path.read_bytes() for path in folder.rglob("sessiond.db*")]


@step_ups
async def test_another_tab_over_a_step_up(stub: AsyncStub, clock: ManualClock, fields: dict[str, Any]) -> None:
    """A form in another tab can be sent until exactly the overlap's end after a step-up, and the new one always."""
    mine = await create(stub)
    raised = await login(stub, mine.token, **fields)
    assert raised.session.session_id == mine.session.session_id
    assert raised.csrf_token != mine.csrf_token
    for wait, accepted in ((0, True), (1, True), (10 * MINUTE - 2, True), (1, False), (MINUTE, False)):
        clock.advance(wait)
        assert await accepts(stub, raised.token, mine.csrf_token) is accepted
        assert await accepts(stub, raised.token, raised.csrf_token)
    events = await story_of(stub, mine.token, raised.token, mine.csrf_token, raised.csrf_token)
    assert kinds(events) == ["SESSION_CREATED", "SESSION_AUTHENTICATED", "SESSION_ROLLED"]


async def test_the_page_gets_the_new_csrf_token(stub: AsyncStub) -> None:
    """A request that the earlier CSRF token lets through gets the current one for its page, and is not to be reused."""
    mine = await create(stub)
    raised = await login(stub, mine.token)
    needed = {"csrf": {"csrf_token": mine.csrf_token}}
    answer = await validate(stub, raised.token, requirements=needed, with_csrf_token=True)
    assert (answer.verdict, answer.csrf_token) == (pb.VERDICT_VALID, raised.csrf_token)
    assert not answer.HasField("cacheable_for")


async def test_the_earlier_csrf_token_needs_the_new_token(stub: AsyncStub) -> None:
    """The earlier CSRF token is accepted beside the session's current token only, not beside the one it was made of."""
    mine = await create(stub)
    await login(stub, mine.token)
    answer = await validate(stub, mine.token, requirements={"csrf": {"csrf_token": mine.csrf_token}})
    assert answer.verdict == pb.VERDICT_SUPERSEDED


@waits
async def test_the_csrf_token_of_a_planted_guest_session(tmp_path: Path, clock: ManualClock, wait: int) -> None:
    """An attacker who planted the guest's session knows its CSRF token, which the login makes worthless for good."""
    async with authority(tmp_path, clock, LONG) as (_, stub):
        planted = await create(stub, "", client=ATTACKER)
        own = await login(stub, planted.token)
        clock.advance(wait)
        assert not await accepts(stub, own.token, planted.csrf_token)
        raised = await login(stub, own.token, authentication=STRONG)
        assert not await accepts(stub, raised.token, planted.csrf_token)
        assert await accepts(stub, raised.token, own.csrf_token)


@waits
async def test_a_csrf_token_from_before_a_roll(tmp_path: Path, clock: ManualClock, wait: int) -> None:
    """After a change of password or role neither the CSRF token before it nor the one before that is accepted."""
    async with authority(tmp_path, clock, LONG) as (_, stub):
        mine = await create(stub)
        raised = await login(stub, mine.token)
        assert await accepts(stub, raised.token, mine.csrf_token)
        rolled = await roll(stub, raised.token)
        clock.advance(wait)
        for old in (mine.csrf_token, raised.csrf_token):
            assert not await accepts(stub, rolled.token, old)
        assert await accepts(stub, rolled.token, rolled.csrf_token)


@step_ups
async def test_a_step_up_that_a_suspicion_demands(tmp_path: Path, clock: ManualClock, fields: dict[str, Any]) -> None:
    """If the subject authenticates because of a suspicion, no earlier CSRF token of the session is accepted."""
    rules = policy(reactions={SignalType.REPORTED: Reaction.STEP_UP})
    async with authority(tmp_path, clock, rules) as (_, stub):
        mine = await create(stub)
        raised = await login(stub, mine.token)
        await stub.ReportSignal(pb.ReportSignalRequest(session=pb.SessionReference(token=raised.token)))
        asked = await validate(stub, raised.token, requirements={"csrf": {"csrf_token": mine.csrf_token}})
        assert (asked.verdict, unmet_kinds(asked)) == (pb.VERDICT_INSUFFICIENT, ["REAUTHENTICATION"])
        proven = await login(stub, raised.token, **fields)
        for old in (mine.csrf_token, raised.csrf_token):
            assert not await accepts(stub, proven.token, old)
        assert await accepts(stub, proven.token, proven.csrf_token)


@pytest.mark.parametrize(("reaction", "kept"), [(Reaction.ALERT, True), (Reaction.STEP_UP, False)])
async def test_a_step_up_of_a_client_that_is_denied(
    tmp_path: Path, clock: ManualClock, reaction: Reaction, kept: bool
) -> None:
    """A client that the policy denies until it authenticates has no page with the earlier CSRF token to send."""
    rules = policy(reactions={SignalType.USER_AGENT_CHANGE: reaction})
    async with authority(tmp_path, clock, rules) as (_, stub):
        mine = await create(stub, client=ATTACKER)
        raised = await login(stub, mine.token, client=VICTIM)
        assert await accepts(stub, raised.token, mine.csrf_token) is kept


async def test_a_step_up_while_two_clients_may_hold_the_token(tmp_path: Path, clock: ManualClock) -> None:
    """If an old token came back before the step-up, another client may have had the session's CSRF token."""
    async with authority(tmp_path, clock) as (_, stub):
        mine = await create(stub)
        rolled = await roll(stub, mine.token)
        clock.advance(30 * SECOND)
        assert (await validate(stub, mine.token)).verdict == pb.VERDICT_REPLAYED
        raised = await login(stub, rolled.token)
        assert not await accepts(stub, raised.token, rolled.csrf_token)


async def test_of_two_step_ups_only_the_last_overlaps(stub: AsyncStub, clock: ManualClock) -> None:
    """After two step-ups in a row the CSRF token between them is accepted, from the second on, and no older one."""
    mine = await create(stub)
    first = await login(stub, mine.token)
    clock.advance(6 * MINUTE)
    second = await login(stub, first.token, authentication=STRONG, elevate=True)
    assert not await accepts(stub, second.token, mine.csrf_token)
    clock.advance(10 * MINUTE - 1)
    assert await accepts(stub, second.token, first.csrf_token)
    clock.advance(1)
    assert not await accepts(stub, second.token, first.csrf_token)


@pytest.mark.parametrize("wait", [1, 10 * SECOND, 50 * SECOND])
async def test_a_repeated_step_up_extends_no_overlap(stub: AsyncStub, clock: ManualClock, wait: int) -> None:
    """A step-up that is repeated and gets its first response again neither restarts nor ends the overlap."""
    mine = await create(stub)
    raised = await login(stub, mine.token, authentication=STRONG)
    clock.advance(wait)
    assert (await login(stub, mine.token, authentication=STRONG)).token == raised.token
    assert await accepts(stub, raised.token, mine.csrf_token)
    clock.advance(10 * MINUTE - wait - 1)
    assert await accepts(stub, raised.token, mine.csrf_token)
    clock.advance(1)
    assert not await accepts(stub, raised.token, mine.csrf_token)


async def test_the_overlap_survives_a_renewal_and_a_restart(tmp_path: Path, clock: ManualClock) -> None:
    """Neither a renewal nor a restart of the authority changes what the overlap accepts, or until when."""
    rules = policy(renewal_timeout=4 * MINUTE)
    async with authority(tmp_path, clock, rules) as (_, stub):
        mine = await create(stub)
        raised = await login(stub, mine.token)
        clock.advance(4 * MINUTE)
        renewed = (await validate(stub, raised.token)).renewed_token
        assert await accepts(stub, renewed, mine.csrf_token)
    async with authority(tmp_path, clock, rules) as (_, stub):
        clock.advance(6 * MINUTE - 1)
        assert await accepts(stub, renewed, mine.csrf_token)
        clock.advance(1)
        assert not await accepts(stub, renewed, mine.csrf_token)
        assert await accepts(stub, renewed, raised.csrf_token)


async def test_what_else_is_no_earlier_csrf_token(stub: AsyncStub) -> None:
    """During the overlap the ids, tokens and CSRF tokens of this and of other sessions are refused as before."""
    mine, other = await create(stub), await create(stub)
    raised, others = await login(stub, mine.token), await login(stub, other.token)
    wrong = [mine.session.session_id, mine.token, raised.token, other.csrf_token, others.csrf_token, ""]
    wrong += [mine.csrf_token + "=", mine.csrf_token[:-1], mine.csrf_token.swapcase()]
    for csrf in wrong:
        assert not await accepts(stub, raised.token, csrf)
    assert await accepts(stub, raised.token, mine.csrf_token)


async def test_another_subject_inherits_no_csrf_token(tmp_path: Path, clock: ManualClock) -> None:
    """A login of another subject opens a session of its own, which accepts no CSRF token of the one before."""
    async with authority(tmp_path, clock, LONG) as (_, stub):
        mine = await create(stub)
        raised = await login(stub, mine.token)
        theirs = await login(stub, raised.token, "bob", or_create=True)
        assert theirs.created
        for old in (mine.csrf_token, raised.csrf_token):
            assert not await accepts(stub, theirs.token, old)


async def test_without_an_overlap_a_step_up_ends_every_form(tmp_path: Path, clock: ManualClock) -> None:
    """A policy without an overlap accepts no earlier CSRF token, not even in the millisecond of the step-up."""
    async with authority(tmp_path, clock, policy(csrf_overlap=0)) as (_, stub):
        mine = await create(stub)
        raised = await login(stub, mine.token)
        assert not await accepts(stub, raised.token, mine.csrf_token)


async def test_the_store_holds_no_earlier_csrf_token(tmp_path: Path, clock: ManualClock) -> None:
    """Of the earlier CSRF token the store has only the hash, so whoever reads it cannot forge requests."""
    async with authority(tmp_path, clock) as (_, stub):
        mine = await create(stub)
        raised = await login(stub, mine.token)
        stored = b"".join(stored_in(tmp_path))
        text = mine.csrf_token.encode()
        assert sha256(text).digest() in stored
        assert text not in stored
        assert base64url.decode(mine.csrf_token) not in stored
        digest = sha256(text).digest()
        for csrf in (base64url.encode(digest), digest.hex()):
            assert not await accepts(stub, raised.token, csrf)


async def test_a_request_that_the_earlier_csrf_token_lets_through_is_activity(
    stub: AsyncStub, clock: ManualClock
) -> None:
    """During the overlap a form from before the step-up keeps the session from going idle; after it, it does not."""
    mine = await create(stub)
    raised = await login(stub, mine.token)
    clock.advance(10 * MINUTE - 1)
    assert await accepts(stub, raised.token, mine.csrf_token)
    clock.advance(29 * MINUTE)
    assert not await accepts(stub, raised.token, mine.csrf_token)
    clock.advance(MINUTE)
    assert (await validate(stub, raised.token)).verdict == pb.VERDICT_EXPIRED_IDLE
