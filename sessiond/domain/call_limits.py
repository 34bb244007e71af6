"""Limits on calls: how many one caller, or all callers of one application, may make. Values of the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from types import MappingProxyType

from sessiond.domain.immutable import immutable
from sessiond.domain.values import Millis

__all__ = ["CallLimit", "CallLimits"]


@immutable
class CallLimit:
    """The limit on the calls of one caller, or about one application. 0: no limit.

    max_calls  how many may be under way at once, streams included
    rate       how many may begin in a second; a batch counts as many as it has requests
    """

    max_calls: int = 0
    rate: int = 0


@immutable
class CallLimits:
    """The limits on calls.

    caller       for each caller that `callers` does not name. Without callers, each connection counts as one
    application  for each application, over all callers
    burst        how long a rate may be exceeded: as many calls may begin at once as the rate allows in this time
    callers      other limits, by the name of the caller
    """

    caller: CallLimit = CallLimit(max_calls=1_500)
    application: CallLimit = CallLimit()
    burst: Millis = Millis(1_000)
    callers: Mapping[str, CallLimit] = field(default_factory=lambda: MappingProxyType({}))

    def of_caller(self, name: str) -> CallLimit:
        """Return the limit of a caller."""
        return self.callers.get(name, self.caller)
