"""Policies that change at run time: effective at once, recorded as events, and never taken from an invalid file."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from sessiond.app import App
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.rpc.refusals import refusal_of, revision_of, session_of
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub, ServerProcess, config_for, serving, stub_for
from tests.support.streams import read_up_to, subscribe
from tests.support.tokens import revision_in

loose: Any = pb  # so that a submessage can be written as a dict
MINUTE = 60_000
BEFORE = """[applications.default]
[applications.shop]
idle_timeout = "10m"
"""


@asynccontextmanager
async def reloadable(folder: Path, clock: ManualClock, text: str = BEFORE) -> AsyncIterator[tuple[App, AsyncStub]]:
    """Return an authority with two applications."""
    async with serving(config_for(folder, text), clock) as app, stub_for(app.address) as stub:
        yield app, stub


async def reload(app: App, folder: Path, text: str, **changes: Any) -> None:
    """Put the policies of another text into effect."""
    await app.reload(config_for(folder, text, **changes))


async def create(stub: AsyncStub, **fields: Any) -> pb.CreateSessionResponse:
    response: pb.CreateSessionResponse = await stub.CreateSession(loose.CreateSessionRequest(**fields))
    return response


async def validate(stub: AsyncStub, token: str, **fields: Any) -> pb.ValidateSessionResponse:
    return await stub.ValidateSession(loose.ValidateSessionRequest(token=token, **fields))


async def changes_of(stub: AsyncStub) -> list[pb.Event]:
    """Return every POLICY_CHANGED event of the log."""
    stream = subscribe(stub, types=[pb.EVENT_TYPE_POLICY_CHANGED])
    items = await read_up_to(stream, await revision_of(stub)) if await revision_of(stub) else []
    stream.cancel()
    return [item.event for item in items if item.HasField("event")]


async def policy_of(stub: AsyncStub, application: str = "default") -> pb.Policy:
    """Return an application's policy as the authority shows it."""
    authority = await stub.GetAuthority(pb.GetAuthorityRequest())
    (found,) = [one.policy for one in authority.applications if one.name == application]
    return found


# Inside one process


async def test_a_change_is_an_event(tmp_path: Path, clock: ManualClock) -> None:
    """A changed application has a POLICY_CHANGED event, caused by the configuration; its reason lists the changes."""
    async with reloadable(tmp_path, clock) as (app, stub):
        text = (
            '[applications.default]\nidle_timeout = "5m"\nreactions = { ip_change = "alert" }\n'
            '[applications.new]\npreset = "owasp-high"\n'
        )
        await reload(app, tmp_path, text)
        events = await changes_of(stub)
        assert [(event.application, event.cause.reason) for event in events] == [
            ("default", "changed: idle_timeout, reactions"),
            ("new", "application added"),
            ("shop", "application removed"),
        ]
        for event in events:
            assert event.cause.kind == pb.CAUSE_KIND_CONFIGURATION
            assert event.cause.actor == "authority"
            assert (event.session_id, event.subject, event.HasField("client")) == ("", "", False)


async def test_a_shorter_overlap_counts_at_once(tmp_path: Path, clock: ManualClock) -> None:
    """A changed overlap of CSRF tokens applies to step-ups from before the change, and callers see the new value."""
    async with reloadable(tmp_path, clock) as (app, stub):
        mine = await create(stub, subject="ada")
        login = {"token": mine.token, "subject": "ada"}
        raised = await stub.AuthenticateSession(loose.AuthenticateSessionRequest(**login))
        clock.advance(2 * MINUTE)
        needed = {"csrf": {"csrf_token": mine.csrf_token}}
        found = []
        for overlap in ("10m", "2m", "121s", "0s"):
            await reload(app, tmp_path, f'[applications.default]\ncsrf_overlap = "{overlap}"\n')
            answer = await validate(stub, raised.token, requirements=needed)
            found.append((answer.verdict == pb.VERDICT_VALID, (await policy_of(stub)).csrf_overlap.seconds))
        assert found == [(True, 600), (False, 120), (True, 121), (False, 0)]
        assert (await policy_of(stub)).HasField("csrf_overlap")


async def test_a_long_reason_is_cut(tmp_path: Path, clock: ManualClock) -> None:
    """A reason that is too long is cut after 256 characters, as in any other event."""
    names = "idle_timeout absolute_timeout login_timeout renewal_timeout renewal_overlap roll_tolerance retention"
    names += " lost_answer_tolerance anonymous_retention elevation_timeout ticket_timeout companion_timeout"
    names += " concurrent_use_window fold_window"
    async with reloadable(tmp_path, clock) as (app, stub):
        for unit in ("m", "s"):
            numbers = {"idle_timeout": 59, "absolute_timeout": 59, "renewal_overlap": 30}
            values = "".join(f'{name} = "{numbers.get(name, 31)}{unit}"\n' for name in names.split())
            values += f"max_data_bytes = {1000 + ord(unit)}\nmax_sessions = {ord(unit)}\n"
            await reload(app, tmp_path, f"[applications.default]\n[applications.long]\n{values}")
        reasons = [event.cause.reason for event in await changes_of(stub) if event.application == "long"]
        assert [len(reason) for reason in reasons] == [len("application added"), 256]


async def test_no_change_is_no_event(tmp_path: Path, clock: ManualClock) -> None:
    """A file with the same settings, even in another form, changes and records nothing."""
    async with reloadable(tmp_path, clock) as (app, stub):
        await reload(app, tmp_path, BEFORE)
        await reload(app, tmp_path, "# the same\n\n" + BEFORE.replace("10m", "600s"))
        assert await revision_of(stub) == 0
        created = await create(stub, subject="ada")
        assert revision_in(created) == 1


async def test_the_authority_shows_what_is_in_force(tmp_path: Path, clock: ManualClock) -> None:
    """GetAuthority shows the new values, the present applications, and the source of each value."""
    async with reloadable(tmp_path, clock) as (app, stub):
        before = await policy_of(stub, "shop")
        assert before.idle_timeout.seconds == 600
        assert before.origins["idle_timeout"].endswith("sessiond.toml:3")
        assert before.origins["renewal_timeout"] == "preset owasp-low"
        text = '[applications.shop]\n# why not\n\nidle_timeout = "5m"\nrenewal_timeout = "2m"\n'
        await reload(app, tmp_path, text)
        authority = await stub.GetAuthority(pb.GetAuthorityRequest())
        assert [one.name for one in authority.applications] == ["shop"]
        after = await policy_of(stub, "shop")
        assert (after.idle_timeout.seconds, after.renewal_timeout.seconds) == (300, 120)
        assert after.origins["idle_timeout"].endswith("sessiond.toml:4")
        assert after.origins["renewal_timeout"].endswith("sessiond.toml:5")


async def test_a_remembered_validation_follows(tmp_path: Path, clock: ManualClock) -> None:
    """A question that was answered a moment ago, repeated byte for byte, is answered by the new policy at once."""
    async with reloadable(tmp_path, clock) as (app, stub):
        created = await create(stub, subject="ada")
        clock.advance(2 * MINUTE)
        for _ in range(3):
            assert (await validate(stub, created.token)).next_step == pb.NEXT_STEP_PROCEED
        await reload(app, tmp_path, '[applications.default]\nrenewal_timeout = "2m"\n')
        answer = await validate(stub, created.token)
        assert (answer.verdict, answer.next_step) == (pb.VERDICT_VALID, pb.NEXT_STEP_REPLACE_TOKEN)
        await reload(app, tmp_path, '[applications.default]\nrenewal_timeout = "3m"\n')
        assert (await validate(stub, created.token)).next_step == pb.NEXT_STEP_PROCEED


async def test_a_removed_application_is_gone(tmp_path: Path, clock: ManualClock) -> None:
    """A question about a removed application is refused at once, and answered once the application is back."""
    async with reloadable(tmp_path, clock) as (app, stub):
        created = await create(stub, application="shop", subject="ada")
        for _ in range(2):
            assert (await validate(stub, created.token, application="shop")).verdict == pb.VERDICT_VALID
        await reload(app, tmp_path, "[applications.default]\n")
        for call in (
            validate(stub, created.token, application="shop"),
            create(stub, application="shop", subject="ada"),
        ):
            refused = await refusal_of(call)
            assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["application"])
        await reload(app, tmp_path, BEFORE)
        assert (await validate(stub, created.token, application="shop")).verdict == pb.VERDICT_VALID


async def test_deadlines_follow_with_the_next_activity(tmp_path: Path, clock: ManualClock) -> None:
    """A shorter idle timeout applies from the next activity on; existing deadlines stay until then."""
    async with reloadable(tmp_path, clock) as (app, stub):
        quiet, busy = await create(stub, subject="ada"), await create(stub, subject="bob")
        for created in (quiet, busy):
            await validate(stub, created.token)
        await reload(app, tmp_path, '[applications.default]\nidle_timeout = "1m"\nrenewal_timeout = "1h"\n')
        clock.advance(1000)
        assert (await validate(stub, busy.token)).verdict == pb.VERDICT_VALID
        clock.advance(MINUTE)
        assert (await validate(stub, busy.token)).verdict == pb.VERDICT_EXPIRED_IDLE
        assert (await session_of(stub, quiet.session.session_id)).state == pb.SESSION_STATE_ACTIVE
        fresh = await create(stub, subject="eve")
        assert fresh.session.idle_expire_time.seconds * 1000 == clock.now() + MINUTE


@pytest.mark.parametrize(
    ("rules", "verdict"),
    [('reactions = { token_replay = "alert" }', pb.VERDICT_VALID), ("", pb.VERDICT_REVOKED)],
    ids=["alert", "default"],
)
async def test_reactions_follow(tmp_path: Path, clock: ManualClock, rules: str, verdict: int) -> None:
    """The reaction to a replay is that of the policy at that time, whatever it was at the login."""
    async with reloadable(tmp_path, clock) as (app, stub):
        created = await create(stub, subject="ada")
        rolled = await stub.RollSession(loose.RollSessionRequest(token=created.token))
        await reload(app, tmp_path, f"[applications.default]\n{rules}\n")
        clock.advance(MINUTE)
        assert (await validate(stub, created.token)).verdict == pb.VERDICT_REPLAYED
        assert (await validate(stub, rolled.token)).verdict == verdict


async def test_a_limit_follows(tmp_path: Path, clock: ManualClock) -> None:
    """A new session limit counts the existing sessions."""
    async with reloadable(tmp_path, clock) as (app, stub):
        opened = [await create(stub, subject="ada") for _ in range(3)]
        await reload(app, tmp_path, '[applications.default]\nmax_sessions = 2\non_limit = "evict-oldest"\n')
        fourth = await create(stub, subject="ada")
        assert set(fourth.evicted_session_ids) <= {one.session.session_id for one in opened}
        assert len(fourth.evicted_session_ids) == 2
        live = await stub.ListSessions(loose.ListSessionsRequest(filter={"subject": "ada"}))
        assert len(live.sessions) == 2


async def test_cookies_follow(tmp_path: Path, clock: ManualClock) -> None:
    """Cookies have the attributes of the current policy."""
    async with reloadable(tmp_path, clock) as (app, stub):
        assert (await create(stub)).cookies.set_cookie[0].startswith("__Host-id=")
        await reload(app, tmp_path, '[applications.default]\ncookie = { name = "sid", anonymous_name = "sid" }\n')
        assert (await create(stub)).cookies.set_cookie[0].startswith("__Host-sid=")
        assert (await validate(stub, "x")).cookies.set_cookie[0].startswith("__Host-sid=;")


async def test_what_waits_for_a_restart(tmp_path: Path, clock: ManualClock, capsys: pytest.CaptureFixture[str]) -> None:
    """A setting that is read only at the start is named in the log and changes nothing; the policies do change."""
    async with reloadable(tmp_path, clock) as (app, stub):
        await reload(app, tmp_path, '[applications.default]\nidle_timeout = "5m"\n', cache_sessions=7)
        assert (await policy_of(stub)).idle_timeout.seconds == 300
    out = capsys.readouterr()
    assert "restart required" in out.out + out.err
    assert "cache_sessions" in out.out + out.err


async def test_a_reload_says_what_it_did(tmp_path: Path, clock: ManualClock) -> None:
    """The caller of a reload learns what changed, and which keys of the file need a restart."""
    async with reloadable(tmp_path, clock) as (app, _):
        text = '[server]\nmax_subscribers = 7\n[log]\nlevel = "debug"\n' + BEFORE.replace("10m", "9m")
        done = await app.reload(config_for(tmp_path, text))
        assert done.changed == {"shop": "changed: idle_timeout"}
        assert done.restart_required == ["server.max_subscribers", "log.level"]


# In a process of its own

GOOD = '[applications.default]\nidle_timeout = "20m"\n'
BAD = {
    "no TOML": ('[applications.default]\nidle_timeout = "20m\n', 2),
    "no such key": (GOOD + "idel_timeout = 3\n", 3),
    "no duration": ('[applications.default]\n\nidle_timeout = "soon"\n', 3),
    "a contradiction": ('[applications.default]\nidle_timeout = "9h"\n', 2),
    "no application": ("[applications]\n", 1),
}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """Run `sessiond serve --config FILE`, with an idle timeout of 20 minutes."""
    (tmp_path / "sessiond.toml").write_text(GOOD, encoding="utf-8")
    server = ServerProcess(tmp_path, "--config", str(tmp_path / "sessiond.toml"))
    try:
        yield server
    finally:
        server.kill()


def _put(file: Path, text: str | None) -> None:
    if text is None:
        file.unlink()
    else:
        file.write_text(text, encoding="utf-8")


async def reread(server: ServerProcess, file: Path, text: str | None) -> dict[str, Any]:
    """Write the file, send SIGHUP, and wait for the log's report, audit lines apart."""

    def reports() -> list[str]:
        return [line for line in server.log().splitlines() if '"log": "audit"' not in line]

    _put(file, text)
    before = len(reports())
    os.kill(server.process.pid, signal.SIGHUP)
    async with asyncio.timeout(20):
        while len(lines := reports()) == before:
            assert server.process.poll() is None, server.log()
            await asyncio.sleep(0.02)
    record: dict[str, Any] = json.loads(lines[before])
    return record


async def test_a_signal_reads_the_file_again(server: ServerProcess, tmp_path: Path) -> None:
    """After SIGHUP a valid file takes effect, POLICY_CHANGED is in the log, and the connection stays open."""
    async with stub_for(await server.address()) as stub:
        created = await create(stub, subject="ada")
        record = await reread(server, tmp_path / "sessiond.toml", GOOD.replace("20m", "15m"))
        assert (record["event"], record["change"]) == ("policy changed", "changed: idle_timeout")
        (event,) = await changes_of(stub)
        assert (event.application, event.cause.kind) == ("default", pb.CAUSE_KIND_CONFIGURATION)
        assert event.cause.reason == "changed: idle_timeout"
        assert (await policy_of(stub)).idle_timeout.seconds == 900
        answer = await validate(stub, created.token)
        assert answer.verdict == pb.VERDICT_VALID
        assert answer.session.idle_expire_time.seconds - answer.session.last_active_time.seconds == 900
        record = await reread(server, tmp_path / "sessiond.toml", GOOD.replace("20m", "15m"))
        assert record["event"] == "policies unchanged"
        assert len(await changes_of(stub)) == 1
    assert await server.terminate() == 0


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ('[server]\nlisten = "127.0.0.1:1"\n', "server.listen"),
        ('[server]\ndata = "elsewhere"\n', "server.data"),
        ('[log]\nlevel = "debug"\n', "log.level"),
        ('[log]\nformat = "console"\n', "log.format"),
        ('[log]\naudit_file = "audit.log"\n', "log.audit_file"),
    ],
)
async def test_a_setting_that_needs_a_restart_is_named(tmp_path: Path, setting: str, key: str) -> None:
    """After SIGHUP the log names each changed setting that is read only at the start, by its key in the file."""
    file = tmp_path / "sessiond.toml"
    same = f'[server]\ndata = "{tmp_path}/data"\nlisten = "127.0.0.1:0"\n[log]\nformat = "json"\n'
    file.write_text(same, encoding="utf-8")
    section, name = key.split(".")
    server = ServerProcess(tmp_path, "--config", str(file), options=False)
    try:
        await server.address()
        changed = "\n".join(line for line in same.splitlines() if not line.startswith(f"{name} ="))
        header = f"[{section}]"
        record = await reread(server, file, changed.replace(header, setting.rstrip()) + "\n")
        assert (record["event"], record["level"], record["settings"]) == ("restart required", "warning", [key])
    finally:
        server.kill()


async def test_a_file_written_after_the_start(tmp_path: Path) -> None:
    """SIGHUP finds a `sessiond.toml` that was not there at the start; one that has been deleted since is refused."""
    server = ServerProcess(tmp_path, cwd=tmp_path)
    try:
        async with stub_for(await server.address()) as stub:
            record = await reread(server, tmp_path / "sessiond.toml", GOOD)
            assert (record["event"], record["application"]) == ("policy changed", "default")
            assert (await policy_of(stub)).idle_timeout.seconds == 1200
            record = await reread(server, tmp_path / "sessiond.toml", None)
            assert (record["event"], record["effect"]) == ("configuration refused", "nothing has changed")
            assert (await policy_of(stub)).idle_timeout.seconds == 1200
    finally:
        server.kill()


async def test_a_bad_file_changes_nothing(server: ServerProcess, tmp_path: Path) -> None:
    """After SIGHUP with an invalid file the log names reason, file and line; nothing changes, and calls are served."""
    file = tmp_path / "sessiond.toml"
    async with stub_for(await server.address()) as stub:
        created = await create(stub, subject="ada")
        before = await stub.GetAuthority(pb.GetAuthorityRequest())
        for name, (text, line) in BAD.items():
            record = await reread(server, file, text)
            assert (record["event"], record["level"]) == ("configuration refused", "error"), name
            assert record["effect"] == "nothing has changed"
            (problem,) = record["problems"]
            assert problem.startswith(f"{file}:{line}: "), (name, problem)
        record = await reread(server, file, None)
        assert record["problems"] == [f"{file}: no such file; create it, or name another one"]
        assert await stub.GetAuthority(pb.GetAuthorityRequest()) == before
        assert (await validate(stub, created.token)).verdict == pb.VERDICT_VALID
        record = await reread(server, file, GOOD.replace("20m", "10m"))  # it still listens
        assert record["event"] == "policy changed"
        assert (await policy_of(stub)).idle_timeout.seconds == 600
    assert await server.terminate() == 0


async def test_a_bad_key_says_each_problem(server: ServerProcess, tmp_path: Path) -> None:
    """All problems of a file are reported, each with its line."""
    file = tmp_path / "sessiond.toml"
    await server.address()
    text = '[applications.default]\nidle_timeout = "soon"\nmax_sessions = -1\nreactions = { theft = "alert" }\n'
    record = await reread(server, file, text)
    assert [problem.split(": ")[0] for problem in record["problems"]] == [f"{file}:{line}" for line in (2, 3, 4)]


async def test_signals_in_a_row(server: ServerProcess, tmp_path: Path) -> None:
    """However many signals arrive, and however fast, the last file is effective in the end, and no call fails."""
    file = tmp_path / "sessiond.toml"
    async with stub_for(await server.address()) as stub:
        created = await create(stub, subject="ada")
        for minutes in range(1, 31):
            draft = tmp_path / "draft.toml"
            draft.write_text(GOOD.replace("20m", f"{minutes}m"), encoding="utf-8")
            draft.replace(file)
            os.kill(server.process.pid, signal.SIGHUP)
            assert (await validate(stub, created.token)).verdict == pb.VERDICT_VALID
        async with asyncio.timeout(20):
            while True:
                if (await policy_of(stub)).idle_timeout.seconds == 30 * 60:
                    break
                await asyncio.sleep(0.02)
    assert await server.terminate() == 0
