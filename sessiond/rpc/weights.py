"""Weights: as how many calls one call counts at the rates of its caller and its application."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from sessiond.rpc.authorization import applications_of

__all__ = ["weight_of", "weights_by_application"]

_ITEMS_PER_CALL = 10
"""An item of a list takes about a tenth of the time of a validation."""


def _requests(request: Any) -> int:
    return len(request.requests)


def _page(request: Any) -> int:
    return 1 + int(request.page_size) // _ITEMS_PER_CALL


_WEIGHTS: Mapping[str, Callable[[Any], int]] = {
    "ValidateSessions": _requests,
    "ListSessions": _page,
    "ListActivity": _page,
}
"""How to read the weight from a request, if it is not 1. Streams of validations count each request by itself."""


def weight_of(name: str, request: Any) -> int:
    """Return the weight of a request of this method, at least 1."""
    weigh = _WEIGHTS.get(name)
    return 1 if weigh is None else max(1, weigh(request))


def weights_by_application(name: str, request: Any) -> Mapping[str, int]:
    """Return for each application that a request names with what weight it counts there."""
    if name == "Check":
        return {}  # the validation that it asks for in this process is counted
    if name == "ValidateSessions":
        return Counter(item.application or "default" for item in request.requests)
    weight = weight_of(name, request)
    return dict.fromkeys(applications_of(name, request), weight)
