"""Load on web servers over HTTP/1.1: several connections, each with the cookies of a user of its own."""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.load import Run, read_report
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
        before = self.server.cpu_seconds()
        processes = [
            subprocess.Popen(self._command(visitor), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for visitor in self._visitors
        ]
        try:
            outputs = [process.communicate()[0] for process in processes]
        finally:
            for process in processes:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        cpu = self.server.cpu_seconds() - before
        self._check()
        reports = [read_report(output, self._share) for output in outputs]
        requests = self._share * len(reports)
        seconds = max(report.seconds for report in reports)
        shortest = min(len(json.dumps(page, separators=(",", ":"))) for page in self._wanted)
        body_bytes = sum(report.body_bytes for report in reports)
        expect(body_bytes >= requests * shortest, f"{self.server.name}: the pages were too short")
        return Run(
            server=self.server.name,
            requests=requests,
            seconds=seconds,
            throughput=requests / seconds,
            body_bytes=body_bytes,
            latency_mean_ms=sum(report.latency_mean for report in reports) / len(reports) * 1000,
            latency_max_ms=max(report.latency_max for report in reports) * 1000,
            server_cpu_us=cpu / requests * 1e6,
            server_cores=cpu / seconds,
        )

    def _check(self) -> None:
        for visitor, wanted in zip(self._visitors, self._wanted, strict=True):
            found = visitor.request("GET", self._path)
            expect(found == wanted, f"{self.server.name}: a page had {found!r} instead of {wanted!r}")

    def _command(self, visitor: Visitor) -> list[str]:
        command = ["h2load", "--h1", f"-n{self._share}", "-c1", "-m1"]
        for name, value in visitor.headers().items():
            command += ["-H", f"{name}: {value}"]
        return [*command, f"http://{self.server.address}{self._path}"]
