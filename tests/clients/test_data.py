"""Session data of both clients against a real authority: with a validation, with a write, as bytes and as JSON."""

from __future__ import annotations

import pytest

from sessiond.app import App
from sessiond_client import (
    AsyncClient,
    Client,
    ClientContext,
    Conflict,
    DataRequest,
    NextStep,
    NotJson,
    Question,
    Requirements,
    Verdict,
    json_data,
)
from tests.clients.either import CLIENTS, Either
from tests.clients.relay import Counting

SEEN = ClientContext(ip_address="192.0.2.10", user_agent="Firefox")


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_page_that_reads_a_cart_is_one_round_trip(kind: type[AsyncClient] | type[Client], app: App) -> None:
    """Verdict, session, cart, CSRF token and response headers of one web request come with one call."""
    relay = Counting(app.address)
    async with Either(kind, app.address) as shop:
        created = await shop.create(client=SEEN, data=json_data.encode({"cart": ["teapot"]}))
    async with relay.running() as target, Either(kind, target) as client:
        answer = await client.validate(created.token, client=SEEN, with_csrf_token=True, data=True)
        assert json_data.decode(answer.data.values) == {"cart": ["teapot"]}
        assert (answer.valid, answer.next_step) == (True, NextStep.PROCEED)
        assert answer.session.session_id == created.session.session_id
        assert answer.csrf_token == created.csrf_token
        assert answer.cookies.headers() == []
        assert relay.calls == 1
        await client.get_data(token=created.token)
    assert relay.calls == 2  # so it does count


async def test_a_validation_brings_data_if_asked(client: Either) -> None:
    """All keys, some keys or none, with the version that the session has, alone and in a batch."""
    created = await client.create(data={"cart": b"1"})
    await client.update_data(token=created.token, set={"theme": b"dark"})
    whole = await client.validate(created.token, data=True)
    assert whole.data.values == {"cart": b"1", "theme": b"dark"}
    assert whole.data.version == whole.session.data_version > 0
    some = await client.validate(created.token, data=DataRequest(keys=("theme", "nix")))
    assert (some.data.values, some.data.version) == ({"theme": b"dark"}, whole.data.version)
    assert (await client.validate(created.token)).data is None
    batch = await client.validate_many([Question(created.token, data=True), created.token])
    assert [answer.data for answer in batch] == [whole.data, None]


async def test_data_that_the_caller_has_is_not_sent_again(client: Either) -> None:
    """With `newer_than` the data comes only if it has changed since; the session's version says so either way."""
    created = await client.create()
    written = await client.update_data(token=created.token, set={"cart": b"1"})
    copy = DataRequest(newer_than=written.version)
    current = await client.validate(created.token, data=copy)
    assert (current.data, current.session.data_version) == (None, written.version)
    await client.update_data(token=created.token, set={"cart": b"2"})
    newer = await client.validate(created.token, data=copy)
    assert newer.data.values == {"cart": b"2"}
    assert newer.data.version == written.version + 1


async def test_a_denied_request_gets_no_data(client: Either) -> None:
    """Data comes with VALID only: not for a dead token, and not if a requirement is not met."""
    created = await client.create(subject="ada", data={"cart": b"1"})
    low = await client.validate(created.token, data=True, requirements=Requirements(min_level=2))
    assert (low.verdict, low.data) == (Verdict.INSUFFICIENT, None)
    await client.revoke(token=created.token)
    for token in (created.token, "nonsense", "A" * 70):
        answer = await client.validate(token, data=True)
        assert not answer.valid
        assert answer.data is None


async def test_a_write_returns_the_merged_data(client: Either) -> None:
    """Some keys are written, others stay, and the result comes back in the same call, with its version."""
    created = await client.create(data={"a": b"1", "b": b"2"})
    written = await client.update_data(token=created.token, set={"c": b"3"}, delete=["a"], return_data=True)
    assert written.data.values == {"b": b"2", "c": b"3"}
    assert written.data.version == written.version
    some = await client.update_data(
        session_id=created.session.session_id, set={"d": b"4"}, return_data=DataRequest(keys=("b", "d"))
    )
    assert some.data.values == {"b": b"2", "d": b"4"}
    assert (await client.update_data(token=created.token, set={"e": b"5"})).data is None
    with pytest.raises(Conflict):
        await client.update_data(
            token=created.token, set={"b": b"9"}, expected_version=written.version, return_data=True
        )


async def test_json_and_bytes_stand_side_by_side(client: Either) -> None:
    """Values go through as JSON where the caller says so, and as bytes elsewhere, in one session."""
    created = await client.create(data=json_data.encode({"cart": [{"tea": 2}], "seen": None}))
    await client.update_data(token=created.token, set={"raw": b"\x00\xff"} | json_data.encode({"name": "Käse"}))
    answer = await client.validate(created.token, data=DataRequest(keys=("cart", "seen", "name")))
    assert json_data.decode(answer.data.values) == {"cart": [{"tea": 2}], "seen": None, "name": "Käse"}
    everything = await client.get_data(token=created.token)
    assert everything.data["raw"] == b"\x00\xff"
    with pytest.raises(NotJson, match="'raw'"):
        json_data.decode(everything.data)
