"""`flask.session`: it holds what Flask's own session holds, and is written only if something changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from flask import Flask, flash, get_flashed_messages, session
from flask.json.tag import JSONTag, TaggedJSONSerializer
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from sessiond.app import App
from sessiond_client.contrib.flask.codec import TAGGED_JSON
from tests.clients.contrib.flask.site import Browser, Calls, running

VALUES = [
    "text",
    "",
    0,
    1.5,
    True,
    None,
    [1, [2, "three"]],
    {"a": {"b": []}},
    {},
    (1, (2, "x")),
    b"\x00\xff",
    datetime(2026, 11, 27, 4, 5, 6, tzinfo=UTC),
    UUID(int=7),
    Markup("<b>bold</b>"),
    {" t": [1]},
    {" di": 1},
    [" t", ' "'],
    [{"one": (b"x", Markup("y"))}],
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    """What Flask's own serializer keeps is read back equal and of the same type."""
    found = TAGGED_JSON.decode("key", TAGGED_JSON.encode("key", value))
    assert found == value
    assert type(found) is type(value)


_LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
    | st.uuids() | st.text().map(Markup)
)  # fmt: skip
_TREES = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text() | st.sampled_from([" t", " b"]), inner)
    ),
    max_leaves=10,
)


@given(_TREES)
def test_the_short_way_writes_what_flask_writes(value: Any) -> None:
    """Each value is stored in the form of Flask's serializer, and either reads what the other wrote."""
    ours, flasks = TAGGED_JSON.encode("key", value), TaggedJSONSerializer()
    assert flasks.loads(ours.decode()) == value
    assert TAGGED_JSON.decode("key", flasks.dumps(value).encode()) == value


def test_a_value_that_only_the_applications_json_knows(app: App) -> None:
    """A type that the application's JSON provider writes, such as `Decimal`, can be stored."""
    with Flask("decimals").app_context():
        assert TAGGED_JSON.encode("key", [Decimal("1.50")]) == b'["1.50"]'


def test_a_value_that_cannot_be_stored_names_its_key() -> None:
    """The error about such a value says under which key it is, and nothing of its content."""
    with pytest.raises(TypeError, match=r"session\['basket'\] cannot be stored: .* set is not JSON serializable"):
        TAGGED_JSON.encode("basket", {"secret"})
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises((ValueError, RecursionError)):
        TAGGED_JSON.encode("basket", endless)


@pytest.mark.parametrize("data", [b"\xff", b"{", b'{" b":1}', b'{" u":"x"}', b'{" u":1}'], ids=repr)
def test_what_flask_did_not_write_is_no_value(data: bytes) -> None:
    """Bytes that are not of Flask's form are a `ValueError`, which the session treats as missing."""
    with pytest.raises(ValueError):  # noqa: PT011 - of several kinds
        TAGGED_JSON.decode("key", data)


@pytest.fixture
def held() -> dict[str, Any]:
    """What the views of `keeper` found."""
    return {}


def keeper(held: dict[str, Any], steps: dict[str, Callable[[], Any]]) -> Flask:
    """A site with a page for each of the steps."""
    site = Flask("keeper")
    for name, step in steps.items():

        def view(name: str = name, step: Callable[[], Any] = step) -> str:
            held[name] = step()
            return "ok"

        site.add_url_rule(f"/{name}", name, view)
    return site


async def visit(app: App, held: dict[str, Any], calls: Calls, **steps: Callable[[], Any]) -> Browser:
    """Run the steps, each in a request of its own, with one browser."""
    with running(app.address, keeper(held, steps), interceptors=[calls]) as site:
        browser = Browser(site)
        for name in steps:
            calls.take()
            assert (await browser.get(f"/{name}")).status_code == 200
            held[f"calls of {name}"] = [call for call in calls.take() if call != "GetAuthority"]
    return browser


async def test_every_kind_of_value_survives_a_request(app: App, held: dict[str, Any], calls: Calls) -> None:
    """All values that are stored in one request are there in the next one."""
    stored = {f"value {number}": value for number, value in enumerate(VALUES)}
    await visit(app, held, calls, store=lambda: session.update(stored), read=lambda: dict(session))
    assert held["read"] == stored


async def test_an_unchanged_session_is_never_written(app: App, held: dict[str, Any], calls: Calls) -> None:
    """Reading, assigning what is there already and `modified = True` cost no write."""

    def same() -> None:
        session["cart"] = list(session["cart"])
        session.modified = True

    await visit(app, held, calls, store=lambda: session.update(cart=[1]), read=lambda: session["cart"], same=same)
    assert held["calls of store"] == ["CreateSession"]
    assert held["calls of read"] == ["ValidateSession"]
    assert held["calls of same"] == ["ValidateSession"]


async def test_a_change_inside_of_a_value_is_written(app: App, held: dict[str, Any], calls: Calls) -> None:
    """Appending to a list in the session is stored without `session.modified = True`."""
    await visit(
        app,
        held,
        calls,
        store=lambda: session.update(cart=[{"n": 1}], other="x"),
        change=lambda: session["cart"][0].update(n=2),
        read=lambda: dict(session),
    )
    assert held["calls of change"] == ["ValidateSession", "UpdateSessionData"]
    assert held["read"] == {"cart": [{"n": 2}], "other": "x"}


async def test_flags_of_the_session(app: App, held: dict[str, Any], calls: Calls) -> None:
    """`new` is true until there is a session, `modified` after an assignment, and `permanent` is kept."""

    def flags() -> tuple[bool, bool, bool, bool]:
        return session.new, session.modified, session.permanent, session.accessed

    def store() -> Any:
        before = flags()
        session.permanent = True
        return before, flags()

    def clear() -> Any:
        session.clear()
        return flags(), len(session), list(session), "_permanent" in session

    await visit(app, held, calls, store=store, read=flags, clear=clear, after=flags)
    assert held["store"] == ((True, False, False, True), (True, True, True, True))
    assert held["read"] == (False, False, True, True)
    assert held["clear"] == ((False, True, False, True), 0, [], False)
    assert held["after"] == (False, False, False, True)


async def test_flashed_messages(app: App, held: dict[str, Any], calls: Calls) -> None:
    """A flashed message is shown once."""

    def messages() -> list[Any]:
        return list(get_flashed_messages(with_categories=True))

    await visit(app, held, calls, store=lambda: flash("Saved.", "info"), first=messages, second=messages)
    assert (held["first"], held["second"]) == ([("info", "Saved.")], [])


async def test_a_deletion(app: App, held: dict[str, Any], calls: Calls) -> None:
    """What was popped or deleted is gone, and a missing key is a `KeyError`."""

    def remove() -> Any:
        with pytest.raises(KeyError):
            session["never"]
        del session["b"]
        return session.pop("a")

    await visit(
        app, held, calls, store=lambda: session.update(a=1, b=2, c=3), remove=remove, read=lambda: dict(session)
    )
    assert (held["remove"], held["read"]) == (1, {"c": 3})


async def test_reading_as_a_guest_creates_nothing(browser: Browser, calls: Calls) -> None:
    """A visitor who stores nothing gets no session and no cookie, and nothing is asked."""
    assert (await browser.get("/cart")).json == {"cart": []}
    assert browser.seen == []
    assert calls.take() == []


async def test_the_repr_of_a_session(site: Flask, browser: Browser) -> None:
    """Neither the token nor the data is in the session's repr."""
    await browser.post("/cart?item=gin")

    def look() -> str:
        with site.test_request_context("/", headers={"Cookie": f"__Host-id={browser.cookie}"}):
            assert session["cart"] == ["gin"]
            return repr(session) + str(session)

    text = await asyncio.to_thread(look)
    assert "gin" not in text
    assert browser.cookie not in text


async def test_a_session_in_a_test(site: Flask, app: App) -> None:
    """`session_transaction` of Flask's test client reads and writes the session."""

    def use() -> Any:
        client = site.test_client()
        with client.session_transaction() as stored:
            stored["cart"] = ["tea"]
        page = client.get("/cart").json
        with client.session_transaction() as stored:
            return page, dict(stored)

    assert await asyncio.to_thread(use) == ({"cart": ["tea"]}, {"cart": ["tea"]})


def test_the_serializer_has_no_other_tags() -> None:
    """The short way of the serializer relies on every tag of Flask beginning with a space."""
    keys = [tag.key for tag in TaggedJSONSerializer().order if tag.key]
    assert keys
    assert all(key.startswith(" ") for key in keys)
    assert JSONTag.key == ""
