"""A browser on a device: its cookie jar, its updates, the network under it, and what gets lost on the way."""

from __future__ import annotations

import uuid
from random import Random

from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.simulation.agents import Agent
from tests.simulation.bounds import Bounds
from tests.simulation.networks import Attachment, Whereabouts
from tests.simulation.site import Request, Response, Site
from tests.simulation.tally import Tally
from tests.simulation.wheel import Wheel

__all__ = ["Browser", "Jar"]


class Jar:
    """The cookies of one browser for one site. Whatever response arrives last has the last word (RFC 6265)."""

    def __init__(self) -> None:
        self._cookies: dict[str, tuple[str, int | None]] = {}

    def sent(self, now: int) -> dict[str, str]:
        """What goes along with a request."""
        return {name: value for name, (value, until) in self._cookies.items() if until is None or now < until}

    def take(self, response: Response, now: int) -> bool:
        """Take in a response; whether a value was replaced."""
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


class Browser:
    """One browser with its jar. Every tab of it sends the same cookies."""

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
        self.jar = Jar()
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
        self._rolled = 0

    def update(self) -> None:
        """The next version, if there is one: restarted, with its tabs and cookies as they were."""
        if self._version + 1 < len(self._agent.versions):
            self._version += 1
            self._tally.traffic["browser updates"] += 1

    def nonce(self) -> str:
        """A form's own number."""
        return str(uuid.UUID(bytes=self._random.randbytes(16), version=4))

    async def fetch(
        self, path: str, *, subject: str = "", csrf: str = "", nonce: str = "", remember: bool = False
    ) -> Response | None:
        """Send a request with the cookies of this moment; None where no response came back."""
        self._tally.traffic["requests"] += 1
        here = self._whereabouts.at(self._wheel.now)
        request = Request(path, self.jar.sent(self._wheel.now), self._seen(here), subject, csrf, nonce, remember)
        await self._wheel.sleep(self._latency(here))
        response = await self._site.handle(request)
        answered = self._wheel.now
        await self._wheel.sleep(self._latency(here))
        loss = self._bounds.mobile_loss if here.mobile else self._bounds.wifi_loss
        moved = self._whereabouts.at(self._wheel.now) != here  # connections die with the network under them
        if self._random.random() < loss or (moved and self._random.random() < 0.5):
            self._tally.traffic["responses lost"] += 1
            return None
        if response.rolls:
            self._rolled = answered
        elif response.set_cookie and answered < self._rolled:
            self._tally.traffic["cookies overtaken"] += 1
            return response
        if self.jar.take(response, self._wheel.now):
            self._tally.traffic["cookies replaced"] += 1
        return response

    def _seen(self, here: Attachment) -> pb.ClientContext:
        """What the application's proxies see: now this and now that family of addresses, now and then nothing."""
        sixth = bool(here.ipv6) and self._random.random() < 0.6
        if self._last is not None and here != self._last:
            self._tally.traffic["address changes"] += 1
        self._last = here
        context = pb.ClientContext(
            ip_address=here.ipv6 if sixth else here.ipv4,
            user_agent=self._agent.versions[self._version],
            device_id=self._device,
        )
        self._tally.traffic["by IPv6" if sixth else "by IPv4"] += 1
        if self._random.random() < self._bounds.omitted:
            self._tally.traffic["contexts cut"] += 1
            cut = self._random.randrange(1, 4)  # the one, the other, or both
            if cut & 1:
                context.ClearField("ip_address")
            if cut & 2:
                context.ClearField("user_agent")
        return context

    def _latency(self, here: Attachment) -> float:
        median, spread = (90.0, 1.0) if here.mobile else (25.0, 0.6)
        latency = median * self._random.lognormvariate(0, spread)
        if self._random.random() < (self._bounds.mobile_stall if here.mobile else self._bounds.wifi_stall):
            latency += self._random.randrange(self._bounds.in_flight)
        return min(latency, self._bounds.in_flight)
