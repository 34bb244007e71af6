"""Reading and changing sessions over gRPC: views, lists, history, data, conditions and deadlines."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from sessiond.app import App
from sessiond.rpc import decode
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.rpc.refusals import refusal_of, revision_of, session_of
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub, config_for, serving, stub_for
from tests.support.tokens import at_revision, revision_in

loose: Any = pb  # so that a submessage can be written as a dict
SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000


def timestamp(millis: int) -> Timestamp:
    return Timestamp(seconds=millis // 1000, nanos=millis % 1000 * 1_000_000)


async def create(stub: AsyncStub, subject: str = "ada", **fields: Any) -> pb.CreateSessionResponse:
    response: pb.CreateSessionResponse = await stub.CreateSession(loose.CreateSessionRequest(subject=subject, **fields))
    return response


async def validate(stub: AsyncStub, token: str, **fields: Any) -> pb.ValidateSessionResponse:
    return await stub.ValidateSession(loose.ValidateSessionRequest(token=token, **fields))


def ids(sessions: Any) -> list[str]:
    return [session.session_id for session in sessions]


# Validation


async def test_a_batch_is_answered_in_order(stub: AsyncStub) -> None:
    """Each question of a batch has its own response, in the order of the questions, repeated ones included."""
    ada, bob = await create(stub, "ada"), await create(stub, "bob")
    await stub.RevokeSession(loose.RevokeSessionRequest(session={"token": bob.token}))
    tokens = [ada.token, "x", bob.token, "A" * 70, ada.token]
    batch = loose.ValidateSessionsRequest(requests=[{"token": token} for token in tokens])
    answers = (await stub.ValidateSessions(batch)).responses
    assert [pb.Verdict.Name(answer.verdict) for answer in answers] == [
        "VERDICT_VALID",
        "VERDICT_MALFORMED",
        "VERDICT_REVOKED",
        "VERDICT_FORGED",
        "VERDICT_VALID",
    ]
    assert [answer.session.subject for answer in answers] == ["ada", "", "", "", "ada"]


async def test_an_empty_batch(stub: AsyncStub) -> None:
    """A batch without questions has no responses."""
    assert list((await stub.ValidateSessions(pb.ValidateSessionsRequest())).responses) == []


async def test_a_batch_of_a_thousand(stub: AsyncStub) -> None:
    """A thousand questions are allowed."""
    created = await create(stub)
    batch = loose.ValidateSessionsRequest(requests=[{"token": created.token}] * 1000)
    answers = (await stub.ValidateSessions(batch)).responses
    assert [answer.verdict for answer in answers] == [pb.VERDICT_VALID] * 1000


async def test_at_least(stub: AsyncStub) -> None:
    """A validation at the log's head is answered; one beyond it is OUT_OF_RANGE and names both revisions."""
    created = await create(stub)
    assert (await validate(stub, created.token, at_least=created.consistency_token)).verdict == pb.VERDICT_VALID
    revision = revision_in(created)
    ahead = at_revision(created.consistency_token, revision + 1)
    refused = await refusal_of(validate(stub, created.token, at_least=ahead))
    assert refused.code == grpc.StatusCode.OUT_OF_RANGE
    assert f"{revision + 1} is ahead of the log, which ends at revision {revision}" in refused.message


async def test_passive_validation_is_no_activity(stub: AsyncStub, clock: ManualClock) -> None:
    """A passive validation does not move the idle deadline; one that is not passive does."""
    created = await create(stub)
    clock.advance(MINUTE)
    passive = await validate(stub, created.token, passive=True)
    assert passive.session.idle_expire_time == created.session.idle_expire_time
    active = await validate(stub, created.token)
    assert active.session.last_active_time == timestamp(clock.now())
    assert active.session.idle_expire_time == timestamp(clock.now() + 30 * MINUTE)


async def test_a_passive_look_shows_the_latest_activity(stub: AsyncStub, clock: ManualClock) -> None:
    """A passive validation shows activity that is only in memory."""
    created = await stub.CreateSession(pb.CreateSessionRequest(subject="ada"))
    clock.advance(1_000)
    active = await stub.ValidateSession(pb.ValidateSessionRequest(token=created.token))
    clock.advance(1_000)
    look = await stub.ValidateSession(pb.ValidateSessionRequest(token=created.token, passive=True))
    assert look.session.last_active_time == active.session.last_active_time
    assert look.session.idle_expire_time == active.session.idle_expire_time
    assert active.session.last_active_time != created.session.last_active_time


async def test_user_agents_are_cut_before_they_are_remembered(stub: AsyncStub) -> None:
    """User agents that differ only after their first 1,024 characters are the same, so stored ones are bounded."""
    remembered, name = decode._client.cache_info().currsize, secrets.token_hex(8)  # not remembered from another test
    for end in ("a", "b", "c"):
        client = pb.ClientContext(user_agent=f"long agent {name} " + "x" * 100_000 + end)
        created = await stub.CreateSession(pb.CreateSessionRequest(subject="ada", client=client))
        assert len(created.session.client.user_agent) == 1024
    assert decode._client.cache_info().currsize == remembered + 1


async def test_the_passive_first_use_of_a_renewed_token_is_no_activity(stub: AsyncStub, clock: ManualClock) -> None:
    """A renewed token that is first used passively becomes the current one, and the idle deadline does not move."""
    created = await create(stub)
    for _ in range(3):
        clock.advance(25 * MINUTE)
        before = await validate(stub, created.token)
    assert before.next_step == pb.NEXT_STEP_REPLACE_TOKEN
    clock.advance(5 * MINUTE)
    used = await validate(stub, before.renewed_token, passive=True)
    assert (used.verdict, used.session.generation) == (pb.VERDICT_VALID, 1)
    assert used.session.idle_expire_time == before.session.idle_expire_time
    clock.advance(25 * MINUTE)
    assert (await validate(stub, before.renewed_token)).verdict == pb.VERDICT_EXPIRED_IDLE


@pytest.mark.parametrize(("wait", "verdict"), [(-1, pb.VERDICT_VALID), (0, pb.VERDICT_EXPIRED_IDLE)])
async def test_idle_at_the_deadline(stub: AsyncStub, clock: ManualClock, wait: int, verdict: int) -> None:
    """A session is VALID one millisecond before its idle deadline, and EXPIRED_IDLE at it."""
    created = await create(stub)
    clock.advance(30 * MINUTE + wait)
    assert (await validate(stub, created.token)).verdict == verdict


async def test_activity_in_memory_keeps_a_session_alive(app: App, stub: AsyncStub, clock: ManualClock) -> None:
    """A session with recent activity in memory lives past its stored deadline, even through a sweep."""
    created = await create(stub)
    clock.advance(59 * SECOND)  # less than the touch granularity, so it is not stored
    assert (await validate(stub, created.token)).verdict == pb.VERDICT_VALID
    clock.advance(30 * MINUTE - SECOND)
    assert await app.sweeper.sweep() == 0
    assert ids((await stub.ListSessions(pb.ListSessionsRequest())).sessions) == [created.session.session_id]
    assert (await validate(stub, created.token)).verdict == pb.VERDICT_VALID


# Deadlines and history


async def test_the_sweeper_tells_of_expiry(app: App, stub: AsyncStub, clock: ManualClock) -> None:
    """A swept session has a SESSION_EXPIRED event, and ended at its deadline, not at the time of the sweep."""
    created = await create(stub)
    deadline = clock.now() + 30 * MINUTE
    clock.advance(HOUR)
    assert await app.sweeper.sweep() == 1
    assert await app.sweeper.sweep() == 0
    session = await session_of(stub, created.session.session_id)
    assert session.state == pb.SESSION_STATE_EXPIRED
    assert session.ending.end_time == timestamp(deadline)
    assert session.ending.cause.kind == pb.CAUSE_KIND_IDLE_TIMEOUT
    events = (await stub.ListActivity(pb.ListActivityRequest(subject="ada"))).events
    assert [event.type for event in events] == [pb.EVENT_TYPE_SESSION_EXPIRED, pb.EVENT_TYPE_SESSION_CREATED]
    assert events[0].cause.actor == "authority"


async def test_expiry_shows_before_the_sweep(stub: AsyncStub, clock: ManualClock) -> None:
    """A session past its deadline is EXPIRED in every view, even before a sweep."""
    created = await create(stub)
    clock.advance(30 * MINUTE)
    session = await session_of(stub, created.session.session_id)
    assert session.state == pb.SESSION_STATE_EXPIRED
    assert session.ending.end_time == created.session.idle_expire_time
    assert not (await stub.ListSessions(pb.ListSessionsRequest())).sessions
    expired = loose.ListSessionsRequest(filter={"state": pb.SESSION_STATE_EXPIRED})
    assert ids((await stub.ListSessions(expired)).sessions) == [created.session.session_id]
    revoked = await stub.RevokeSession(loose.RevokeSessionRequest(session={"token": created.token}))
    assert (revoked.revoked, revoked.verdict) == (False, pb.VERDICT_EXPIRED_IDLE)


async def test_history_is_kept_for_the_retention(app: App, stub: AsyncStub, clock: ManualClock) -> None:
    """An ended session is shown until its retention has passed, and is UNKNOWN and NOT_FOUND afterwards."""
    created = await create(stub)
    await stub.RevokeSession(loose.RevokeSessionRequest(session={"token": created.token}))
    clock.advance(30 * DAY - 1)
    assert await app.sweeper.prune() == 0
    assert (await validate(stub, created.token)).verdict == pb.VERDICT_REVOKED
    clock.advance(1)
    assert await app.sweeper.prune() == 1
    assert (await validate(stub, created.token)).verdict == pb.VERDICT_UNKNOWN
    refused = await refusal_of(session_of(stub, created.session.session_id))
    assert refused.code == grpc.StatusCode.NOT_FOUND


async def test_the_log_is_kept_for_its_retention(tmp_path: Path, clock: ManualClock) -> None:
    """Events older than the retention are deleted, and the horizon shows up to where; later ones stay."""
    config = config_for(tmp_path, '[server]\nevent_retention = "1h"\n')
    async with serving(config, clock) as app, stub_for(app.address) as stub:
        await create(stub)
        await create(stub)
        clock.advance(1)
        await create(stub)
        clock.advance(HOUR)
        await app.sweeper.prune()
        state = await stub.GetAuthority(pb.GetAuthorityRequest())
        assert (state.revision, state.horizon) == (3, 2)
        events = (await stub.ListActivity(pb.ListActivityRequest(subject="ada"))).events
        assert [event.revision for event in events] == [3]


async def test_a_clean_restart_loses_nothing(tmp_path: Path, clock: ManualClock) -> None:
    """After a clean restart, sessions, tokens, data, log and last activity are the same as before."""
    config = config_for(tmp_path)
    async with serving(config, clock) as app, stub_for(app.address) as stub:
        created = await create(stub, data={"cart": b"3 apples"})
        clock.advance(SECOND)
        before = (await validate(stub, created.token)).session
        state = await stub.GetAuthority(pb.GetAuthorityRequest())
    async with serving(config, clock) as app, stub_for(app.address) as stub:
        assert await session_of(stub, created.session.session_id) == before
        after = await stub.GetAuthority(pb.GetAuthorityRequest())
        assert after.incarnation != state.incarnation  # each start begins a new incarnation of the log
        for one in (state, after):
            one.ClearField("incarnation")
            one.ClearField("consistency_token")
        assert after == state
        clock.advance(30 * MINUTE - 1)
        assert (await validate(stub, created.token, passive=True)).verdict == pb.VERDICT_VALID
        data = await stub.GetSessionData(loose.GetSessionDataRequest(session={"token": created.token}))
        assert dict(data.data) == {"cart": b"3 apples"}
        assert revision_in(await create(stub)) == state.revision + 1


# Refresh, roll, authentication


@pytest.mark.parametrize("extends", [False, True])
async def test_refresh(tmp_path: Path, clock: ManualClock, extends: bool) -> None:
    """A refresh restarts the idle timeout, and the lifetime exactly if the policy allows it."""
    text = f"[applications.default]\nrefresh_extends_lifetime = {str(extends).lower()}\n"
    async with serving(config_for(tmp_path, text), clock) as app, stub_for(app.address) as stub:
        created = await create(stub)
        clock.advance(20 * MINUTE)
        refreshed = await stub.RefreshSession(pb.RefreshSessionRequest(token=created.token))
        assert refreshed.verdict == pb.VERDICT_VALID
        assert refreshed.session.idle_expire_time == timestamp(clock.now() + 30 * MINUTE)
        absolute = timestamp(clock.now() + 8 * HOUR) if extends else created.session.absolute_expire_time
        assert refreshed.session.absolute_expire_time == absolute
        assert (await validate(stub, created.token)).next_step == pb.NEXT_STEP_PROCEED


async def test_a_roll_has_no_overlap(stub: AsyncStub, clock: ManualClock) -> None:
    """After a roll the old token is SUPERSEDED for 20 seconds. Later it counts as a replay and ends the session."""
    created = await create(stub)
    rolled = await stub.RollSession(pb.RollSessionRequest(token=created.token, reason="role"))
    assert (rolled.verdict, rolled.session.generation) == (pb.VERDICT_VALID, 1)
    clock.advance(20 * SECOND - 1)
    moments = await validate(stub, created.token)
    assert (moments.verdict, moments.next_step) == (pb.VERDICT_SUPERSEDED, pb.NEXT_STEP_KEEP_TOKEN)
    clock.advance(1)
    assert (await validate(stub, rolled.token)).verdict == pb.VERDICT_VALID
    replayed = await validate(stub, created.token)
    assert (replayed.verdict, replayed.next_step) == (pb.VERDICT_REPLAYED, pb.NEXT_STEP_DISCARD_TOKEN)
    assert (await validate(stub, rolled.token)).verdict == pb.VERDICT_REVOKED
    revoked, alarm = (await stub.ListActivity(pb.ListActivityRequest(subject="ada", page_size=2))).events
    assert (alarm.type, revoked.type) == (pb.EVENT_TYPE_HIJACK_SUSPECTED, pb.EVENT_TYPE_SESSION_REVOKED)
    assert [signal.type for signal in alarm.signals] == [pb.SIGNAL_TYPE_TOKEN_REPLAY]
    assert alarm.reaction == pb.REACTION_REVOKE_SESSION
    assert revoked.cause.kind == pb.CAUSE_KIND_SIGNAL


async def test_a_refresh_shows_what_counts_now(stub: AsyncStub, clock: ManualClock) -> None:
    """Refresh and logout show the authentication that is effective now, as every other response does."""
    created = await create(stub, authentication={"level": 1})
    request = loose.AuthenticateSessionRequest(
        token=created.token, subject="ada", elevate=True, authentication={"level": 3}
    )
    token = (await stub.AuthenticateSession(request)).token
    for level, raised in ((3, True), (1, False)):
        shown = (await stub.RefreshSession(loose.RefreshSessionRequest(token=token))).session
        assert (shown.authentication.level, shown.HasField("elevation_expire_time")) == (level, raised)
        clock.advance(15 * MINUTE)
    ended = (await stub.RevokeSession(loose.RevokeSessionRequest(session={"token": token}))).session
    assert (ended.authentication.level, ended.HasField("elevation_expire_time")) == (1, False)


async def test_a_suspicion_that_was_told_is_no_way_in(stub: AsyncStub, clock: ManualClock) -> None:
    """If a client must authenticate again, it must do so each time, also at the first use of a renewed token."""
    home, elsewhere = {"device_id": "phone"}, {"device_id": "thief"}
    created = await create(stub, client=home)
    assert (await validate(stub, created.token, client=elsewhere)).verdict == pb.VERDICT_INSUFFICIENT
    for _ in range(3):
        clock.advance(19 * MINUTE)
        assert (await validate(stub, created.token, client=home)).verdict == pb.VERDICT_VALID
    assert (await validate(stub, created.token, client=elsewhere)).verdict == pb.VERDICT_INSUFFICIENT
    clock.advance(4 * MINUTE)
    renewed = (await validate(stub, created.token, client=home)).renewed_token
    assert renewed
    for token in (created.token, renewed, renewed):
        answer = await validate(stub, token, client=elsewhere)
        assert (answer.verdict, answer.next_step) == (pb.VERDICT_INSUFFICIENT, pb.NEXT_STEP_STEP_UP)


async def test_a_session_is_one_subjects(stub: AsyncStub) -> None:
    """Authentication as another subject is FAILED_PRECONDITION, and neither token nor session changes."""
    created = await create(stub, "ada")
    refused = await refusal_of(
        stub.AuthenticateSession(pb.AuthenticateSessionRequest(token=created.token, subject="bob"))
    )
    assert refused.code == grpc.StatusCode.FAILED_PRECONDITION
    assert await revision_of(stub) == revision_in(created)
    assert await session_of(stub, created.session.session_id) == created.session
    assert (await validate(stub, created.token)).verdict == pb.VERDICT_VALID


async def test_authentication_again(stub: AsyncStub, clock: ManualClock) -> None:
    """Repeated authentication of the same subject sets level, methods, time and client, and restarts the lifetime."""
    created = await create(stub, "ada", authentication={"level": 1, "methods": ["pwd"]})
    clock.advance(20 * MINUTE)
    again = await stub.AuthenticateSession(
        loose.AuthenticateSessionRequest(
            token=created.token,
            subject="ada",
            authentication={"level": 2, "methods": ["pwd", "otp"]},
            client={"ip_address": "::ffff:192.0.2.7"},
        )
    )
    how = again.session.authentication
    assert (how.level, list(how.methods), how.authenticate_time) == (2, ["pwd", "otp"], timestamp(clock.now()))
    assert again.session.client.ip_address == "192.0.2.7"
    assert again.session.absolute_expire_time == timestamp(clock.now() + 8 * HOUR)


# Reading


async def test_get_by_token_and_by_id(stub: AsyncStub) -> None:
    """A session is shown by its token and by its id, and an ended one by its id only."""
    created = await create(stub)
    by_token = await stub.GetSession(loose.GetSessionRequest(session={"token": created.token}))
    assert (by_token.verdict, by_token.session) == (pb.VERDICT_VALID, created.session)
    assert await session_of(stub, created.session.session_id) == created.session
    await stub.RevokeSession(
        loose.RevokeSessionRequest(session={"session_id": created.session.session_id}, reason="stolen")
    )
    by_token = await stub.GetSession(loose.GetSessionRequest(session={"token": created.token}))
    assert (by_token.verdict, by_token.HasField("session")) == (pb.VERDICT_REVOKED, False)
    by_id = await session_of(stub, created.session.session_id)
    assert (by_id.state, by_id.ending.cause.reason) == (pb.SESSION_STATE_REVOKED, "stolen")


async def test_lists_in_pages(stub: AsyncStub, clock: ManualClock) -> None:
    """Pages go from the newest to the oldest session, and stay stable if sessions are opened meanwhile."""
    created = []
    for _ in range(5):
        created.append((await create(stub)).session.session_id)
        clock.advance(1)
    listed: list[str] = []
    token = ""
    for _ in range(3):
        page = await stub.ListSessions(pb.ListSessionsRequest(page_size=2, page_token=token))
        listed += ids(page.sessions)
        token = page.next_page_token
        await create(stub, "late")
    assert listed == created[::-1]
    assert token == ""


async def test_list_filters(stub: AsyncStub, clock: ManualClock) -> None:
    """Each condition of a filter lists exactly the sessions that match it."""
    office, home = {"ip_address": "10.1.2.3"}, {"ip_address": "2001:db8::7"}
    start = clock.now()
    guest = (await create(stub, "", client=office)).session.session_id
    clock.advance(1)
    ada = (await create(stub, "ada", client=office)).session.session_id
    clock.advance(1)
    bob = (await create(stub, "bob", client=home)).session.session_id
    gone = (await create(stub, "ada")).session.session_id
    await stub.RevokeSession(loose.RevokeSessionRequest(session={"session_id": gone}))

    async def listed(**conditions: Any) -> set[str]:
        return set(ids((await stub.ListSessions(loose.ListSessionsRequest(filter=conditions))).sessions))

    assert await listed() == {guest, ada, bob}
    assert await listed(subject="ada") == {ada}
    assert await listed(subject="") == {guest}
    assert await listed(state=pb.SESSION_STATE_REVOKED) == {gone}
    assert await listed(ip_network="10.0.0.0/8") == {guest, ada}
    assert await listed(ip_network="10.1.2.3") == {guest, ada}
    assert await listed(ip_network="2001:db8::/32") == {bob}
    assert await listed(created_from=timestamp(start + 1)) == {ada, bob}
    assert await listed(created_until=timestamp(start + 1)) == {guest}
    assert await listed(ip_network="10.0.0.0/8", subject="bob") == set()


async def test_activity_in_pages(stub: AsyncStub) -> None:
    """A subject's history is listed newest first, in pages, and contains no other subject's events."""
    created = await create(stub)
    await create(stub, "bob")
    for _ in range(3):
        await stub.RefreshSession(pb.RefreshSessionRequest(token=created.token))
    revisions: list[int] = []
    token = ""
    while True:
        request = pb.ListActivityRequest(subject="ada", page_size=3, page_token=token)
        page = await stub.ListActivity(request)
        assert {event.subject for event in page.events} == {"ada"}
        revisions += [event.revision for event in page.events]
        token = page.next_page_token
        if not token:
            break
    assert revisions == [5, 4, 3, 1]


async def test_revoking_a_whole_application(tmp_path: Path, clock: ManualClock) -> None:
    """Revoking a whole application ends all its sessions, even if they are more than one batch, and no others."""
    config = config_for(tmp_path, "[applications.default]\n[applications.shop]\n")
    async with serving(config, clock) as app, stub_for(app.address) as stub:
        other = await create(stub, application="shop")
        for _ in range(205):
            last = await create(stub)
        answer = await stub.RevokeSessions(pb.RevokeSessionsRequest(whole_application=True, reason="breach"))
        assert (answer.revoked_count, revision_in(answer)) == (205, revision_in(last) + 205)
        assert not (await stub.ListSessions(pb.ListSessionsRequest())).sessions
        assert (await validate(stub, other.token, application="shop")).verdict == pb.VERDICT_VALID
        again = await stub.RevokeSessions(pb.RevokeSessionsRequest(whole_application=True))
        assert (again.revoked_count, revision_in(again)) == (0, revision_in(answer))


# Data


async def test_data_is_changed_key_by_key(stub: AsyncStub) -> None:
    """Keys are set and deleted together, each change increments the version, and selected keys can be read."""
    created = await create(stub, data={"a": b"1", "b": b"2"})
    named = {"token": created.token}
    assert created.session.data_version == 1
    changed = await stub.UpdateSessionData(
        loose.UpdateSessionDataRequest(session=named, set={"c": b""}, delete=["a", "z"])
    )
    assert (changed.version, revision_in(changed)) == (2, revision_in(created) + 1)
    everything = await stub.GetSessionData(loose.GetSessionDataRequest(session=named))
    assert (dict(everything.data), everything.version) == ({"b": b"2", "c": b""}, 2)
    some = await stub.GetSessionData(loose.GetSessionDataRequest(session=named, keys=["c", "nothing"]))
    assert dict(some.data) == {"c": b""}


@pytest.mark.parametrize("expected", [0, 2, 2**64 - 1])
async def test_a_conditional_write_that_is_too_late(stub: AsyncStub, expected: int) -> None:
    """A write for another version is ABORTED, names both versions, and changes nothing."""
    created = await create(stub, data={"a": b"1"})
    update = loose.UpdateSessionDataRequest(
        session={"token": created.token}, set={"a": b"2"}, expected_version=expected
    )
    refused = await refusal_of(stub.UpdateSessionData(update))
    assert refused.code == grpc.StatusCode.ABORTED
    assert f"at version 1, not {expected}" in refused.message
    data = await stub.GetSessionData(loose.GetSessionDataRequest(session={"token": created.token}))
    assert (dict(data.data), data.version) == ({"a": b"1"}, 1)
    assert await revision_of(stub) == revision_in(created)


async def test_a_conditional_write_in_time(stub: AsyncStub) -> None:
    """A write for the current version succeeds, including the first one for version 0."""
    created = await create(stub)
    for version in range(3):
        update = loose.UpdateSessionDataRequest(
            session={"token": created.token}, set={"a": b"x"}, expected_version=version
        )
        assert (await stub.UpdateSessionData(update)).version == version + 1


async def test_data_ends_with_the_session(stub: AsyncStub) -> None:
    """The data of an ended session can be neither read nor written."""
    created = await create(stub, data={"a": b"1"})
    named = {"session_id": created.session.session_id}
    await stub.RevokeSession(loose.RevokeSessionRequest(session=named))
    read = await stub.GetSessionData(loose.GetSessionDataRequest(session=named))
    assert (read.verdict, dict(read.data), read.version) == (pb.VERDICT_REVOKED, {}, 0)
    before = await revision_of(stub)
    written = await stub.UpdateSessionData(loose.UpdateSessionDataRequest(session=named, set={"a": b"2"}))
    assert (written.verdict, written.version) == (pb.VERDICT_REVOKED, 0)
    assert await revision_of(stub) == before


async def test_the_authority_describes_itself(tmp_path: Path, clock: ManualClock) -> None:
    """GetAuthority lists the applications with their effective policies; a timeout that does not exist is unset."""
    text = (
        '[applications.shop]\npreset = "owasp-high"\nidle_timeout = "2m"\n[applications.bank]\npreset = "nist-aal1"\n'
    )
    async with serving(config_for(tmp_path, text), clock) as app, stub_for(app.address) as stub:
        state = await stub.GetAuthority(pb.GetAuthorityRequest())
    assert [application.name for application in state.applications] == ["bank", "shop"]
    bank, shop = (application.policy for application in state.applications)
    assert (bank.preset, bank.HasField("idle_timeout"), bank.absolute_timeout.seconds) == (
        "nist-aal1",
        False,
        30 * 86400,
    )
    assert (shop.preset, shop.idle_timeout.seconds, shop.max_data_bytes) == ("owasp-high", 120, 65536)
    assert (state.revision, state.horizon) == (0, 0)
