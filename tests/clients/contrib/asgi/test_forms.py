"""CSRF tokens in the bodies of forms: found, bounded, and the body stays as it was."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sessiond.app import App
from sessiond_client.contrib.asgi.forms import Disconnected, FormBody, FormNotRead, is_form
from tests.clients.contrib.asgi.shop import PAGE, visiting

URLENCODED = "application/x-www-form-urlencoded"
BOUNDARY = "x7Y"
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"


def multipart(*parts: tuple[str, bytes]) -> bytes:
    """A body with parts, each with the rest of its header and its content."""
    body = b""
    for header, content in parts:
        body += f"--{BOUNDARY}\r\nContent-Disposition: form-data; {header}\r\n\r\n".encode() + content + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


def arriving(*messages: Any) -> Any:
    """A server's `receive` that returns these messages, and then fails."""
    waiting = list(messages)

    async def receive() -> Any:
        assert waiting, "the application waits for more than was sent"
        return waiting.pop(0)

    return receive


def in_parts(body: bytes, size: int) -> list[dict[str, Any]]:
    """A body as messages of at most `size` bytes."""
    parts = [body[begin : begin + size] for begin in range(0, len(body), size)] or [b""]
    return [
        {"type": "http.request", "body": part, "more_body": number < len(parts)} for number, part in enumerate(parts, 1)
    ]


async def found(content_type: str, messages: Sequence[Any], most_bytes: int = 1000) -> tuple[str | None, FormBody]:
    """The token in a body. Checks that the application gets the same messages."""
    form = FormBody(arriving(*messages), content_type, "csrf_token", most_bytes)
    with pytest.raises(FormNotRead):
        form.token()
    await form.read()
    assert [await form.receive() for _ in messages] == list(messages)
    return form.token(), form


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize(
    ("content_type", "body", "token"),
    [
        (URLENCODED, b"csrf_token=abc", "abc"),
        (URLENCODED, b"a=b&csrf_token=a%2Bb+c&csrf_token=second", "a+b c"),
        (URLENCODED, b"csrf%5Ftoken=abc", "abc"),
        (URLENCODED, b"csrf_token=", ""),
        (URLENCODED, b"csrf_token", ""),
        (URLENCODED, b"xcsrf_token=abc&a=csrf_token=abc", None),
        (URLENCODED, b"", None),
        (URLENCODED, b"\xff\xfe&&==&%zz", None),
        (f"{URLENCODED}; charset=utf-8", b"csrf_token=abc", "abc"),
        (MULTIPART, multipart(('name="csrf_token"', b"abc")), "abc"),
        (MULTIPART, multipart(('name="a"', b"csrf_token"), ('name="csrf_token"', b"abc"), ('name="b"', b"")), "abc"),
        (MULTIPART, multipart(('name="csrf_token"', b"abc"), ('name="csrf_token"', b"second")), "abc"),
        (MULTIPART, multipart(('name="csrf_token"; filename="x"', b"abc")), None),
        (MULTIPART, multipart(('name="csrf_token"', b"\xff")), "\ufffd"),
        (MULTIPART, b"no boundary", None),
        (MULTIPART, multipart(('name="csrf_token"', b"abc"))[:-20], None),
        ("multipart/form-data", multipart(('name="csrf_token"', b"abc")), None),
        (f"multipart/form-data; boundary={'x' * 100}", b"", None),
        (MULTIPART.upper().replace("X7Y", BOUNDARY), multipart(('name="csrf_token"', b"abc")), "abc"),
    ],
)
async def test_finding_the_field(content_type: str, body: bytes, token: str | None, size: int) -> None:
    """The first field of the name has the token, however the body arrives; a file of that name has none."""
    assert is_form(content_type)
    found_token, form = await found(content_type, in_parts(body, size))
    assert found_token == token
    assert not form.is_too_long


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.text(), st.text())),
    st.text(),
    st.integers(min_value=1, max_value=50),
)
def test_any_form(fields: list[tuple[str, str]], token: str, size: int) -> None:
    """Whatever other fields there are, the token is found in an urlencoded form, and the body is replayed whole."""
    others = [(name, value) for name, value in fields if name != "csrf_token"]
    body = urlencode([*others, ("csrf_token", token)], errors="replace").encode()
    expected = token.encode(errors="replace").decode()
    result, _ = asyncio.run(found(URLENCODED, in_parts(body, size), 100_000))
    assert result == expected


@settings(deadline=None)
@given(st.binary(max_size=300), st.integers(min_value=1, max_value=50))
def test_any_bytes(body: bytes, size: int) -> None:
    """No body makes the search fail, and each is replayed whole."""
    for content_type in (URLENCODED, MULTIPART):
        asyncio.run(found(content_type, in_parts(body, size)))


@pytest.mark.parametrize("content_type", ["", "application/json", "text/plain", "multipart/mixed", "multipart"])
def test_other_bodies_are_no_forms(content_type: str) -> None:
    """Bodies of other types are not read: their token must be in the header."""
    assert not is_form(content_type)


@pytest.mark.parametrize("content_type", [URLENCODED, MULTIPART])
async def test_a_body_that_is_too_long(content_type: str) -> None:
    """Reading stops at the limit, and the rest of the body goes to the application as it arrives."""
    messages = in_parts(b"x" * 1000, 100)
    form = FormBody(arriving(*messages), content_type, "csrf_token", 500)
    await form.read()
    assert form.is_too_long
    assert form.token() is None
    assert len(form._kept) == 5
    assert [await form.receive() for _ in messages] == messages


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (URLENCODED, b"a=" + b"b" * 95 + b"&csrf_token=" + b"c" * 500),
        (MULTIPART, multipart(('name="csrf_token"', b"c" * 5000))),
    ],
)
async def test_a_token_that_is_cut_off(content_type: str, body: bytes) -> None:
    """A token that is cut off by the limit is no token."""
    form = FormBody(arriving(*in_parts(body, 50)), content_type, "csrf_token", 200)
    await form.read()
    assert (form.token(), form.is_too_long) == (None, True)


async def test_a_large_file_after_the_token() -> None:
    """If the token comes before a large file, only the beginning is read, and the limit does not matter."""
    body = multipart(('name="csrf_token"', b"abc"), ('name="file"; filename="x"', b"f" * 10_000))
    messages = in_parts(body, 100)
    token, form = await found(MULTIPART, messages, most_bytes=500)
    assert (token, form.is_too_long) == ("abc", False)


async def test_a_client_that_goes_away() -> None:
    """If the client goes away in the middle of the form, reading ends."""
    messages = [{"type": "http.request", "body": b"csrf", "more_body": True}, {"type": "http.disconnect"}]
    form = FormBody(arriving(*messages), URLENCODED, "csrf_token", 500)
    with pytest.raises(Disconnected):
        await form.read()


async def test_a_body_that_was_read_already() -> None:
    """What the application has read cannot be searched any more, so there is no token."""
    form = FormBody(arriving(*in_parts(b"csrf_token=abc", 100)), URLENCODED, "csrf_token", 500)
    await form.receive()
    assert form.token() is None


# Behind the middleware


async def test_a_form_with_the_token(app: App) -> None:
    """A form with the token in a field is accepted, urlencoded and multipart, and the endpoint reads all of it."""
    async with visiting(app.address) as browser:
        await browser.log_in()
        token = (await browser.get("/token")).text
        fields = {"item": "cup", "csrf_token": token}
        assert (await browser.http.post("/form", data=fields)).json() == fields
        with_file = await browser.http.post("/form", data=fields, files={"file": b"x" * 3_000_000})
        assert with_file.json() == {**fields, "file": 3_000_000}
        for wrong in ({"item": "cup"}, {**fields, "csrf_token": "wrong"}):
            assert (await browser.http.post("/form", data=wrong)).status_code == 403


async def test_a_header_comes_first(app: App) -> None:
    """If a header has a token, the form is not read, and what is in it does not count."""
    async with visiting(app.address) as browser:
        await browser.log_in()
        token = (await browser.get("/token")).text
        wrong = await browser.http.post("/form", data={"csrf_token": token}, headers={"X-CSRF-Token": "wrong"})
        assert wrong.status_code == 403
        right = await browser.http.post("/form", data={"csrf_token": "wrong"}, headers={"X-CSRF-Token": token})
        assert right.status_code == 200


async def test_other_names_of_header_and_field(app: App) -> None:
    """The settings name the header and the field."""
    async with visiting(app.address, csrf_header="X-Own", csrf_field="own") as browser:
        await browser.log_in()
        token = (await browser.get("/token")).text
        assert (await browser.http.post("/form", data={"own": token})).status_code == 200
        assert (await browser.http.post("/cart", headers={"X-Own": token})).status_code == 200
        assert (await browser.http.post("/form", data={"csrf_token": token})).status_code == 403


async def test_a_form_that_is_too_large(app: App) -> None:
    """A large form without the token at its beginning gets 403 with a sentence that says what to do."""
    async with visiting(app.address, max_form_bytes=1000) as browser:
        await browser.log_in()
        token = (await browser.get("/token")).text
        fields = {"text": "x" * 5000, "csrf_token": token}
        answer = await browser.http.post("/form", data=fields)
        assert (answer.status_code, answer.json()["error"]) == (403, "csrf_failed")
        assert answer.json()["detail"] == "This form is too large: send its CSRF token first, or in X-CSRF-Token."
        page = await browser.http.post("/form", data=fields, headers=PAGE)
        assert "too large" in page.text
        assert (await browser.http.post("/form", data=fields, headers={"X-CSRF-Token": token})).status_code == 200
        refused = await browser.http.post("/form", data=fields, headers={"Sec-Fetch-Site": "cross-site"})
        assert "too large" not in refused.text


async def test_a_guest_without_cookie_sends_a_form(app: App) -> None:
    """A form of a visitor without a session needs no token, and is not read before the endpoint does."""
    async with visiting(app.address, max_form_bytes=1) as browser:
        assert (await browser.http.post("/form", data={"item": "cup"})).json() == {"item": "cup"}


async def test_an_endpoint_that_streams_the_body(app: App) -> None:
    """An endpoint that reads the body in parts gets all of them, the one in which the token was included."""

    async def sizes(request: Request) -> Response:
        return JSONResponse(sum([len(part) async for part in request.stream()]))

    async with visiting(app.address, Route("/sizes", sizes, methods=["POST"])) as browser:
        await browser.log_in()
        token = (await browser.get("/token")).text
        body = multipart(('name="csrf_token"', token.encode()), ('name="file"; filename="x"', b"f" * 100_000))

        async def parts() -> Any:
            for begin in range(0, len(body), 1000):
                yield body[begin : begin + 1000]

        answer = await browser.http.post("/sizes", content=parts(), headers={"Content-Type": MULTIPART})
        assert (answer.status_code, answer.json()) == (200, len(body))


async def test_a_client_that_goes_away_in_the_middle(app: App) -> None:
    """If the client goes away while it sends the form, the endpoint does not run, and nothing is sent."""
    from sessiond_client import AsyncClient
    from tests.clients.contrib.asgi.shop import living, plain

    served: list[str] = []

    async def page(scope: Any, receive: Any, send: Any) -> None:
        served.append(scope["path"])

    application = plain(page, app.address)
    async with AsyncClient(app.address) as client:
        cookie = (await client.create(subject="alice")).token.reveal()
    messages = [{"type": "http.request", "body": b"a=b", "more_body": True}, {"type": "http.disconnect"}]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "headers": [(b"cookie", f"__Host-id={cookie}".encode()), (b"content-type", URLENCODED.encode())],
    }
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async with living(application):
        await application(scope, arriving(*messages), send)
    assert (served, sent) == ([], [])
