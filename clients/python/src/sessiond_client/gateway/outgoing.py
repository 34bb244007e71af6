"""The cookies of a response: those of the last answer that has any."""

from __future__ import annotations

__all__ = ["Outgoing"]

Headers = list[tuple[str, str]]


class Outgoing:
    """Headers that the authority wants in the response. They contain secrets."""

    def __init__(self) -> None:
        self._headers: Headers = []
        self._companions: Headers = []
        self._may_be_late = False

    def validated(self, headers: Headers) -> None:
        """Send those of a validation, unless the response begins late."""
        self._headers, self._may_be_late = headers, True

    def drop_validated(self) -> None:
        """Do not send those of a validation: a call that failed may have replaced them."""
        if self._may_be_late:
            self._headers = []

    def changed(self, headers: Headers) -> None:
        """Send those of a change instead of any earlier ones. Companion tokens belonged to the token from before."""
        if headers:
            self._headers, self._companions, self._may_be_late = headers, [], False

    def added(self, headers: Headers) -> None:
        """Send those of a companion token in addition."""
        self._companions += headers

    def headers(self, *, late: bool) -> Headers:
        """What to send. `late`: whether a newer cookie than the validation's may have reached the client by now."""
        return [*([] if late and self._may_be_late else self._headers), *self._companions]
