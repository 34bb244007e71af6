"""Load on web servers over HTTP/1.1: several connections, each with the cookies of a user of its own."""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.load import Run, measured
from bench.processes import Server
from bench.sides import expect

__all__ = ["CONNECTIONS", "Visitor", "WebPage"]

CONNECTIONS = 8
"""Concurrent connections, with one request in flight on each."""

_AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0"


@dataclass(slots=True)
class Visitor:
    """One user of a web application, with the cookies that it has set."""

    server: Server
    cookie: str = ""

    def request(self, method: str, path: str) -> Any:
        """Make one request, and return the JSON of the response, which must be a 200."""
        host, _, port = self.server.address.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        try:
            connection.request(method, path, headers=self.headers())
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        expect(response.status == 200, f"{method} {path} of {self.server.name} had status {response.status}: {body!r}")
        pairs = [line.partition(";")[0] for line in response.headers.get_all("Set-Cookie", [])]
        if pairs:
            self.cookie = "; ".join(pairs)
        return json.loads(body)

    def headers(self) -> dict[str, str]:
        """The headers of each request."""
        return {"User-Agent": _AGENT, "Accept": "application/json", **({"Cookie": self.cookie} if self.cookie else {})}


class WebPage:
    """One side: a page that all visitors read, over and over. Each must see what is in its own session."""

    def __init__(self, server: Server, path: str, visitors: Sequence[Visitor], wanted: Sequence[Any], requests: int):
        """`wanted`: the JSON of the page for each visitor. `requests`: how many in each run, of all visitors."""
        self.server = server
        self._path = path
        self._visitors = visitors
        self._wanted = wanted
        self._share = requests // len(visitors)

    def run(self, number: int) -> Run:
        """Run the load once. Before and afterwards, each visitor must see the right page."""
        self._check()
        run, _ = measured(self.server, [self._command(visitor) for visitor in self._visitors], self._share)
        self._check()
        shortest = min(len(json.dumps(page, separators=(",", ":"))) for page in self._wanted)
        expect(run.body_bytes >= run.requests * shortest, f"{self.server.name}: the pages were too short")
        return run

    def _check(self) -> None:
        for visitor, wanted in zip(self._visitors, self._wanted, strict=True):
            found = visitor.request("GET", self._path)
            expect(found == wanted, f"{self.server.name}: a page had {found!r} instead of {wanted!r}")

    def _command(self, visitor: Visitor) -> list[str]:
        command = ["h2load", "--h1", f"-n{self._share}", "-c1", "-m1"]
        for name, value in visitor.headers().items():
            command += ["-H", f"{name}: {value}"]
        return [*command, f"http://{self.server.address}{self._path}"]
