"""JSON as session data: what goes in comes out, and what is not JSON is refused by key."""

from __future__ import annotations

import traceback
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond_client import NotJson, Token, json_data

TEXT = st.text(st.characters(codec="utf-8"))  # a lone surrogate has no UTF-8 form
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
CANARY = "canary-7d1f"


def circle() -> list[Any]:
    """A list that contains itself."""
    ring: list[Any] = [CANARY]
    ring.append(ring)
    return ring


def deep() -> list[Any]:
    """Lists inside lists, deeper than anything that is worth reading."""
    nested: list[Any] = []
    for _ in range(200_000):
        nested = [nested]
    return nested


@given(st.dictionaries(TEXT, VALUES, max_size=4))
def test_what_goes_in_comes_out(values: dict[str, Any]) -> None:
    """Every value that JSON can express is the same after encoding and decoding, and stays under its key."""
    assert json_data.decode(json_data.encode(values)) == values


def test_it_is_plain_json_for_other_languages() -> None:
    """The bytes are compact JSON in UTF-8, without escapes for what is not ASCII."""
    encoded = json_data.encode({"cart": [{"tea": 1}, "Käse"], "n": None})
    assert encoded == {"cart": '[{"tea":1},"Käse"]'.encode(), "n": b"null"}
    assert json_data.decode({"a": b' [1, "\\u00e4"] '}) == {"a": [1, "ä"]}


@pytest.mark.parametrize(
    "value",
    [
        Token(CANARY),
        {CANARY},
        CANARY.encode(),
        [CANARY, object()],
        {b"k": CANARY},
        float("nan"),
        [CANARY, float("inf")],
        CANARY + "\ud800",
        circle(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_json_cannot_express_is_refused_by_key(value: Any) -> None:
    """The error names the key and the kind of value; neither it nor what led to it shows the value."""
    with pytest.raises(NotJson) as refusal:
        json_data.encode({"fine": 1, "cart": value})
    error = refusal.value
    assert error.key == "cart"
    assert "'cart'" in str(error)
    assert type(value).__name__ in str(error)
    assert CANARY not in f"{error} {error!r} {''.join(traceback.format_exception(error))}"
    assert (error.__cause__, error.__context__) == (None, None)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        CANARY.encode(),
        b'"' + CANARY.encode(),
        b'{"a": 1} ' + CANARY.encode(),
        b"\xff" + CANARY.encode(),
        b"NaN",
        b"[-Infinity]",
        "\ufeff1".encode(),
    ],
    ids=repr,
)
def test_what_is_not_json_is_refused_by_key(value: bytes) -> None:
    """The error names the key; neither it nor what led to it shows the bytes."""
    with pytest.raises(NotJson) as refusal:
        json_data.decode({"fine": b"1", "cart": value})
    error = refusal.value
    assert error.key == "cart"
    assert "'cart'" in str(error)
    assert CANARY not in f"{error} {error!r} {''.join(traceback.format_exception(error))}"
    assert (error.__cause__, error.__context__) == (None, None)


def test_what_is_too_deep_is_refused_too() -> None:
    """Data that would exhaust the stack is refused as any other, in both directions."""
    with pytest.raises(NotJson):
        json_data.encode({"cart": deep()})
    with pytest.raises(NotJson):
        json_data.decode({"cart": b"[" * 200_000 + b"]" * 200_000})


def test_it_is_a_value_error() -> None:
    """A caller that knows nothing of sessiond finds it where the standard library's own error would be."""
    assert issubclass(NotJson, ValueError)
