"""A browser on a device: its cookie jar, its updates, the network under it, and losses on the way."""

from __future__ import annotations

import uuid
from collections import deque
from random import Random
from typing import NamedTuple

from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.simulation.agents import DESKTOP_SITE, IN_APP, Agent
from tests.simulation.bounds import HOUR, SECOND, Bounds
from tests.simulation.expected import Life
from tests.simulation.networks import Attachment, Whereabouts
from tests.simulation.site import SESSION, Request, Response, Site
from tests.simulation.tally import Tally
from tests.simulation.wheel import Wheel

__all__ = ["Browser", "Jar"]

_LOST_ANSWER_TOLERANCE = 60 * SECOND  # the preset's own value: a lost response within this time is no alarm
_OTHER_TAB = 0.2  # how often a phone that shows a desktop site sends a request from another tab
_Cookies = dict[str, tuple[str, int | None]]


class Jar:
    """The cookies of one browser for one site. The last response to arrive wins (RFC 6265)."""

    def __init__(self, written_after: int) -> None:
        self._cookies: _Cookies = {}
        self._written_after = written_after
        self._changes: list[tuple[int, _Cookies]] = []  # the jar's content before each of its latest changes

    def sent(self, now: int) -> dict[str, str]:
        """Return the cookies that go with a request."""
        return {name: value for name, (value, until) in self._cookies.items() if until is None or now < until}

    def take(self, response: Response, now: int) -> bool:
        """Apply a response. Return whether a value was replaced."""
        if response.clears_cookies or response.set_cookie:
            self._changes = [change for change in self._changes if now - change[0] < self._written_after]
            self._changes.append((now, self.copy()))
        if response.clears_cookies:
            self._cookies.clear()
        replaced = False
        for line in response.set_cookie:
            pair, *attributes = line.split("; ")
            name, _, value = pair.partition("=")
            ages = [int(one.removeprefix("Max-Age=")) for one in attributes if one.startswith("Max-Age=")]
            if ages and ages[0] <= 0:
                self._cookies.pop(name, None)
                continue
            replaced = replaced or (name in self._cookies and self._cookies[name][0] != value)
            self._cookies[name] = (value, now + 1000 * ages[0] if ages else None)
        return replaced

    def copy(self) -> _Cookies:
        """Return the content, for a backup."""
        return dict(self._cookies)

    def restore(self, cookies: _Cookies) -> None:
        """Set the content to that of a backup."""
        self._cookies, self._changes = dict(cookies), []

    def written(self, now: int) -> _Cookies:
        """Return the content on disk: as before any change that has not been written yet."""
        pending = [held for at, held in self._changes if now - at < self._written_after]
        return pending[0] if pending else self.copy()


class _Use(NamedTuple):
    """One request of a browser: its time, address and user agent, and whether a proxy removed any of these."""

    at: int
    here: Attachment
    agent: str
    cut: bool


class Browser:
    """One browser with its jar. All its tabs send the same cookies."""

    def __init__(
        self,
        site: Site,
        wheel: Wheel,
        tally: Tally,
        random: Random,
        bounds: Bounds,
        agent: Agent,
        whereabouts: Whereabouts,
        device: str,
    ) -> None:
        self.jar = Jar(bounds.written_after)
        self.other_network: Attachment | None = None  # some requests leave by this network too
        self.desktop_site = False
        self._site = site
        self._wheel = wheel
        self._tally = tally
        self._random = random
        self._bounds = bounds
        self._agent = agent
        self._whereabouts = whereabouts
        self._device = device
        self._version = 0
        self._last: Attachment | None = None
        self._answered = 0
        self._rolled = 0
        self._run = 0  # number of restarts: responses to an earlier run never arrive
        self._lately: set[Life] = set()  # since the last login: what the session's record may still remember
        # Tokens that the jar should no longer hold, the reason, and the time from which they may raise an alarm.
        self._older: dict[str, tuple[Life, int]] = {}
        self._uses: deque[_Use] = deque(maxlen=60)
        self._backup: _Cookies = {}
        self._places: set[Attachment] = set()  # since the backup

    def update(self) -> None:
        """Install the next version, if there is one, and restart with the same tabs and cookies."""
        if self._version + 1 < len(self._agent.versions):
            self._version += 1
            self._tally.traffic["browser updates"] += 1

    def nonce(self) -> str:
        """Return a new nonce for a form."""
        return str(uuid.UUID(bytes=self._random.randbytes(16), version=4))

    # Events of the whole browser

    def kill(self) -> None:
        """Kill and restart it: changes of the jar that were not written are lost, and so are responses on their way."""
        self._run += 1
        self._go_back_to(self.jar.written(self._wheel.now), Life.UNFLUSHED)

    def back_up(self) -> None:
        """Back up its jar."""
        self._backup, self._places = self.jar.copy(), set()

    def restore(self) -> None:
        """Restore it from its backup, at the place where it was last used."""
        if self._backup and self._last == self._whereabouts.at(self._wheel.now):
            self._run += 1
            self._go_back_to(self._backup, Life.RESTORED)

    def _go_back_to(self, cookies: _Cookies, why: Life) -> None:
        self._tally.traffic[why] += 1
        before = self._token()
        self.jar.restore(cookies)
        if (token := self._token()) != before:
            self._older[token] = (why, self._wheel.now)

    # Requests

    async def fetch(
        self, path: str, *, subject: str = "", csrf: str = "", nonce: str = "", remember: bool = False
    ) -> Response | None:
        """Send a request with the present cookies. Return None if no response arrived."""
        here, run = self._here(), self._run
        cookies = self.jar.sent(self._wheel.now)
        agent = ""
        if self._agent.native and self._random.random() < 0.5:
            agent = self._agent.native
            self._tally.traffic[Life.HYBRID] += 1
        request = self._request(path, cookies, here, agent)
        # Whether the session's record is of this browser, if this request authenticates its subject.
        plain = not self.desktop_site and self.other_network is None
        plain = plain and bool(request.client.user_agent) and bool(request.client.ip_address)
        request = request.with_form(subject, csrf, nonce, remember=remember)
        await self._wheel.sleep(self._latency(here))
        response = await self._site.handle(request)
        answered = self._wheel.now
        latency = self._latency(here)
        if self._random.random() < self._bounds.late:
            latency += self._random.randrange(*self._bounds.late_by)
            self._tally.traffic["late answers"] += 1
        # Without late logins no random number is drawn here, so that a seed gives the same results as ever.
        late_login = bool(self._bounds.late_login) and response.rolls and path in ("/login", "/elevate")
        late_login = late_login and self._random.random() < self._bounds.late_login
        if late_login:
            latency += self._random.randrange(*self._bounds.late_login_by)
            self._older[self._token()] = (Life.LATE_LOGIN, answered)
            self._tally.traffic[Life.LATE_LOGIN] += 1
            self._wheel.start(self._ask_from_another_tab(latency - SECOND))
        await self._wheel.sleep(latency)
        loss = self._bounds.mobile_loss if here.mobile else self._bounds.wifi_loss
        moved = self._has_left(here)  # connections end with the network under them
        if run != self._run or self._random.random() < loss or (moved and self._random.random() < 0.5):
            self._tally.traffic["responses lost"] += 1
            if response.rolls and (token := self._token()):
                self._older[token] = (Life.LOST, answered + _LOST_ANSWER_TOLERANCE - self._bounds.in_flight)
                self._tally.traffic[Life.LOST] += 1
            return None
        self._take(response, answered)
        if late_login:
            self._older[self._token()] = (Life.LATE_LOGIN, self._wheel.now)
        if response.rolls and plain and path in ("/login", "/elevate"):
            self._lately.clear()
        return response

    async def _ask_from_another_tab(self, after: float) -> None:
        await self._wheel.sleep(after)
        await self.fetch("/part")

    async def upload(self, csrf: str) -> None:
        """Send a file through a proxy that forwards it when it is complete, with the cookies of the beginning."""
        here, run = self._here(), self._run
        cookies = self.jar.sent(self._wheel.now)
        request = self._request("/upload", cookies, here).with_form("", csrf, "", remember=False)
        self._tally.traffic[Life.UPLOAD] += 1
        await self._wheel.sleep(self._random.randrange(*self._bounds.upload_takes))
        if self._has_left(here) or run != self._run:
            self._tally.traffic["uploads lost"] += 1
            return
        # In the meantime the session may have been used from elsewhere.
        response = await self._site.handle(request.being(Life.UPLOAD, elsewhere=self._is_elsewhere(here)))
        answered = self._wheel.now
        await self._wheel.sleep(self._latency(here))
        if run == self._run:
            self._take(response, answered)

    async def use_copy(self, token: str) -> None:
        """Send a request of an app's extension, with its own copy of a token."""
        self._tally.traffic[Life.EXTENSION] += 1
        here = self._here()
        await self._site.handle(self._request("/poll", {SESSION: token}, here).being(Life.EXTENSION))

    def copy_of_token(self) -> str:
        """Return the token in the jar, for an extension."""
        return self._token()

    async def visit_in_app(self) -> None:
        """Open a page in another app's browser, with the jar of the system browser or with its own."""
        self._tally.traffic[Life.IN_APP] += 1
        shared = self._random.random() < 0.5
        cookies = self.jar.sent(self._wheel.now) if shared else {}
        here = self._here()
        if shared:
            self._lately.add(Life.IN_APP)
        response = await self._site.handle(self._request("/", cookies, here, IN_APP).being(Life.IN_APP))
        answered = self._wheel.now
        await self._wheel.sleep(self._latency(here))
        if shared and not self._has_left(here):
            self._take(response, answered)

    def _take(self, response: Response, answered: int) -> None:
        before = self._token()
        if answered < self._answered:
            self._tally.traffic[Life.OVERTAKEN] += 1
        self._answered = max(self._answered, answered)
        if self.jar.take(response, self._wheel.now):
            self._tally.traffic["cookies replaced"] += 1
        if response.rolls:
            self._rolled = max(self._rolled, answered)
        # If a response and a roll happen at the same instant, either may have come first.
        if not response.rolls and response.set_cookie and answered <= self._rolled:
            self._tally.traffic["rolls overtaken"] += 1
            if (token := self._token()) != before:
                self._older[token] = (Life.OVERTAKEN, self._wheel.now)

    def _token(self) -> str:
        return self.jar.sent(self._wheel.now).get(SESSION, "")

    def _here(self) -> Attachment:
        here = self._whereabouts.at(self._wheel.now)
        if self.other_network is not None and self._random.random() < 0.5:
            here = self.other_network
        return here

    def _has_left(self, here: Attachment) -> bool:
        return here not in (self._whereabouts.at(self._wheel.now), self.other_network)

    def _request(self, path: str, cookies: dict[str, str], here: Attachment, agent: str = "") -> Request:
        self._tally.traffic["requests"] += 1
        if self.desktop_site and not agent and path != "/poll" and self._random.random() >= _OTHER_TAB:
            agent = DESKTOP_SITE
            self._tally.traffic[Life.DESKTOP_SITE] += 1
        if self.other_network is not None:
            self._tally.traffic[Life.TWO_NETWORKS] += 1
            self._lately.add(Life.TWO_NETWORKS)
        if self.desktop_site:
            self._lately.add(Life.DESKTOP_SITE)
        client = self._seen(here, agent)
        lives = {*self._lately}
        elsewhere = self._is_elsewhere(here)
        why, since = self._older.get(cookies.get(SESSION, ""), (None, 0))
        if why is not None and self._wheel.now >= since:
            lives.add(why)
            elsewhere = elsewhere or (why is Life.RESTORED and self._places != {here})
        return Request(path, cookies, client, lives=frozenset(lives), elsewhere=elsewhere)

    def _is_elsewhere(self, here: Attachment) -> bool:
        """Return whether recent requests, this one included, came from several networks or agents, or were cut."""
        since = self._wheel.now - HOUR
        uses = [use for number, use in enumerate(reversed(self._uses)) if number < 12 or use.at >= since]
        return any(use.here != here or use.cut or use.agent != uses[0].agent for use in uses)

    def _seen(self, here: Attachment, agent: str) -> pb.ClientContext:
        """Return what the application's proxies see: addresses of alternating families, and sometimes nothing."""
        sixth = bool(here.ipv6) and self._random.random() < 0.6
        if self._last is not None and here != self._last:
            self._tally.traffic["address changes"] += 1
        self._last = here
        context = pb.ClientContext(
            ip_address=here.ipv6 if sixth else here.ipv4,
            user_agent=agent or self._agent.versions[self._version],
            device_id=self._device,
        )
        self._tally.traffic["by IPv6" if sixth else "by IPv4"] += 1
        cut = 0
        if self._random.random() < self._bounds.omitted:
            self._tally.traffic["contexts cut"] += 1
            cut = self._random.randrange(1, 4)  # the address, the user agent, or both
            if cut & 1:
                context.ClearField("ip_address")
            if cut & 2:
                context.ClearField("user_agent")
        self._places.add(here)
        self._uses.append(_Use(self._wheel.now, here, agent if agent != self._agent.native else "", cut > 0))
        return context

    def _latency(self, here: Attachment) -> float:
        median, spread = (90.0, 1.0) if here.mobile else (25.0, 0.6)
        latency = median * self._random.lognormvariate(0, spread)
        if self._random.random() < (self._bounds.mobile_stall if here.mobile else self._bounds.wifi_stall):
            latency += self._random.randrange(self._bounds.in_flight)
        return min(latency, self._bounds.in_flight)
