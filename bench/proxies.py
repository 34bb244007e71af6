"""The sides of the figures about proxies: Envoy's Check, and the HTTP endpoint."""

from __future__ import annotations

import http.client
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from envoy.service.auth.v3 import external_auth_pb2
from envoy.service.auth.v3.external_auth_pb2_grpc import AuthorizationStub
from google.rpc import code_pb2

from bench.load import Load, Run, framed, measured, timed
from bench.processes import Server
from bench.seed import EVERY_SIGNAL, Seeded, client_of
from bench.sides import BODIES, SPREAD, Validation, expect, too_few_bytes

__all__ = ["CONFIG", "Bare", "Checks", "ForwardAuth", "bare_command", "page"]

CONFIG = f'{EVERY_SIGNAL}\n[server]\nenvoy = true\nhttp_listen = "127.0.0.1:0"\n'
"""Both ways in which proxies ask; otherwise as in `validate_vs_echo`."""
CHECK = "/envoy.service.auth.v3.Authorization/Check"
HTTP_PATH = "/check?application=default"
_COOKIE = "__Host-id"
_SUBJECT = "x-session-subject"
_PAGE = {
    "accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "accept-language": "en-US,en;q=0.5",
    "accept-encoding": "gzip, deflate, br, zstd",
    "sec-fetch-dest": "document",
    "sec-fetch-mode": "navigate",
    "sec-fetch-site": "same-origin",
    "sec-fetch-user": "?1",
    "upgrade-insecure-requests": "1",
    "x-forwarded-proto": "https",
}
"""What a browser sends with a page, beside its user agent and cookies."""
_TIMEOUT = 30


def page(token: str, user_agent: str) -> dict[str, str]:
    """Return the headers of a page that the user of a session fetches."""
    return {**_PAGE, "user-agent": user_agent, "cookie": f"theme=dark; {_COOKIE}={token}; lang=en"}


def _page_of(seeded: Seeded, number: int) -> dict[str, str]:
    return page(seeded.token(number), client_of(number).user_agent)


class Checks(Validation):
    """Envoy's Check of valid sessions, on a route that needs a login. Each run has other sessions.

    The question has what Envoy 1.40 sends with the deployed configuration: all headers of a page, with raw values.
    """

    def __init__(self, server: Server, seeded: Seeded, requests: int) -> None:
        super().__init__(server, seeded, requests, pulse=True)
        self._check: Callable[..., Any] = AuthorizationStub(server.channel()).Check

    def question(self, number: int) -> external_auth_pb2.CheckRequest:
        """Return the question about a page that the user of a session fetches."""
        sent = {":authority": "shop.example.com", ":method": "GET", ":path": "/account/orders?page=2"}
        sent |= {":scheme": "https", **_page_of(self._seeded, number)}
        address = client_of(number).ip_address
        sent |= {"x-forwarded-for": address, "x-envoy-external-address": address}
        sent |= {"x-request-id": "8ee7dd26-2d8b-4e0b-9a55-70f1b2e1a3c4"}
        raw = [{"key": name, "raw_value": value.encode()} for name, value in sent.items()]
        source = {"address": address, "port_value": 49152}
        return external_auth_pb2.CheckRequest(
            attributes={
                "source": {"address": {"socket_address": source}},
                "destination": {"address": {"socket_address": {"address": "10.0.0.7", "port_value": 443}}},
                "request": {
                    "time": {"seconds": 1_760_000_000, "nanos": 123_456_000},
                    "http": {
                        "id": "1234567890123456789",
                        "method": "GET",
                        "path": "/account/orders?page=2",
                        "host": "shop.example.com",
                        "scheme": "https",
                        "protocol": "HTTP/2",
                        "header_map": {"headers": raw},
                    },
                },
                "context_extensions": {"application": "default"},
                "metadata_context": {},
                "route_metadata_context": {},
            }
        )

    def sizes(self) -> tuple[int, int]:
        """Return the serialized sizes of a request and of its response: medians of 100 calls."""
        questions = [self.question(number) for number in range(100)]
        answers = [self.ask(number) for number in range(100)]
        return (
            round(statistics.median(question.ByteSize() for question in questions)),
            round(statistics.median(answer.ByteSize() for answer in answers)),
        )

    def ask(self, number: int) -> Any:
        """Ask about a request, which must pass with the right user."""
        answer = self._check(self.question(number), timeout=_TIMEOUT)
        found = {option.header.key: option.header.value for option in answer.ok_response.headers}
        expect(answer.status.code == code_pb2.OK, f"a valid session was refused with {answer.denied_response.status}")
        expect(found.get(_SUBJECT) == f"user-{number:07d}", f"a request passed as user {found.get(_SUBJECT)!r}")
        return answer

    def run(self, number: int) -> Run:
        """Run the load once. Each request must pass before and afterwards, with a last activity during the run."""
        chosen = [(number * BODIES + i + BODIES) * SPREAD % self._seeded.count for i in range(BODIES)]
        answers = [self.ask(n) for n in chosen]
        before = [self.last_active_ms(n) for n in chosen]
        load = Load(self.server, CHECK, [framed(self.question(n)) for n in chosen], self._requests)
        with self.pulse():
            run, taken = timed(load)
        self.expect_activity(chosen, before, taken)
        for n in chosen:
            self.ask(n)
        least = min(answer.ByteSize() for answer in answers) + 5
        expect(run.body_bytes >= run.requests * least, too_few_bytes(run))
        return run


class ForwardAuth:
    """`GET /check` about valid sessions over HTTP, with the headers that Caddy as deployed sends."""

    def __init__(self, server: Server, seeded: Seeded, requests: int) -> None:
        self.server = server
        self._at = replace(server, address=server.http)
        self._seeded = seeded
        self._validation = Validation(server, seeded, requests, pulse=True)
        self._requests = requests

    def headers(self, number: int) -> dict[str, str]:
        """Return the headers of a question."""
        asked = {
            "x-forwarded-method": "GET",
            "x-forwarded-uri": "/account/orders?page=2",
            "x-forwarded-host": "shop.example.com",
            "x-forwarded-for": client_of(number).ip_address,
        }
        return {**_page_of(self._seeded, number), **asked}

    def ask(self, number: int) -> Sequence[tuple[str, str]]:
        """Ask about a request, which must pass with the right user. Return the headers of the answer."""
        status, answer = _get(self._at, self.headers(number))
        found = {name.lower(): value for name, value in answer}
        expect(status == 200, f"a valid session was refused with {status}")
        expect(found.get(_SUBJECT) == f"user-{number:07d}", f"a request passed as user {found.get(_SUBJECT)!r}")
        return answer

    def run(self, number: int) -> Run:
        """Run the load once. Each request must pass before and afterwards, with a last activity during the run."""
        chosen = [(number * BODIES + i + BODIES) * SPREAD % self._seeded.count for i in range(BODIES)]
        for n in chosen:
            self.ask(n)
        before = [self._validation.last_active_ms(n) for n in chosen]
        with self._validation.pulse():
            run, taken = _drive_http(self._at, [self.headers(n) for n in chosen], self._requests)
        self._validation.expect_activity(chosen, before, taken)
        for n in chosen:
            self.ask(n)
        return run


class Bare:
    """A bare endpoint on the same ASGI stack, which gets the same requests and has the same response headers."""

    def __init__(self, server: Server, of: ForwardAuth, requests: int) -> None:
        self.server = server
        self._of = of
        self._requests = requests

    def run(self, number: int) -> Run:
        """Run the load once. Each response must be the expected one."""
        headers = [self._of.headers((number + 1) * BODIES + i) for i in range(BODIES)]
        status, found = _get(self.server, headers[0])
        expect(status == 200 and any(name.lower() == _SUBJECT for name, _ in found), f"the bare endpoint said {status}")
        return _drive_http(self.server, headers, self._requests)[0]


def bare_command(headers: Sequence[tuple[str, str]]) -> list[str]:
    """Return the command that serves the bare endpoint, with these headers in each response."""
    return [sys.executable, "-m", "bench.bare_http", json.dumps(headers)]


def _get(server: Server, headers: dict[str, str]) -> tuple[int, Sequence[tuple[str, str]]]:
    host, _, port = server.address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=_TIMEOUT)
    try:
        connection.request("GET", HTTP_PATH, headers=headers)
        response = connection.getresponse()
        response.read()
        return response.status, response.getheaders()
    finally:
        connection.close()


def _drive_http(server: Server, headers: Sequence[dict[str, str]], requests: int) -> tuple[Run, list[float]]:
    """Send all requests over as many connections as there are header sets, one request in flight on each."""
    share = requests // len(headers)
    commands = []
    for one in headers:
        options = [part for name, value in one.items() for part in ("-H", f"{name}: {value}")]
        commands.append(["h2load", "--h1", f"-n{share}", "-c1", "-m1", *options, f"http://{server.address}{HTTP_PATH}"])
    return measured(server, commands, share)
