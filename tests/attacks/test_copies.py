"""Old tokens that come back from the session's own client, and from others: a copy on one device, or a theft."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from sessiond.domain.policy import Policy
from sessiond.domain.signals import Reaction, SignalType
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import (
    ATTACKER,
    MINUTE,
    SECOND,
    VICTIM,
    authority,
    create,
    hijacks,
    kinds,
    login,
    policy,
    roll,
    signal_types,
    story_of,
    validate,
)
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub

NEXT_DOOR = pb.ClientContext(ip_address="192.0.2.10", user_agent=ATTACKER.user_agent)
ELSEWHERE = pb.ClientContext(ip_address="203.0.113.66", user_agent=VICTIM.user_agent)
UPDATED = pb.ClientContext(ip_address="192.0.2.10", user_agent=VICTIM.user_agent.replace("128.0", "129.0"))
NO_AGENT = pb.ClientContext(ip_address=VICTIM.ip_address)
SILENT = pb.ClientContext()
DEVICE = "a device"


def on_device(client: pb.ClientContext, device_id: str = DEVICE) -> pb.ClientContext:
    """The same client, with a device."""
    return pb.ClientContext(ip_address=client.ip_address, user_agent=client.user_agent, device_id=device_id)


@dataclass
class Copied:
    """A session whose token was replaced, and whose new one is in use; the old one is the copy's."""

    old: str
    new: str
    session_id: str


async def copied(
    stub: AsyncStub, clock: ManualClock, client: pb.ClientContext = VICTIM, *, renewed: bool = False
) -> Copied:
    """A copy of a client's jar was made, and then its token was rolled, or renewed, and the new one used."""
    created = await create(stub, client=client)
    if renewed:
        for _ in range(3):
            clock.advance(25 * MINUTE)
            new = (await validate(stub, created.token, client)).renewed_token
    else:
        new = (await roll(stub, created.token, client)).token
    clock.advance(1)
    assert (await validate(stub, new, client)).verdict == pb.VERDICT_VALID
    clock.advance(2 * MINUTE)
    return Copied(created.token, new, created.session.session_id)


@pytest.mark.parametrize("renewed", [False, True], ids=["rolled", "renewed"])
@pytest.mark.parametrize("client", [VICTIM, UPDATED], ids=["same", "updated"])
async def test_a_copy_on_one_device_ends_nothing(
    tmp_path: Path, clock: ManualClock, client: pb.ClientContext, renewed: bool
) -> None:
    """Under owasp-low a copy is denied and told of, the owner goes on, and the copy can log in by itself."""
    async with authority(tmp_path, clock) as (_, stub):
        one = await copied(stub, clock, renewed=renewed)
        denied = await validate(stub, one.old, client)
        assert (denied.verdict, signal_types(denied)) == (pb.VERDICT_REPLAYED, ["TOKEN_COPY"])
        assert not denied.HasField("session")
        assert (await validate(stub, one.new)).verdict == pb.VERDICT_VALID
        (alarm,) = hijacks(await story_of(stub, one.old, one.new))
        assert alarm.reaction == pb.REACTION_ALERT
        again = await login(stub, one.old, client=client, or_create=True)
        assert (again.created, again.presented_verdict) == (True, pb.VERDICT_REPLAYED)
        assert again.session.session_id != one.session_id
        assert (await validate(stub, one.new)).verdict == pb.VERDICT_VALID


@pytest.mark.parametrize(
    "client",
    [ATTACKER, NEXT_DOOR, ELSEWHERE, NO_AGENT, SILENT],
    ids=["attacker", "next door", "elsewhere", "no agent", "silent"],
)
@pytest.mark.parametrize("renewed", [False, True], ids=["rolled", "renewed"])
async def test_a_copy_elsewhere_is_a_theft(
    tmp_path: Path, clock: ManualClock, client: pb.ClientContext, renewed: bool
) -> None:
    """From another browser, another network, or a client of which nothing is told, it is a replay, and the end."""
    async with authority(tmp_path, clock) as (_, stub):
        one = await copied(stub, clock, renewed=renewed)
        denied = await validate(stub, one.old, client)
        assert (denied.verdict, signal_types(denied)) == (pb.VERDICT_REPLAYED, ["TOKEN_REPLAY"])
        assert (await validate(stub, one.new)).verdict == pb.VERDICT_REVOKED


@pytest.mark.parametrize("client", [ATTACKER, NO_AGENT], ids=["attacker", "no agent"])
async def test_the_owner_of_a_session_that_a_thief_has_rolled_is_no_copy(
    tmp_path: Path, clock: ManualClock, client: pb.ClientContext
) -> None:
    """A thief who rolls and uses the session elsewhere is out when the owner comes with the old token."""
    async with authority(tmp_path, clock) as (_, stub):
        owner = await create(stub)
        thief = await roll(stub, owner.token, client)
        clock.advance(1)
        await validate(stub, thief.token, client)
        clock.advance(2 * MINUTE)
        denied = await validate(stub, owner.token, VICTIM)
        assert (denied.verdict, signal_types(denied)) == (pb.VERDICT_REPLAYED, ["TOKEN_REPLAY"])
        assert (await validate(stub, thief.token, client)).verdict == pb.VERDICT_REVOKED


async def test_a_thief_who_is_just_like_the_owner_stays_under_owasp_low(tmp_path: Path, clock: ManualClock) -> None:
    """A thief in the owner's network, with the owner's kind of browser, who has rolled: an alert, and not the end."""
    for preset, verdict in (("owasp-low", pb.VERDICT_VALID), ("owasp-high", pb.VERDICT_REVOKED)):
        (tmp_path / preset).mkdir()
        async with authority(tmp_path / preset, clock, policy(preset)) as (_, stub):
            owner = await create(stub)
            thief = await roll(stub, owner.token)
            clock.advance(1)
            await validate(stub, thief.token)
            clock.advance(2 * MINUTE)
            denied = await validate(stub, owner.token)
            assert (denied.verdict, signal_types(denied)) == (pb.VERDICT_REPLAYED, ["TOKEN_COPY"])
            assert (await validate(stub, thief.token)).verdict == verdict
            assert len(hijacks(await story_of(stub))) == 1


async def test_a_copy_follows_its_client_to_another_network(tmp_path: Path, clock: ManualClock) -> None:
    """A phone that has moved to another network has its copies there, and none where it was before."""
    async with authority(tmp_path, clock) as (_, stub):
        one = await copied(stub, clock)
        await validate(stub, one.new, ELSEWHERE)
        assert signal_types(await validate(stub, one.old, ELSEWHERE)) == ["TOKEN_COPY"]
        assert signal_types(await validate(stub, one.old, VICTIM)) == ["TOKEN_REPLAY"]


async def test_under_owasp_high_a_copy_is_the_end(tmp_path: Path, clock: ManualClock) -> None:
    """Under owasp-high any old token that comes back ends the session, as it did."""
    async with authority(tmp_path, clock, policy("owasp-high")) as (_, stub):
        one = await copied(stub, clock)
        assert signal_types(await validate(stub, one.old)) == ["TOKEN_COPY"]
        assert (await validate(stub, one.new)).verdict == pb.VERDICT_REVOKED


@pytest.mark.parametrize(
    ("client", "told"),
    [
        (on_device(VICTIM), "TOKEN_COPY"),
        (on_device(ELSEWHERE), "TOKEN_COPY"),
        (on_device(VICTIM, "another device"), "TOKEN_REPLAY"),
        (on_device(ATTACKER), "TOKEN_REPLAY"),
        (VICTIM, "TOKEN_REPLAY"),
    ],
    ids=["same", "same device elsewhere", "another device", "another browser", "no device"],
)
async def test_a_device_says_more_than_a_network(
    tmp_path: Path, clock: ManualClock, client: pb.ClientContext, told: str
) -> None:
    """Of a session that is bound to a device a copy is what comes from that device, on whatever network."""
    async with authority(tmp_path, clock) as (_, stub):
        one = await copied(stub, clock, on_device(VICTIM))
        assert signal_types(await validate(stub, one.old, client)) == [told]


@pytest.mark.parametrize("name", ["RollSession", "RefreshSession", "AuthenticateSession", "RevokeSession"])
async def test_a_copy_is_denied_everything(tmp_path: Path, clock: ManualClock, name: str) -> None:
    """Whatever a copy is used for, it is denied and gets nothing of the session; no call is gentler than another."""
    fields = {"subject": "ada"} if name == "AuthenticateSession" else {}
    async with authority(tmp_path, clock) as (_, stub):
        one = await copied(stub, clock)
        request = getattr(pb, name + "Request")(client=VICTIM, **fields)
        (request.session if name == "RevokeSession" else request).token = one.old
        answer = await getattr(stub, name)(request)
        assert (answer.verdict, answer.HasField("session"), getattr(answer, "token", "")) == (
            pb.VERDICT_REPLAYED,
            False,
            "",
        )
        assert (await validate(stub, one.new)).verdict == pb.VERDICT_VALID
        (alarm,) = hijacks(await story_of(stub, one.old, one.new))
        assert signal_types(alarm) == ["TOKEN_COPY"]


async def test_copies_are_folded(tmp_path: Path, clock: ManualClock) -> None:
    """A copy that keeps coming is told once, until the window is over."""
    async with authority(tmp_path, clock) as (_, stub):
        one = await copied(stub, clock)
        for _ in range(5):
            assert (await validate(stub, one.old)).verdict == pb.VERDICT_REPLAYED
        assert len(hijacks(await story_of(stub))) == 1


@pytest.mark.parametrize("reaction", [Reaction.IGNORE, Reaction.STEP_UP, Reaction.REVOKE_SUBJECT])
async def test_the_policy_decides_about_copies(tmp_path: Path, clock: ManualClock, reaction: Reaction) -> None:
    """Each reaction can be chosen for copies, whatever is chosen for replays."""
    rules = policy(reactions={SignalType.TOKEN_COPY: reaction})
    async with authority(tmp_path, clock, rules) as (_, stub):
        one, other = await copied(stub, clock), await create(stub)
        assert (await validate(stub, one.old)).verdict == pb.VERDICT_REPLAYED
        verdict = (await validate(stub, one.new)).verdict
        assert (
            verdict
            == {
                Reaction.IGNORE: pb.VERDICT_VALID,
                Reaction.STEP_UP: pb.VERDICT_INSUFFICIENT,
                Reaction.REVOKE_SUBJECT: pb.VERDICT_REVOKED,
            }[reaction]
        )
        ended = reaction is Reaction.REVOKE_SUBJECT
        assert (await validate(stub, other.token)).verdict == (pb.VERDICT_REVOKED if ended else pb.VERDICT_VALID)


# What happens to the cookie: the answer to a copy may be late, and the browser may have the newer token by then


def next_step_of(answer: pb.ValidateSessionResponse) -> tuple[str, list[str]]:
    """The next step, and the cookies that the answer sets or deletes."""
    return pb.NextStep.Name(answer.next_step).removeprefix("NEXT_STEP_"), list(answer.cookies.set_cookie)


GONE = ["__Host-id=; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"]
KEPT: tuple[str, list[str]] = ("KEEP_TOKEN", [])
DISCARDED = ("DISCARD_TOKEN", GONE)


@pytest.mark.parametrize("reaction", [Reaction.IGNORE, Reaction.ALERT, Reaction.STEP_UP])
@pytest.mark.parametrize("renewed", [False, True], ids=["rolled", "renewed"])
async def test_the_answer_to_a_copy_leaves_the_newer_cookie_alone(
    tmp_path: Path, clock: ManualClock, renewed: bool, reaction: Reaction
) -> None:
    """A copy is denied, and as long as the session lives its answers touch no cookie, reported or folded."""
    rules = policy(reactions={SignalType.TOKEN_COPY: reaction})
    async with authority(tmp_path, clock, rules) as (_, stub):
        one = await copied(stub, clock, renewed=renewed)
        for _ in range(3):
            denied = await validate(stub, one.old)
            assert (denied.verdict, signal_types(denied)) == (pb.VERDICT_REPLAYED, ["TOKEN_COPY"])
            assert next_step_of(denied) == KEPT
        batch = await stub.ValidateSessions(
            pb.ValidateSessionsRequest(
                requests=[pb.ValidateSessionRequest(token=token, client=VICTIM) for token in (one.old, "x", one.old)]
            )
        )
        assert [next_step_of(answer) for answer in batch.responses] == [KEPT, DISCARDED, KEPT]


@pytest.mark.parametrize("reaction", [Reaction.REVOKE_SESSION, Reaction.REVOKE_SUBJECT])
async def test_a_copy_that_ends_the_session_is_discarded(
    tmp_path: Path, clock: ManualClock, reaction: Reaction
) -> None:
    """If the policy ends the session for a copy, there is no newer token to keep."""
    rules = policy(reactions={SignalType.TOKEN_COPY: reaction})
    async with authority(tmp_path, clock, rules) as (_, stub):
        one = await copied(stub, clock)
        denied = await validate(stub, one.old)
        assert (denied.verdict, next_step_of(denied)) == (pb.VERDICT_REPLAYED, DISCARDED)


@pytest.mark.parametrize("reaction", [Reaction.ALERT, Reaction.REVOKE_SESSION])
async def test_the_cookie_of_a_replay_is_deleted(tmp_path: Path, clock: ManualClock, reaction: Reaction) -> None:
    """From another client an old token is discarded, although the session may live on."""
    rules = policy(reactions={SignalType.TOKEN_REPLAY: reaction})
    async with authority(tmp_path, clock, rules) as (_, stub):
        one = await copied(stub, clock)
        denied = await validate(stub, one.old, ATTACKER)
        assert (signal_types(denied), next_step_of(denied)) == (["TOKEN_REPLAY"], DISCARDED)


@pytest.mark.parametrize("used", [False, True], ids=["unused", "used"])
async def test_a_copy_is_kept_only_if_the_new_token_is_in_use(tmp_path: Path, clock: ManualClock, used: bool) -> None:
    """If nobody has used the new token for so long, the answer was lost, and the old one is all that the client has."""
    async with authority(tmp_path, clock) as (_, stub):
        old = await create(stub)
        new = await roll(stub, old.token)
        clock.advance(1)
        if used:
            await validate(stub, new.token)
        clock.advance(2 * MINUTE)
        denied = await validate(stub, old.token)
        assert (signal_types(denied), next_step_of(denied)) == (["TOKEN_COPY"], KEPT if used else DISCARDED)


@pytest.mark.parametrize("client", [VICTIM, ATTACKER], ids=["victim", "attacker"])
async def test_an_answer_that_may_be_late(tmp_path: Path, clock: ManualClock, client: pb.ClientContext) -> None:
    """Within `lost_answer_tolerance` the new token may still arrive: whoever sends the old one keeps its cookie."""
    async with authority(tmp_path, clock) as (_, stub):
        guest = await create(stub, "")
        await login(stub, guest.token)
        for wait, verdict, step in (
            (20 * SECOND - 1, pb.VERDICT_SUPERSEDED, KEPT),
            (1, pb.VERDICT_REPLAYED, KEPT),
            (40 * SECOND - 1, pb.VERDICT_REPLAYED, KEPT),
            (1, pb.VERDICT_REPLAYED, DISCARDED),
        ):
            clock.advance(wait)
            answer = await validate(stub, guest.token, client)
            assert (answer.verdict, next_step_of(answer)) == (verdict, step)


async def test_a_guests_copy_is_discarded(tmp_path: Path, clock: ManualClock) -> None:
    """A guest may never log in, and would keep a dead copy for as long as the session lives: it is deleted."""
    async with authority(tmp_path, clock) as (_, stub):
        guest = await create(stub, "")
        new = guest.token
        for _ in range(3):
            clock.advance(25 * MINUTE)
            new = (await validate(stub, new)).renewed_token or new
        await validate(stub, new)
        clock.advance(2 * MINUTE)
        denied = await validate(stub, guest.token)
        assert (signal_types(denied), next_step_of(denied)) == (["TOKEN_COPY"], DISCARDED)


async def test_a_device_that_has_only_the_copy(tmp_path: Path, clock: ManualClock) -> None:
    """It is denied until its user logs in; the login replaces its cookie, and from then on both sessions work."""
    async with authority(tmp_path, clock) as (_, stub):
        one = await copied(stub, clock)
        for _ in range(2):
            assert next_step_of(await validate(stub, one.old)) == KEPT
        guest = await create(stub, "", login_page=True)
        assert [line.partition("=")[0] for line in guest.cookies.set_cookie] == ["__Host-id"]
        for presented in (one.old, guest.token):
            again = await login(stub, presented, or_create=True)
            assert again.cookies.set_cookie[0].startswith(f"__Host-id={again.token};")
            answer = await validate(stub, again.token)
            assert (answer.verdict, answer.next_step) == (pb.VERDICT_VALID, pb.NEXT_STEP_PROCEED)
        assert (await validate(stub, one.new)).verdict == pb.VERDICT_VALID


async def test_a_copy_of_a_session_that_ended_later(tmp_path: Path, clock: ManualClock) -> None:
    """Once the session has ended and its tolerance has passed, its copies are discarded like any of its tokens."""
    async with authority(tmp_path, clock) as (_, stub):
        one = await copied(stub, clock)
        assert next_step_of(await validate(stub, one.old)) == KEPT
        await stub.RevokeSession(pb.RevokeSessionRequest(session=pb.SessionReference(session_id=one.session_id)))
        assert next_step_of(await validate(stub, one.old)) == KEPT
        clock.advance(20 * SECOND)
        assert next_step_of(await validate(stub, one.old)) == DISCARDED


async def test_a_logout_with_a_copy_deletes_the_cookie(tmp_path: Path, clock: ManualClock) -> None:
    """A user who asks to be logged out is, even if the session that the copy belongs to lives on."""
    async with authority(tmp_path, clock) as (_, stub):
        one = await copied(stub, clock)
        request = pb.RevokeSessionRequest(session=pb.SessionReference(token=one.old), client=VICTIM)
        answer = await stub.RevokeSession(request)
        assert (answer.verdict, list(answer.cookies.set_cookie)) == (pb.VERDICT_REPLAYED, GONE)


# A native part and a web view that share a jar

NATIVE = pb.ClientContext(
    ip_address="192.0.2.10", user_agent="ShopApp/5.2 (iPhone; iOS 18.5) CFNetwork/3826 Darwin/24.5"
)
WEB_VIEW = pb.ClientContext(
    ip_address="192.0.2.10",
    user_agent="Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Mobile/15E148",
)


async def names_of(tmp_path: Path, clock: ManualClock, rules: Policy) -> tuple[str, str]:
    """The two agents as the evidence of an alarm names them."""
    async with authority(tmp_path / "names", clock, rules) as (_, stub):
        created = await create(stub, client=NATIVE)
        await validate(stub, created.token, WEB_VIEW)
        (alarm, *_) = hijacks(await story_of(stub))
        (signal, *_) = alarm.signals
        return signal.expected, signal.seen


async def test_agents_that_belong_together(tmp_path: Path, clock: ManualClock) -> None:
    """An application that names them by what its alarms say hears no more of them; others are told as before."""
    (tmp_path / "names").mkdir()
    pair = await names_of(tmp_path, clock, policy())
    rules = policy(related_agents=(pair,))
    async with authority(tmp_path, clock, rules) as (_, stub):
        created = await create(stub, client=NATIVE)
        for number in range(6):
            clock.advance(1_000)
            client = WEB_VIEW if number % 2 else NATIVE
            assert not signal_types(await validate(stub, created.token, client))
        assert kinds(await story_of(stub)) == ["SESSION_CREATED"]
        stranger = pb.ClientContext(ip_address="192.0.2.10", user_agent=ATTACKER.user_agent)
        assert "USER_AGENT_CHANGE" in signal_types(await validate(stub, created.token, stranger))
