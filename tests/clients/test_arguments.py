"""An argument of the wrong type is refused by its name, before anything is sent, by every call alike."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from sessiond_client import (
    AsyncClient,
    Authentication,
    Client,
    ClientContext,
    DataRequest,
    EventType,
    InvalidArgument,
    Lifetimes,
    Question,
    Requirements,
    SessionState,
    Token,
    calls,
)
from sessiond_client.subscription import subscribe_request
from tests.clients.calls_of import CALLS, ending_of
from tests.clients.either import CLIENTS, Either, Kind

NOBODY = "127.0.0.1:1"
SECRET = "canary\udcff"


class Foreign:
    """A value that no argument may be. Its repr must not get out."""

    def __repr__(self) -> str:
        return SECRET


def parameters() -> list[tuple[str, str]]:
    """Each parameter of each call of a client."""
    return [
        (name, parameter)
        for name in CALLS
        for parameter in inspect.signature(getattr(Client, name)).parameters
        if parameter != "self"
    ]


@pytest.mark.parametrize(("name", "parameter"), parameters())
@pytest.mark.parametrize("kind", CLIENTS)
async def test_every_argument_of_every_call_is_checked(kind: Kind, name: str, parameter: str) -> None:
    """A value of a wrong type is an InvalidArgument that names the argument and what is wanted, never the value."""
    async with Either(kind, NOBODY) as client:
        required = {"token": "t", "subject": "ada", "purpose": "pay", "source": "*", "questions": ["t"]}
        method = inspect.signature(getattr(Client, name)).parameters
        given = {
            key: value for key, value in required.items() if key in method and method[key].default is inspect._empty
        }
        error = await ending_of(client, lambda client: getattr(client, name)(**{**given, parameter: Foreign()}))
    assert isinstance(error, InvalidArgument)
    assert [violation.field for violation in error.violations] == [parameter]
    assert error.message == f"{parameter}: {error.violations[0].description}"
    assert error.violations[0].description.startswith("must be ")
    assert error.violations[0].description.endswith(", not Foreign")
    assert (error.status, error.outcome_unknown) == ("INVALID_ARGUMENT", False)


def refused(call: Callable[[], object]) -> list[tuple[str, str]]:
    """The violations that a call is refused with."""
    with pytest.raises(InvalidArgument) as refusal:
        call()
    assert "canary" not in f"{refusal.value} {refusal.value!r} {refusal.value.violations}"
    return [(violation.field, violation.description) for violation in refusal.value.violations]


WRONG: list[tuple[Callable[[], object], str, str]] = [
    (lambda: calls.validate("a", None), "token", "must be a token (Token or str), not None"),  # type: ignore[arg-type]
    (lambda: calls.create("a", subject=None), "subject", "must be a str, not None"),  # type: ignore[arg-type]
    (lambda: calls.create("a", client={}), "client", "must be a ClientContext or None, not dict"),  # type: ignore[arg-type]
    (lambda: calls.create("a", data={"k": "v"}), "data['k']", "must be bytes, not str"),  # type: ignore[dict-item]
    (lambda: calls.create("a", data={7: b"v"}), "a key of data", "must be a str, not int"),  # type: ignore[dict-item]
    (lambda: calls.create("a", labels={"k": None}), "labels['k']", "must be a str, not None"),  # type: ignore[dict-item]
    (lambda: calls.create("a", persistent=1), "persistent", "must be True or False, not int"),  # type: ignore[arg-type]
    (lambda: calls.validate("a", "t", timeout="1"), "timeout", "must be a number or None, not str"),  # type: ignore[arg-type]
    (lambda: calls.validate("a", "t", timeout=True), "timeout", "must be a number or None, not bool"),
    (lambda: calls.validate("a", "t", timeout=math.nan), "timeout", "must be a number from 0 to 1000000000"),
    (lambda: calls.validate("a", "t", timeout=math.inf), "timeout", "must be a number from 0 to 1000000000"),
    (lambda: calls.validate("a", "t", timeout=-1), "timeout", "must be a number from 0 to 1000000000"),
    (
        lambda: calls.list_sessions("a", page_size=2**31),
        "page_size",
        "must be a whole number from -2147483648 to 2147483647",
    ),
    (
        lambda: calls.update_data("a", token="t", expected_version=-1),
        "expected_version",
        "must be a whole number from 0 to 18446744073709551615",
    ),
    (
        lambda: calls.create("a", authentication=Authentication(level=2**31)),
        "authentication.level",
        "must be a whole number from -2147483648 to 2147483647",
    ),
    (
        lambda: calls.validate("a", "t", data=DataRequest(newer_than=2**64)),
        "data.newer_than",
        "must be a whole number from 0 to 18446744073709551615",
    ),
    (
        lambda: calls.validate("a", "t", data=DataRequest(keys="cart")),  # type: ignore[arg-type]
        "data.keys",
        "must be a list or other iterable, each item a str, not str",
    ),
    (
        lambda: calls.validate("a", "t", requirements=Requirements(companion=("pay", 7))),  # type: ignore[arg-type]
        "requirements.companion[1]",
        "must be a token (Token or str) or None, not int",
    ),
    (
        lambda: calls.validate_many("a", [Question("t"), 7]),  # type: ignore[list-item]
        "questions[1]",
        "must be a Question or a token (Token or str), not int",
    ),
    (
        lambda: calls.validate_many("a", [Question(None)]),  # type: ignore[arg-type]
        "questions[0].token",
        "must be a token (Token or str), not None",
    ),
    (
        lambda: calls.create("a", lifetimes=Lifetimes(idle_timeout=60)),  # type: ignore[arg-type]
        "lifetimes.idle_timeout",
        "must be a timedelta or None, not int",
    ),
    (
        lambda: calls.create("a", lifetimes=Lifetimes(idle_timeout=timedelta.max)),
        "lifetimes.idle_timeout",
        "must be a timedelta of at most 10,000 years",
    ),
    (
        lambda: calls.list_sessions("a", created_from=datetime(2026, 1, 1)),
        "created_from",
        "must be a datetime with a time zone; this one has none",
    ),
    (
        lambda: calls.list_sessions("a", created_from=datetime.max.replace(tzinfo=timezone(timedelta(hours=-9)))),
        "created_from",
        "must be a datetime from year 1 to 9999 in UTC",
    ),
    (
        lambda: calls.list_sessions("a", state="ALIVE"),  # type: ignore[arg-type]
        "state",
        "must be a SessionState or None, not str",
    ),
    (
        lambda: subscribe_request("a", start="yesterday"),  # type: ignore[arg-type]
        "start",
        "must be 'now' or 'earliest' or None, not str",
    ),
    (
        lambda: subscribe_request("a", types=["BORN"]),  # type: ignore[list-item]
        "types[0]",
        "must be an EventType, not str",
    ),
    (
        lambda: subscribe_request("a", checkpoint_interval=math.nan),
        "checkpoint_interval",
        "must be a number from 0 to 1000000000",
    ),
    (
        lambda: calls.revoke("a"),
        "session",
        "specify exactly one of token and session_id",
    ),
]


@pytest.mark.parametrize(("call", "field", "description"), WRONG, ids=[field for _, field, _ in WRONG])
def test_what_is_wrong_is_named(call: Callable[[], object], field: str, description: str) -> None:
    """Each kind of mistake names the argument, down to the part of it, and says what would be right."""
    assert refused(call) == [(field, description)]


def test_all_wrong_arguments_are_named_at_once() -> None:
    """A call with several mistakes names each of them."""
    found = refused(lambda: calls.create("a", subject=7, evict="x", client=ClientContext(ip_address=7)))  # type: ignore[arg-type]
    assert [field for field, _ in found] == ["subject", "evict", "client.ip_address"]


STRINGS: list[Callable[[Any], object]] = [
    lambda text: calls.update_data("a", token="t", delete=text),
    lambda text: calls.get_data("a", token="t", keys=text),
    lambda text: calls.create("a", evict=text),
    lambda text: calls.authenticate("a", "t", "ada", evict=text),
    lambda text: calls.validate_many("a", text),
    lambda text: subscribe_request("a", subjects=text),
    lambda text: subscribe_request("a", applications=text),
    lambda text: subscribe_request("a", types=text),
]


@pytest.mark.parametrize("text", ["alice", b"alice", bytearray(b"alice"), {"alice": 1}, 7, None])
@pytest.mark.parametrize("call", STRINGS)
def test_one_text_is_no_list_of_its_letters(call: Callable[[Any], object], text: Any) -> None:
    """Where a list is wanted, text, bytes, mappings and single values are refused; None is fine for `applications`."""
    if call is STRINGS[6] and text is None:
        assert call(text)
        return
    ((_, description),) = refused(lambda: call(text))
    assert description.startswith("must be a list or other iterable, each item ")


def test_a_type_checker_sees_that_text_is_no_list() -> None:
    """Each line is refused by mypy too: an unused `type: ignore` is an error of the project's own check."""
    assert refused(lambda: calls.update_data("a", token="t", delete="cart"))  # type: ignore[arg-type]
    assert refused(lambda: calls.create("a", evict="cart"))  # type: ignore[arg-type]
    assert refused(lambda: calls.validate_many("a", "cart"))  # type: ignore[arg-type]
    assert refused(lambda: subscribe_request("a", subjects="alice"))  # type: ignore[arg-type]
    assert refused(lambda: Client(NOBODY).events(subjects="alice"))  # type: ignore[call-overload]


@pytest.mark.parametrize("make", [list, tuple, set, frozenset, iter, dict.fromkeys, lambda keys: (key for key in keys)])
def test_any_other_iterable_is_a_list(make: Callable[[list[str]], Any]) -> None:
    """Lists, tuples, sets, iterators, generators and a mapping's keys serve; each is read once."""
    keys = make(["a", "b"])
    keys = keys.keys() if isinstance(keys, dict) else keys
    request = calls.update_data("a", token="t", delete=keys).request
    assert sorted(request.delete) == ["a", "b"]


LONE: list[tuple[Callable[[], object], str]] = [
    (lambda: calls.create("a", subject=SECRET), "subject"),
    (lambda: calls.create("a", data={SECRET: b""}), "a key of data"),
    (lambda: calls.create("a", labels={"k": SECRET}), "labels['k']"),
    (lambda: calls.validate("a", "t", at_least=SECRET), "at_least"),
    (lambda: calls.revoke("a", session_id=SECRET), "session_id"),
    (lambda: calls.list_sessions("a", page_token=SECRET), "page_token"),
    (lambda: calls.create(SECRET), "application"),
    (lambda: subscribe_request("a", subjects=[SECRET]), "subjects[0]"),
    (lambda: subscribe_request("a", after=SECRET), "after"),
]


@pytest.mark.parametrize(("call", "field"), LONE, ids=[field for _, field in LONE])
def test_a_lone_surrogate_is_refused(call: Callable[[], object], field: str) -> None:
    """Text that UTF-8 cannot encode is refused by name, and not shown."""
    assert refused(call) == [(field, "must be a str that UTF-8 can encode; this one has a lone surrogate")]


def test_what_a_stranger_sent_is_not_refused() -> None:
    """A presented token and a client's own headers may be anything: they must not be able to break a call."""
    seen = ClientContext(ip_address=SECRET, user_agent=SECRET, device_id=SECRET)
    request = calls.validate("a", SECRET, client=seen).request
    assert (request.token, request.client.user_agent) == ("canary?", "canary?")


def test_what_fits_is_sent_as_it_is() -> None:
    """Members of enumerations may be given by name, whole numbers as floats, and the largest numbers go through."""
    named: Any = "ACTIVE"
    assert calls.list_sessions("a", state=named).request == calls.list_sessions("a", state=SessionState.ACTIVE).request
    types = subscribe_request("a", types=[EventType.SESSION_REVOKED, "SESSION_REVOKED"])  # type: ignore[list-item]
    assert len(set(types.filter.types)) == 1
    assert calls.update_data("a", token="t", expected_version=2**64 - 1).request.expected_version == 2**64 - 1
    assert calls.validate("a", Token("t"), timeout=1).timeout == 1
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    assert calls.list_sessions("a", created_from=moment).request.filter.created_from.ToDatetime(UTC) == moment


@pytest.mark.parametrize(
    ("setting", "value", "wanted"),
    [
        ("application", None, "a str"),
        ("timeout", "5", "a number"),
        ("timeout", math.nan, "a number from 0"),
        ("credentials", "/etc/ca.pem", "a ChannelCredentials or None"),
        ("safe_retries", "no", "True or False"),
        ("retries", 1.5, "a whole number"),
        ("retries", -1, "0 or more"),
        ("interceptors", 7, "a list or other iterable"),
        ("channel_options", {"a": 1}, "a list or other iterable"),
        ("channel_options", ["grpc.keepalive_time_ms"], "a tuple of 2"),
    ],
)
@pytest.mark.parametrize("kind", CLIENTS)
def test_a_clients_settings_are_checked(kind: Kind, setting: str, value: Any, wanted: str) -> None:
    """A client is not made with a setting of a wrong type; the exception names it."""
    ((field, description),) = refused(lambda: kind(NOBODY, **{setting: value}))
    assert field.startswith(setting)
    assert description.startswith(f"must be {wanted}")
    assert refused(lambda: kind(None)) == [("target", "must be a str, not None")]  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_subscription_is_checked_when_it_is_made(kind: Kind) -> None:
    """`events` refuses a wrong argument at once, not at the first event."""
    async with Either(kind, NOBODY) as client:
        assert refused(lambda: client.client.events(subjects="alice"))  # type: ignore[call-overload]
        assert refused(lambda: client.client.events(include_checkpoints="no"))  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="no_such"):
            client.client.events(no_such=1)  # type: ignore[call-overload]


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_listing_is_checked_when_it_is_made(kind: Kind) -> None:
    """`list` refuses a wrong argument at once, not at the first page."""
    async with Either(kind, NOBODY) as client:
        assert refused(lambda: client.client.list(page_size="many"))  # type: ignore[arg-type]


def test_checking_leaves_the_callers_values_alone() -> None:
    """A question that is made uniform is another one: the caller's own stays as it was."""
    question = Question("text", requirements=Requirements(csrf="text"))
    before = dataclasses.asdict(question)
    calls.validate_many("a", [question])
    assert dataclasses.asdict(question) == before


USUAL: dict[str, dict[str, Any]] = {
    "nothing more": {},
    "a Token": {"token": Token("canary")},
    "a client": {"client": ClientContext(ip_address="192.0.2.1", user_agent="x", certificate_thumbprint=b"\x01" * 32)},
    "an empty client": {"client": ClientContext()},
    "a device": {"client": ClientContext(device_id="d1")},
    "passive, with a CSRF token": {"passive": True, "with_csrf_token": True},
    "data": {"data": True},
    "a timeout": {"timeout": 3},
    "no time": {"timeout": 0.0},
}
UNUSUAL: dict[str, dict[str, Any]] = {
    "a token that is not ASCII": {"token": "tök"},
    "a surrogate": {"token": SECRET},
    "bytes": {"token": b"x"},
    "a browser that is not ASCII": {"client": ClientContext(user_agent="ö")},
    "a NUL": {"client": ClientContext(user_agent="a\0b")},
    "a wrong client": {"client": "192.0.2.1"},
    "a wrong field": {"client": ClientContext(ip_address=7)},  # type: ignore[arg-type]  # what is tested
    "requirements": {"requirements": Requirements(min_level=2)},
    "some data": {"data": DataRequest(keys=("a",))},
    "a number for data": {"data": 1},
    "a number for a flag": {"passive": 1},
    "another number for a flag": {"with_csrf_token": 0},
    "a state": {"at_least": "state"},
    "no text": {"at_least": None},
    "a negative timeout": {"timeout": -1},
    "no number": {"timeout": math.nan},
    "a timeout that is no number": {"timeout": True},
}


def usual(given: dict[str, Any]) -> Any:
    """The call of `usual_validation` for arguments of `validate`."""
    names = ("client", "passive", "at_least", "requirements", "with_csrf_token", "data", "timeout")
    defaults = {"passive": False, "at_least": "", "with_csrf_token": False}
    token = given.get("token", "text")
    return calls.usual_validation("shop", token, *(given.get(name, defaults.get(name)) for name in names))


@pytest.mark.parametrize("given", USUAL.values(), ids=USUAL)
def test_the_short_way_makes_the_same_request(given: dict[str, Any]) -> None:
    """For the usual arguments of `validate` the way without checks makes the call that the checked one makes."""
    assert usual(given) == calls.validate("shop", **({"token": "text"} | given))


@pytest.mark.parametrize("given", UNUSUAL.values(), ids=UNUSUAL)
def test_the_short_way_is_for_nothing_else(given: dict[str, Any]) -> None:
    """Whatever must be checked or changed before it is sent goes the checked way."""
    assert usual(given) is None


def test_missing_and_unknown_arguments_are_pythons_own_errors() -> None:
    """As with any function, a missing or unknown argument is a TypeError."""
    with pytest.raises(TypeError, match="token"):
        calls.validate("a")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="no_such"):
        calls.validate("a", "t", no_such=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="positional"):
        AsyncClient.list(AsyncClient(NOBODY), "extra")  # type: ignore[call-arg]
