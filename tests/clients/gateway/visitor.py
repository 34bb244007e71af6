"""A browser in front of the gateway: it keeps cookies, and carries out the gateway's steps with either client."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sessiond_client import Client, SessiondError
from sessiond_client.gateway import Ask, Exchange, Gateway, Steps, WebRequest, account, run, run_async
from tests.clients.either import Either

__all__ = ["ALICE", "HOST", "Counting", "Visitor", "carry_out", "request_of"]

T = TypeVar("T")
HOST = "shop.example"
ALICE = "alice"


async def carry_out(client: Either, steps: Steps[T]) -> T:
    """Carry out the steps with `run` or `run_async`, as the client needs."""
    if isinstance(client.client, Client):
        return await asyncio.to_thread(run, client.client, steps)
    return await run_async(client.client, steps)


class Counting(Either):
    """A client that counts what it is asked."""

    def __init__(self, client: Either) -> None:
        self.client = client.client
        self.asked: Counter[str] = Counter()

    def counted(self, steps: Steps[T]) -> Steps[T]:
        """The same steps; each of their questions is counted."""
        try:
            ask: Ask = next(steps)
            while True:
                self.asked[ask.method] += 1
                try:
                    answer = yield ask
                except SessiondError as error:
                    ask = steps.throw(error)
                else:
                    ask = steps.send(answer)
        except StopIteration as done:
            result: T = done.value
            return result


def request_of(
    method: str = "GET", path: str = "/", *, form: str | None = None, peer: str = "192.0.2.7", **headers: str
) -> WebRequest:
    """A request. In names of headers `_` means `-`."""
    given: Mapping[str, Sequence[str]] = {name.replace("_", "-"): [value] for name, value in headers.items()}
    return WebRequest(
        method=method,
        path=path,
        host=HOST,
        peer=peer,
        headers=lambda name: given.get(name, ()),
        form_token=lambda: form,
    )


@dataclass
class Visitor:
    """One browser with its cookies. Its requests carry a user agent, and the cookies that it has when they are sent."""

    client: Either
    gateway: Gateway
    jar: dict[str, str] = field(default_factory=dict)
    agent: str = "Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0"

    async def do(self, steps: Steps[T]) -> T:
        """Carry out the steps of an exchange."""
        return await carry_out(self.client, self.client.counted(steps) if isinstance(self.client, Counting) else steps)

    async def send(self, method: str = "GET", path: str = "/", *, form: str | None = None, **headers: str) -> Exchange:
        """Begin a request, with its one question."""
        if self.jar and "cookie" not in headers:
            headers["cookie"] = "; ".join(f"{name}={value}" for name, value in self.jar.items())
        headers.setdefault("user_agent", self.agent)
        exchange = Exchange(self.gateway, request_of(method, path, form=form, **headers))
        await self.do(exchange.open())
        return exchange

    async def end(self, exchange: Exchange) -> list[tuple[str, str]]:
        """Save what was changed, and take the cookies of the response. Returns its headers."""
        await self.do(exchange.save())
        return self.receive(exchange)

    def receive(self, exchange: Exchange) -> list[tuple[str, str]]:
        """Take the cookies of a response. Returns its headers."""
        headers = exchange.headers()
        for line in (value for name, value in headers if name == "Set-Cookie"):
            name, _, rest = line.partition("=")
            value, _, attributes = rest.partition(";")
            if "Max-Age=0" in attributes:
                self.jar.pop(name, None)
            else:
                self.jar[name] = value
        return headers

    async def form(self, path: str = "/") -> str:
        """Load a page with a form. Returns its CSRF token."""
        exchange = await self.send(path=path)
        token = await self.do(account.csrf_token(exchange))
        await self.end(exchange)
        return token

    async def log_in(self, subject: str = ALICE, **more: Any) -> Exchange:
        """Log in by a form, and receive the response. Returns the exchange."""
        exchange = await self.send("POST", "/login", form=await self.form("/login"))
        await self.do(account.login(exchange, subject, **more))
        await self.end(exchange)
        return exchange

    async def data(self) -> dict[str, Any]:
        """The session data that a page sees."""
        return dict((await self.send()).values)


def copy_of(visitor: Visitor, change: Callable[[dict[str, str]], None] = lambda _: None) -> Visitor:
    """Another browser with the same cookies, as a thief has it."""
    jar = dict(visitor.jar)
    change(jar)
    return Visitor(visitor.client, visitor.gateway, jar, visitor.agent)
