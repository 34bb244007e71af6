"""The endpoints for pages: the same cases for an application that serves them and for `sessiond serve`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import httpx2
import pytest

from sessiond.app import App
from sessiond.edge.local import LocalClient
from sessiond.http.browser import BrowserPages
from sessiond_client import AsyncClient, Authentication, ClientContext, Grant, Role, Token, Unavailable
from sessiond_client.browser import BrowserEndpoints, Site
from sessiond_client.browser.streams import StreamRules
from sessiond_client.contrib.asgi import SessiondMiddleware
from tests.clients.contrib.asgi.shop import plain, visiting
from tests.support.clock import ManualClock
from tests.support.server import config_for, serving
from tests.support.web import serving_web

MINUTE = 60_000
AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
CLIENT = ClientContext(ip_address="203.0.113.9", user_agent=AGENT)
COOKIE = "__Host-id"
SAME_SITE = {"sec-fetch-site": "same-origin", "accept": "application/json", "user-agent": AGENT}
FORM = {"sec-fetch-mode": "navigate", "accept": "text/html"}
CONFIG = """
[applications.default]
preset = "owasp-low"
idle_timeout = "30m"
[applications.default.cookie]
clear_site_data = ["cache", "storage"]
[applications.default.reactions]
reported = "step-up"
[applications.default.proxy]
login_path = "/login"
[applications.shop]
"""
READS = ("status", "sessions", "activity", "events")
WRITES = ("logout", "extend", "close", "sessions/end-others", "sessions/some-id/end")

Now = Callable[[], datetime]


@dataclass
class Pages:
    """A browser's view of the endpoints, and an operator's of the authority."""

    app: App
    clock: ManualClock
    authority: AsyncClient
    http: httpx2.AsyncClient
    extra: dict[str, str]
    """What the proxy adds to requests."""

    def now(self) -> datetime:
        """The time of the authority."""
        return datetime.fromtimestamp(self.clock.now() / 1000, UTC)

    def sent(self, token: Token | None, headers: dict[str, str]) -> dict[str, str]:
        """The headers of a request; underscores in the names of headers are hyphens, and empty ones are not sent."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        cookie = {"cookie": f"{COOKIE}={token.reveal()}"} if token is not None else {}
        all_of_them = {**self.extra, **SAME_SITE, **cookie, **named}
        return {name: value for name, value in all_of_them.items() if value}

    async def get(self, path: str, token: Token | None = None, /, **headers: Any) -> httpx2.Response:
        """Read something, as a script of the page does."""
        return await self.http.get(path, headers=self.sent(token, headers))

    async def post(
        self, path: str, token: Token | None = None, content: bytes = b"", /, **headers: Any
    ) -> httpx2.Response:
        """Change something, as a script of the page does."""
        return await self.http.post(path, headers=self.sent(token, headers), content=content)

    async def login(self, subject: str = "ada") -> Token:
        """Log a user in, on a device of its own."""
        authentication = Authentication(level=1, methods=("pwd",))
        made = await self.authority.create(subject=subject, authentication=authentication, client=CLIENT)
        return made.token

    async def is_live(self, token: Token) -> bool:
        """Whether a token is good."""
        return (await self.authority.get(token=token)).verdict.value == "VALID"

    async def id_of(self, token: Token) -> str:
        """The public id of a session."""
        found = await self.authority.get(token=token)
        assert found.session is not None
        return found.session.session_id

    def subscriptions(self) -> int:
        """How many subscribers the authority has."""
        return sum(group.members for group in self.app.authority.parts.feed._groups.values())

    @asynccontextmanager
    async def stream(self, token: Token) -> AsyncIterator[Stream]:
        """Open an event stream."""
        async with self.http.stream("GET", "events", headers=self.sent(token, {})) as response:
            yield Stream(response)


class Stream:
    """An event stream, as a browser reads it."""

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response
        self.text = ""
        self._lines = response.aiter_lines()

    async def event(self) -> tuple[str, Any]:
        """The next event, and its data. Raises `StopAsyncIteration` at the end of the stream."""
        name = ""
        async with asyncio.timeout(10):
            while True:
                line = await anext(self._lines)
                self.text += f"{line}\n"
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    return name, json.loads(line.removeprefix("data: "))

    async def begin(self) -> None:
        """Wait until the stream is open."""
        while not self.text.startswith("retry: "):
            self.text += f"{await anext(self._lines)}\n"

    async def comment(self) -> str:
        """The next heartbeat."""
        async with asyncio.timeout(10):
            while True:
                line = await anext(self._lines)
                if line.startswith(":"):
                    return line


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 10) -> None:
    """Wait until something is true."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - the condition asks a server
            await asyncio.sleep(0.02)


class BrowserCases:
    """What the endpoints must do, whoever serves them."""

    rules: ClassVar = StreamRules(most=6, most_of_a_session=4, most_of_a_user=5, heartbeat=0.2)
    close_after: ClassVar = 0.5

    @pytest.fixture
    async def pages(self, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Pages]:
        """The endpoints, and an authority."""
        config = config_for(tmp_path, CONFIG, http_listen="127.0.0.1:0")
        async with AsyncExitStack() as stack:
            app = await stack.enter_async_context(serving(config, clock))
            authority = await stack.enter_async_context(AsyncClient(app.address))
            pages = Pages(app, clock, authority, httpx2.AsyncClient(), {})
            url = await stack.enter_async_context(self.serve(pages))
            pages.http = httpx2.AsyncClient(base_url=url, trust_env=False)
            await stack.enter_async_context(pages.http)
            yield pages

    def endpoints(self, pages: Pages) -> BrowserEndpoints:
        """Endpoints with small bounds, whose time is that of the test."""
        return BrowserEndpoints(streams=self.rules, close_after=self.close_after, body_timeout=0.5, now=pages.now)

    def serve(self, pages: Pages) -> Any:
        """Serve the endpoints, and return their address."""
        raise NotImplementedError

    async def fail(self, pages: Pages) -> None:
        """Make the authority unable to answer."""
        raise NotImplementedError

    # What a page learns of its session

    async def test_the_status_of_a_user(self, pages: Pages) -> None:
        """The status has what the page may know of the session, and neither a token nor a way to keep the response."""
        token = await pages.login()
        pages.clock.advance(10 * MINUTE)
        answer = await pages.get("status", token)
        status = answer.json()
        assert answer.status_code == 200
        assert status.pop("login_time").startswith("2027-01-15T")
        assert status == {
            "state": "active",
            "subject": "ada",
            "session_id": await pages.id_of(token),
            "idle_expires_in": 1200.0,
            "expires_in": 7 * 3600 + 50 * 60,
            "level": 1,
        }
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["vary"] == "Cookie"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert token.reveal() not in answer.text

    async def test_the_status_of_nobody(self, pages: Pages) -> None:
        """Without a session, and with one that has ended, the status says so."""
        nothing = ("subject", "session_id", "idle_expires_in", "expires_in", "level", "login_time")
        expected = {"state": "none"} | dict.fromkeys(nothing)
        assert (await pages.get("status")).json() == expected
        token = await pages.login()
        await pages.authority.revoke(token=token)
        pages.clock.advance(5 * MINUTE)
        assert (await pages.get("status", token)).json() == expected

    async def test_the_status_during_a_login(self, pages: Pages) -> None:
        """A request with the token that a login has just replaced is not told that there is no session: the response
        with the new cookie may be on its way. Later it is.
        """
        old = await pages.login()
        new = await pages.authority.authenticate(old, "ada", authentication=Authentication(level=2), client=CLIENT)
        assert new.token is not None
        assert (await pages.get("status", new.token)).json()["level"] == 2
        early = await pages.get("status", old)
        assert (early.status_code, "retry-after" in early.headers) == (503, True)
        assert "set-cookie" not in early.headers
        pages.clock.advance(2 * MINUTE)
        assert (await pages.get("status", old)).json()["state"] == "none"

    async def test_the_status_of_a_guest(self, pages: Pages) -> None:
        """A guest's session has neither a user nor a level."""
        guest = await pages.authority.create(client=CLIENT)
        status = (await pages.get("status", guest.token)).json()
        assert (status["state"], status["subject"], status["level"]) == ("guest", None, None)
        assert status["session_id"] == guest.session.session_id

    async def test_asking_for_the_status_is_no_activity(self, pages: Pages) -> None:
        """A page that asks for ever does not keep its session alive, but one whose user wants to stay does."""
        asking, staying = await pages.login(), await pages.login()
        for _ in range(2):
            pages.clock.advance(20 * MINUTE)
            await pages.get("status", asking)
            await pages.post("extend", staying)
        assert (await pages.get("status", asking)).json()["state"] == "none"
        assert (await pages.get("status", staying)).json()["idle_expires_in"] == 1800.0

    async def test_staying(self, pages: Pages) -> None:
        """Whoever stays gets the new status. A guest cannot stay."""
        token = await pages.login()
        pages.clock.advance(20 * MINUTE)
        answer = await pages.post("extend", token)
        assert (answer.status_code, answer.json()["idle_expires_in"]) == (200, 1800.0)
        assert (await pages.post("extend")).status_code == 401

    async def test_a_renewed_token_reaches_the_browser(self, pages: Pages) -> None:
        """A response has the cookie of a renewed token, as that of any page."""
        token = await pages.login()
        for _ in range(4):
            pages.clock.advance(16 * MINUTE)
            answer = await pages.get("status", token)
            await pages.post("extend", token)
        assert answer.headers["set-cookie"].startswith(f"{COOKIE}=")

    # Logging out

    async def test_a_script_logs_out(self, pages: Pages) -> None:
        """A logout ends the session, and deletes its cookie and what the policy says."""
        token = await pages.login()
        answer = await pages.post("logout", token)
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["set-cookie"].startswith(f"{COOKIE}=;")
        assert answer.headers["clear-site-data"] == '"cache", "storage"'
        assert answer.headers["cache-control"] == "no-store"
        assert not await pages.is_live(token)

    async def test_a_form_logs_out(self, pages: Pages) -> None:
        """A form that logs out leads to the login page. So it does if nobody is logged in."""
        token = await pages.login()
        for presented in (token, None):
            answer = await pages.post("logout", presented, **FORM)
            assert (answer.status_code, answer.headers["location"]) == (303, "/login")
        assert not await pages.is_live(token)

    # The user's sessions

    async def test_the_sessions_of_a_user(self, pages: Pages) -> None:
        """A user sees the own live sessions, newest first, and nobody else's."""
        first = await pages.login()
        await pages.login("eve")
        pages.clock.advance(MINUTE)
        second = await pages.login()
        rows = (await pages.get("sessions", first)).json()["sessions"]
        assert [row["session_id"] for row in rows] == [await pages.id_of(second), await pages.id_of(first)]
        assert [row["current"] for row in rows] == [False, True]
        assert rows[0]["description"] == "Firefox 140 on Linux"
        assert rows[0]["ip_address"] == "203.0.113.9"
        assert rows[0]["login_time"].startswith("2027-01-15T")

    async def test_ending_a_session(self, pages: Pages) -> None:
        """A user ends one of the own sessions, and none of somebody else."""
        token, other, foreign = await pages.login(), await pages.login(), await pages.login("eve")
        assert (await pages.post(f"sessions/{await pages.id_of(foreign)}/end", token)).status_code == 404
        assert (await pages.post("sessions/nonsense/end", token)).status_code == 404
        assert await pages.is_live(foreign)
        assert (await pages.post(f"sessions/{await pages.id_of(other)}/end", token)).status_code == 204
        assert not await pages.is_live(other)
        assert await pages.is_live(token)

    async def test_ending_the_own_session(self, pages: Pages) -> None:
        """To end the session of the request itself is to log out."""
        token = await pages.login()
        answer = await pages.post(f"sessions/{await pages.id_of(token)}/end", token)
        assert answer.status_code == 204
        assert answer.headers["set-cookie"].startswith(f"{COOKIE}=;")
        assert not await pages.is_live(token)

    async def test_ending_all_others(self, pages: Pages) -> None:
        """A user ends all own sessions but this one."""
        token, others, foreign = await pages.login(), [await pages.login() for _ in range(2)], await pages.login("eve")
        assert (await pages.post("sessions/end-others", token)).json() == {"ended": 2}
        assert [await pages.is_live(one) for one in (token, foreign, *others)] == [True, True, False, False]

    async def test_the_activity_of_an_account(self, pages: Pages) -> None:
        """A user sees what happened to the own account: when, where from and with which program."""
        token, other = await pages.login(), await pages.login()
        await pages.login("eve")
        pages.clock.advance(MINUTE)
        await pages.authority.revoke(token=other, reason="internal note")
        answer = await pages.get("activity", token)
        rows = answer.json()["activity"]
        assert [row["event"] for row in rows] == ["ended", "login", "login"]
        assert [row["current"] for row in rows] == [False, False, True]
        assert rows[0]["cause"] == "request"
        assert rows[2]["ip_address"] == "203.0.113.9"
        assert rows[2]["user_agent"] == AGENT
        assert rows[2]["time"] < rows[0]["time"]
        assert "internal note" not in answer.text

    async def test_a_login_is_one_line_of_the_activity(self, pages: Pages) -> None:
        """A login of a guest replaces the token, which is no line of its own. A change of password is one."""
        guest = await pages.authority.create(client=CLIENT)
        authentication = Authentication(level=1, methods=("pwd",))
        made = await pages.authority.authenticate(
            guest.token, "ada", authentication=authentication, client=CLIENT, or_create=True
        )
        assert made.token is not None
        rolled = await pages.authority.roll(made.token, reason="password changed", client=CLIENT)
        assert rolled.token is not None
        rows = (await pages.get("activity", rolled.token)).json()["activity"]
        assert [row["event"] for row in rows] == ["token_replaced", "login"]

    async def test_guests_have_no_account(self, pages: Pages) -> None:
        """What is about an account needs a login: a script gets 401, a page is sent to the login page."""
        guest = await pages.authority.create(client=CLIENT)
        for token in (None, guest.token):
            for path in ("sessions", "activity", "events"):
                assert (await pages.get(path, token)).status_code == 401
            for path in ("extend", "close", "sessions/end-others", "sessions/some-id/end"):
                assert (await pages.post(path, token)).status_code == 401
        page = await pages.get("sessions", **FORM)
        assert page.status_code == 303
        assert page.headers["location"].startswith("/login?next=/")

    # Requests that are refused

    @pytest.mark.parametrize(
        "forged", [{"sec_fetch_site": "cross-site"}, {"sec_fetch_site": "", "origin": "https://evil.example"}]
    )
    async def test_pages_of_other_sites(self, pages: Pages, forged: dict[str, str]) -> None:
        """What a page of another site asks for is refused, and changes nothing."""
        token, other = await pages.login(), await pages.login()
        for path in (*WRITES, f"sessions/{await pages.id_of(other)}/end"):
            answer = await pages.post(path, token, **forged)
            assert (answer.status_code, answer.json()["error"]) == (403, "csrf_failed")
        for path in READS:
            assert (await pages.get(path, token, **forged)).status_code == 403
        assert await pages.is_live(token)
        assert await pages.is_live(other)

    async def test_two_session_cookies(self, pages: Pages) -> None:
        """Two session cookies are refused by every endpoint: one of them may be planted."""
        token, other = await pages.login(), await pages.login("eve")
        both = f"{COOKIE}={token.reveal()}; {COOKIE}={other.reveal()}"
        for path in READS:
            assert (await pages.get(path, cookie=both)).status_code == 400
        for path in WRITES:
            answer = await pages.post(path, cookie=both)
            assert (answer.status_code, answer.json()["error"]) == (400, "ambiguous_cookie")
        assert await pages.is_live(token)

    async def test_wrong_methods(self, pages: Pages) -> None:
        """A wrong method is refused before anything is asked, and the response says which is right."""
        token = await pages.login()
        for path in (*READS, "session.js"):
            answer = await pages.post(path, token)
            assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
        for path in WRITES:
            answer = await pages.get(path, token)
            assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
        assert (await pages.http.request("PUT", "status", headers=pages.sent(token, {}))).status_code == 405
        assert await pages.is_live(token)

    @pytest.mark.parametrize(
        "path",
        ["", "stat", "status/", "status/x", "sessions/", "sessions//end", "sessions/a/b/end", "sessions/x", "%00"],
    )
    async def test_unknown_paths(self, pages: Pages, path: str) -> None:
        """There is nothing beside the endpoints."""
        token = await pages.login()
        for answer in (await pages.get(path, token), await pages.post(path, token)):
            assert answer.status_code == 404
        assert answer.headers["cache-control"] == "no-store"

    async def test_a_path_that_is_too_long(self, pages: Pages) -> None:
        """An id that is longer than any is no session."""
        token = await pages.login()
        assert (await pages.post(f"sessions/{'x' * 500}/end", token)).status_code == 404

    async def test_a_body_that_is_too_long(self, pages: Pages) -> None:
        """Nothing reads the body of a request, so a large one is refused, and nothing happens."""
        token = await pages.login()
        assert (await pages.post("logout", token, b"x" * 5000)).status_code == 413
        assert await pages.is_live(token)
        assert (await pages.post("logout", token, b"x" * 4096)).status_code == 204

    async def test_a_body_that_does_not_come(self, pages: Pages) -> None:
        """A request whose body does not arrive in time is refused, and nothing happens."""
        token = await pages.login()
        address = pages.http.base_url
        sent = {"host": "app.example", "content-length": "10"} | pages.sent(token, {})
        head = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection(address.host, address.port)
            writer.write(f"POST {address.path}logout HTTP/1.1\r\n{head}\r\n".encode())
            assert b" 408 " in await reader.readline()
            writer.close()
        assert await pages.is_live(token)

    async def test_a_head_request(self, pages: Pages) -> None:
        """HEAD gets the headers of GET. There is no HEAD of a stream."""
        token = await pages.login()
        answer = await pages.http.head("status", headers=pages.sent(token, {}))
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-type"] == "application/json"
        assert (await pages.http.head("events", headers=pages.sent(token, {}))).status_code == 405

    async def test_an_outage(self, pages: Pages) -> None:
        """While the authority cannot answer, everything that is about a session gets 503, and the cookie stays."""
        token = await pages.login()
        await self.fail(pages)
        for path in READS:
            answer = await pages.get(path, token)
            assert (answer.status_code, answer.json()["error"]) == (503, "unavailable")
            assert "set-cookie" not in answer.headers
        for path in WRITES:
            answer = await pages.post(path, token)
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) > 0

    # The event stream

    async def test_a_revocation_reaches_the_page(self, pages: Pages) -> None:
        """A page learns within two seconds that its session was revoked, with a reason, and then the stream ends."""
        token = await pages.login()
        async with pages.stream(token) as stream:
            assert stream.response.status_code == 200
            assert stream.response.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert stream.response.headers["cache-control"] == "no-store"
            assert stream.response.headers["x-accel-buffering"] == "no"
            await stream.begin()
            async with asyncio.timeout(2):
                await pages.authority.revoke(token=token, reason="internal note")
                assert await stream.event() == ("ended", {"reason": "revoked"})
            with pytest.raises(StopAsyncIteration):
                await stream.event()
            assert token.reveal() not in stream.text
            assert "internal note" not in stream.text

    async def test_a_logout_in_another_tab(self, pages: Pages) -> None:
        """A logout by the same endpoints ends the streams of the session, and no other stream."""
        token, other = await pages.login(), await pages.login()
        async with pages.stream(token) as stream, pages.stream(other) as unaffected:
            await stream.begin()
            await unaffected.begin()
            await pages.post("logout", token)
            assert (await stream.event())[0] == "ended"
            assert await unaffected.comment() == ": still here"

    async def test_a_session_that_expires(self, pages: Pages) -> None:
        """The end by the idle timeout reaches the page, and so does the reason."""
        token = await pages.login()
        pages.clock.advance(30 * MINUTE - 1000)
        async with pages.stream(token) as stream:
            await stream.begin()
            pages.clock.advance(1000)
            assert await stream.event() == ("ended", {"reason": "idle_timeout"})

    async def test_activity_keeps_a_stream(self, pages: Pages) -> None:
        """A stream goes on at what was the deadline when it began, if there was activity since."""
        token = await pages.login()
        pages.clock.advance(30 * MINUTE - 500)
        async with pages.stream(token) as stream:
            await stream.begin()
            assert (await pages.authority.validate(token, client=CLIENT)).valid
            pages.clock.advance(1000)
            for _ in range(6):
                assert await stream.comment() == ": still here"

    async def test_a_session_that_lives_on(self, pages: Pages) -> None:
        """A page learns that its session was extended, and that it has a new token. Then it must connect again."""
        token = await pages.login()
        async with pages.stream(token) as stream:
            await stream.begin()
            await pages.post("extend", token)
            assert await stream.event() == ("renewed", {})
            await pages.authority.roll(token, reason="password changed", client=CLIENT)
            assert await stream.event() == ("renewed", {})
            with pytest.raises(StopAsyncIteration):
                await stream.event()

    async def test_a_session_under_suspicion(self, pages: Pages) -> None:
        """If the user must authenticate again, the page may be a stranger's, and is told that its session has ended."""
        token = await pages.login()
        async with pages.stream(token) as stream:
            await stream.begin()
            await pages.authority.report_signal(reason="seen elsewhere", session_id=await pages.id_of(token))
            assert await stream.event() == ("ended", {"reason": "suspected"})

    async def test_streams_of_one_session_are_bounded(self, pages: Pages) -> None:
        """One session has so many streams at once; a further one gets 503, until another one has ended."""
        token = await pages.login()
        async with AsyncExitStack() as stack:
            opened = await self._open(pages, stack, [token] * (self.rules.most_of_a_session - 1))
            async with pages.stream(token) as last:
                await last.begin()
                refused = await pages.get("events", token)
                assert (refused.status_code, refused.json()["error"]) == (503, "too_many_streams")
                assert int(refused.headers["retry-after"]) > 0

            async def is_free() -> bool:
                async with pages.stream(token) as another:
                    return another.response.status_code == 200

            await eventually(is_free)
            del opened

    async def test_streams_of_one_user_are_bounded(self, pages: Pages) -> None:
        """However many sessions a user has, they cannot take the streams of others."""
        tokens = [await pages.login() for _ in range(self.rules.most_of_a_user + 1)]
        other = await pages.login("eve")
        async with AsyncExitStack() as stack:
            opened = await self._open(pages, stack, tokens[:-1])
            assert (await pages.get("events", tokens[-1])).status_code == 503
            async with pages.stream(other) as stream:
                await stream.begin()
            del opened

    async def test_streams_of_a_process_are_bounded(self, pages: Pages) -> None:
        """All sessions together have so many streams, which share one subscription."""
        tokens = [await pages.login(f"user-{number}") for number in range(self.rules.most)]
        await pages.get("status", tokens[0])
        before = pages.subscriptions()  # a near cache has one of its own
        async with AsyncExitStack() as stack:
            opened = await self._open(pages, stack, tokens)
            assert (await pages.get("events", await pages.login())).status_code == 503
            assert pages.subscriptions() == before + 1
            del opened

    async def _open(self, pages: Pages, stack: AsyncExitStack, tokens: Sequence[Token]) -> list[Stream]:
        """Open streams. Keep what this returns: a stream that nobody refers to is closed."""
        opened = [await stack.enter_async_context(pages.stream(token)) for token in tokens]
        for stream in opened:
            await stream.begin()
        return opened

    # A window that closes

    async def test_a_closed_window_logs_out(self, pages: Pages) -> None:
        """A while after the last window has closed, the session has ended."""
        token = await pages.login()
        assert (await pages.post("close", token)).status_code == 204
        assert await pages.is_live(token)

        async def has_ended() -> bool:
            return not await pages.is_live(token)

        await eventually(has_ended)

    async def test_another_page_keeps_the_session(self, pages: Pages) -> None:
        """If another page of the browser says that it is there, the session goes on, as after a reload."""
        token, closed = await pages.login(), await pages.login()
        for one in (token, closed):
            await pages.post("close", one)
        await pages.post("extend", token)

        async def has_ended() -> bool:
            return not await pages.is_live(closed)

        await eventually(has_ended)
        await asyncio.sleep(self.close_after)  # nothing tells that something does not happen
        assert await pages.is_live(token)

    # The script

    async def test_the_script(self, pages: Pages) -> None:
        """The script is served to everyone, and not sent again to a browser that has it."""
        answer = await pages.get("session.js")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
        assert answer.headers["cache-control"] == "no-cache"
        assert "export function watchSession" in answer.text
        assert "set-cookie" not in answer.headers
        again = await pages.get("session.js", if_none_match=f'"other", W/{answer.headers["etag"]}')
        assert (again.status_code, again.content) == (304, b"")
        assert (await pages.get("session.js", if_none_match='"other"')).status_code == 200


class TestInAnApplication(BrowserCases):
    """An application with the middleware serves the endpoints."""

    near_cache: ClassVar = False

    @asynccontextmanager
    async def serve(self, pages: Pages) -> AsyncIterator[str]:
        """Serve an application that must never see a request below the path of the endpoints."""

        async def page(scope: Any, receive: Any, send: Any) -> None:
            raise AssertionError(f"the application got {scope['path']}")

        options = {"near_cache": self.near_cache, "retries": 0, "timeout": 5.0}
        app = plain(page, pages.app.address, browser_path="/session/", **options)
        app._endpoints = self.endpoints(pages)
        async with serving_web(app) as url:
            yield f"{url}/session/"

    async def fail(self, pages: Pages) -> None:
        """Stop the authority."""
        await pages.app.stop()


class TestWithANearCache(TestInAnApplication):
    """So does an application whose client has a near cache."""

    near_cache = True


class TestBehindAProxy(BrowserCases):
    """`sessiond serve` serves the endpoints to a proxy."""

    @asynccontextmanager
    async def serve(self, pages: Pages) -> AsyncIterator[str]:
        """Have the server's own endpoints, with the bounds of the test."""
        self._pages(pages.app)._endpoints = self.endpoints(pages)
        pages.extra |= {"x-forwarded-host": "app.example", "x-forwarded-for": "203.0.113.9"}
        assert pages.app._endpoints._http is not None
        yield f"http://{pages.app._endpoints._http.address}/browser/default/"

    async def fail(self, pages: Pages) -> None:
        """Have the store fail, while the server still answers over HTTP."""

        async def down(name: str, request: Any, caller: Any) -> Any:
            raise Unavailable("the store failed")

        served = self._pages(pages.app)
        site_of = served._site_of

        def failed(application: str, caller: Any) -> Site:
            site = site_of(application, caller)
            return Site(site.gateway, LocalClient(application, caller, down), site.guard)

        served._site_of = failed

    @staticmethod
    def _pages(app: App) -> BrowserPages:
        assert app._endpoints._http is not None
        pages = app._endpoints._http._site._pages  # type: ignore[attr-defined]
        assert isinstance(pages, BrowserPages)
        return pages


# What only the middleware does


@pytest.mark.parametrize("path", ["session/", "/session", "/", "//evil.example/", "/a b/", 7])
def test_a_wrong_path_of_the_endpoints(path: Any) -> None:
    """A path that is none, or that would take everything, is an error that names the option."""
    with pytest.raises(ValueError, match=r"browser_path: .* is wrong"):
        SessiondMiddleware(_nothing, "127.0.0.1:1", browser_path=path)


def test_endpoints_where_there_are_no_sessions() -> None:
    """Endpoints below a path that is ignored would see nobody who is logged in."""
    with pytest.raises(ValueError, match=r"browser_path: .* is among ignored_paths"):
        SessiondMiddleware(_nothing, "127.0.0.1:1", browser_path="/static/session/", ignored_paths=["/static/"])


async def test_without_a_path_there_are_no_endpoints(app: App) -> None:
    """An application that does not ask for endpoints keeps all of its paths."""
    async with visiting(app.address) as browser:
        assert (await browser.get("/session/status")).status_code == 404


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("nobody calls it")


async def test_an_application_that_may_not_subscribe(tmp_path: Path, clock: ManualClock) -> None:
    """Without the role for events there are no streams, which the log says, and the page can still ask."""
    async with serving(config_for(tmp_path, CONFIG), clock) as app:
        async with AsyncClient(app.address) as anyone:
            ops = (await anyone.create_caller("ops", [Grant(role=Role.ADMIN)])).key
        async with AsyncClient(app.address, key=ops) as admin:
            key = (await admin.create_caller("shop", [Grant(application="default", role=Role.ISSUER)])).key
            made = await admin.create(subject="ada", client=CLIENT)
        site = plain(_nothing, app.address, browser_path="/session/", key=key)
        async with serving_web(site) as url, httpx2.AsyncClient(base_url=url, trust_env=False) as http:
            headers = {**SAME_SITE, "cookie": f"{COOKIE}={made.token.reveal()}"}
            assert (await http.get("/session/status", headers=headers)).json()["state"] == "active"
            for answer in (
                await http.get("/session/events", headers=headers),
                await http.post("/session/close", headers=headers),
            ):
                assert (answer.status_code, answer.json()["error"]) == (503, "unavailable")


# What only the server does


@asynccontextmanager
async def server(folder: Path, clock: ManualClock, text: str = CONFIG) -> AsyncIterator[tuple[App, httpx2.AsyncClient]]:
    """Run a server, and a client of its HTTP listener that sends what a proxy does."""
    async with serving(config_for(folder, text, http_listen="127.0.0.1:0"), clock) as app:
        assert app._endpoints._http is not None
        headers = {**SAME_SITE, "x-forwarded-host": "app.example", "x-forwarded-for": "203.0.113.9"}
        url = f"http://{app._endpoints._http.address}"
        async with httpx2.AsyncClient(base_url=url, headers=headers, trust_env=False) as http:
            yield app, http


@pytest.mark.parametrize(
    ("path", "wrong", "reason"),
    [
        ("default", {"x-forwarded-for": ""}, "x-forwarded-for: must be set once by the proxy"),
        ("default", {"x-forwarded-for": "203.0.113.6, 203.0.113.9"}, "x-forwarded-for: must be the client's address"),
        ("default", {"x-forwarded-host": ""}, "x-forwarded-host: must be set once by the proxy"),
        ("nobody", {}, 'application: unknown application "nobody"'),
    ],
)
async def test_a_proxy_that_is_not_set_up(
    tmp_path: Path,
    clock: ManualClock,
    capsys: pytest.CaptureFixture[str],
    path: str,
    wrong: dict[str, str],
    reason: str,
) -> None:
    """A proxy that does not pass on what it must is answered with 500, and the log has the reason once."""
    async with server(tmp_path, clock) as (_, http):
        for _ in range(2):
            answer = await http.get(f"/browser/{path}/status", headers=wrong)
            assert answer.status_code == 500
            assert reason not in answer.text
    lines = [line for line in capsys.readouterr().out.splitlines() if "proxy refused" in line]
    assert len(lines) == 1
    assert reason in lines[0].replace("\\", "")


async def test_the_roles_of_the_proxy(tmp_path: Path, clock: ManualClock, capsys: pytest.CaptureFixture[str]) -> None:
    """With callers, the proxy needs a key. That of an issuer may do everything, and that of a validator only look."""
    async with server(tmp_path, clock) as (app, http):
        async with AsyncClient(app.address) as anyone:
            ops = (await anyone.create_caller("ops", [Grant(role=Role.ADMIN)])).key
        async with AsyncClient(app.address, key=ops) as admin:
            keys = {
                role: (await admin.create_caller(role.value.lower(), [Grant(application="default", role=role)])).key
                for role in (Role.ISSUER, Role.VALIDATOR, Role.SUBSCRIBER)
            }
            authentication = Authentication(level=1, methods=("pwd",))
            made = await admin.create(subject="ada", authentication=authentication, client=CLIENT)

        async def ask(path: str, key: Token | None, method: str = "GET") -> int:
            headers = {"cookie": f"{COOKIE}={made.token.reveal()}"}
            if key is not None:
                headers["x-session-key"] = f"Bearer {key.reveal()}"
            return (await http.request(method, f"/browser/default/{path}", headers=headers)).status_code

        assert await ask("status", None) == 500
        assert await ask("session.js", None) == 500
        assert await ask("status", keys[Role.SUBSCRIBER]) == 500
        assert await ask("status", keys[Role.VALIDATOR]) == 200
        for path, method in (("sessions", "GET"), ("activity", "GET"), ("logout", "POST"), ("extend", "POST")):
            assert await ask(path, keys[Role.VALIDATOR], method) == 500
        for path in ("sessions", "activity"):
            assert await ask(path, keys[Role.ISSUER]) == 200
        assert await ask("logout", keys[Role.ISSUER], "POST") == 204
    text = capsys.readouterr().out
    assert "proxy refused" in text
    assert made.token.reveal() not in text
    assert not [key for key in keys.values() if key.reveal() in text]


async def test_one_application_does_not_know_the_sessions_of_another(tmp_path: Path, clock: ManualClock) -> None:
    """The path of the proxy says whose sessions count, and a cookie of another application is none."""
    async with server(tmp_path, clock) as (app, http):
        async with AsyncClient(app.address) as authority:
            made = await authority.create(subject="ada", client=CLIENT)
        cookie = {"cookie": f"{COOKIE}={made.token.reveal()}"}
        assert (await http.get("/browser/default/status", headers=cookie)).json()["state"] == "active"
        assert (await http.get("/browser/shop/status", headers=cookie)).json()["state"] == "none"


async def test_a_server_that_stops_ends_its_streams(tmp_path: Path, clock: ManualClock) -> None:
    """Open event streams do not hold up a server that stops; pages connect again later."""
    async with AsyncExitStack() as stack:
        app, http = await stack.enter_async_context(server(tmp_path, clock))
        async with AsyncClient(app.address) as authority:
            made = await authority.create(subject="ada", client=CLIENT)
        cookie = {"cookie": f"{COOKIE}={made.token.reveal()}"}
        response = await stack.enter_async_context(http.stream("GET", "/browser/default/events", headers=cookie))
        lines = response.aiter_lines()
        assert (await anext(lines)).startswith("retry: ")
        async with asyncio.timeout(2):  # less than the grace of open questions
            assert app._endpoints._http is not None
            await app._endpoints._http.stop(5)
            assert [line async for line in lines] == [""]


async def test_a_bound_on_the_rate_holds_here_too(tmp_path: Path, clock: ManualClock) -> None:
    """A proxy beyond the rate of its caller gets 503 with a time."""
    limits = f"{CONFIG}\n[limits]\nrate_per_caller = 2\nburst = '1s'\n"
    async with server(tmp_path, clock, limits) as (_, http):
        answers = [await http.get("/browser/default/status") for _ in range(20)]
    assert {answer.status_code for answer in answers} == {200, 503}
    assert all("retry-after" in answer.headers for answer in answers if answer.status_code == 503)
