"""JSON as session data: turns values into the bytes that sessiond stores, and back.

Session data is bytes. These two functions work with every call that takes or returns data, of both clients:

    client.update_data(token=token, set=json_data.encode({"cart": [1, 2]}))
    answer = client.validate(token, data=True)
    cart = json_data.decode(answer.data.values)["cart"]

They are functions and not a mode of the client, so one session may have both kinds of data (decode only the keys that
you wrote as JSON), and no call has a second, untyped form.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

__all__ = ["NotJson", "decode", "decode_one", "encode", "encode_one"]


class NotJson(ValueError):
    """A value that cannot be written as JSON, or bytes that are not JSON. Names the key and never shows the value."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"session data {key!r} {problem}")
        self.key = key
        self._problem = problem

    def __reduce__(self) -> tuple[type[NotJson], tuple[str, str]]:
        return NotJson, (self.key, self._problem)


def encode(values: Mapping[str, Any]) -> dict[str, bytes]:
    """Write each value as compact JSON in UTF-8.

    Accepts what `json.dumps` accepts, except NaN, the infinities and lone surrogates, which JSON cannot express. As
    with `json`, tuples come back as lists, and the keys of inner dictionaries as text. Raises `NotJson`.
    """
    result = _each(values, _encoded)
    del values  # the frame is part of the traceback
    if isinstance(result, NotJson):
        raise result
    return result


def decode(values: Mapping[str, bytes]) -> dict[str, Any]:
    """Read each value as JSON. Raises `NotJson` if one is not JSON."""
    result = _each(values, _decoded)
    del values
    if isinstance(result, NotJson):
        raise result
    return result


def encode_one(key: str, value: Any) -> bytes:
    """Write one value as `encode` does. Raises `NotJson`, which names the key."""
    result = _encoded(key, value)
    del value
    if isinstance(result, NotJson):
        raise result
    return result


def decode_one(key: str, data: bytes) -> Any:
    """Read one value as `decode` does. Raises `NotJson`, which names the key."""
    result = _decoded(key, data)
    del data
    if isinstance(result, NotJson):
        raise result
    return result


# The functions below return an exception instead of raising it, and create it after the `except` block has ended. The
# json module's errors hold the whole document, and each frame a value: a crash reporter would send them with the
# traceback.


def _each(values: Mapping[str, Any], turn: Callable[[str, Any], Any]) -> dict[str, Any] | NotJson:
    turned: dict[str, Any] = {}
    for key, value in values.items():
        turned[key] = turn(key, value)
        if isinstance(turned[key], NotJson):
            failed: NotJson = turned[key]
            return failed
    return turned


def _encoded(key: str, value: Any) -> bytes | NotJson:
    try:
        return _ENCODER.encode(value).encode()
    except (TypeError, ValueError, RecursionError):
        pass
    return NotJson(key, f"cannot be written as JSON: JSON cannot express all of this {type(value).__name__}")


def _decoded(key: str, value: bytes) -> Any:
    try:
        return _DECODER.decode(value.decode())
    except (ValueError, RecursionError):
        pass
    return NotJson(key, "is not JSON; was it written as plain bytes?")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)  # NaN and the infinities, which Python would read though they are not JSON


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_DECODER = json.JSONDecoder(parse_constant=_refuse)
"""Made once: `json.dumps` and `json.loads` would make one for each value."""
