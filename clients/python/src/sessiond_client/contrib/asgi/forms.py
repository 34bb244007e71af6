"""The CSRF token in the body of a form, which the application reads again afterwards."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol
from urllib.parse import unquote_plus

__all__ = ["Disconnected", "FormBody", "FormNotRead", "is_form"]

_URLENCODED, _MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"
_MOST_TOKEN_BYTES = 4096
"""No CSRF token is longer."""


class FormNotRead(Exception):
    """The token was asked for before the body was read."""


class Disconnected(Exception):
    """The client went away while it sent the form."""


def is_form(content_type: str) -> bool:
    """Whether a body of this type may have a CSRF token in a field."""
    return _media_type(content_type) in (_URLENCODED, _MULTIPART)


class FormBody:
    """Reads the body of a form as far as needed to find a field, and gives the application the whole body."""

    def __init__(
        self,
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        content_type: str,
        field: str,
        most_bytes: int,
    ) -> None:
        """`field`: the name of the field. `most_bytes`: how much of a body is kept in memory."""
        self._receive = receive
        self._content_type = content_type
        self._field = field
        self._most_bytes = most_bytes
        self._kept: deque[MutableMapping[str, Any]] = deque()
        self._was_read = False
        self._token: str | None = None
        self.is_too_long = False
        """Whether the field was not found in the first `most_bytes` of a longer body."""

    def token(self) -> str | None:
        """The value of the field. Raises `FormNotRead` if `read` must be called first."""
        if not self._was_read:
            raise FormNotRead
        return self._token

    async def receive(self) -> MutableMapping[str, Any]:
        """What the application calls instead of the server's `receive`: first what was read here, unchanged."""
        if self._kept:
            return self._kept.popleft()
        self._was_read = True  # what the application has read cannot be read here; a token in it is missing
        return await self._receive()

    async def read(self) -> None:
        """Read until the field is found, the body ends or too much was read. Raises `Disconnected`."""
        self._was_read = True
        search = _search(self._content_type, self._field)
        size, more = 0, True
        while more and self._token is None and not self.is_too_long:
            message = await self._receive()
            self._kept.append(message)
            if message["type"] != "http.request":
                raise Disconnected
            body, more = message.get("body", b""), message.get("more_body", False)
            size += len(body)
            self._token = search.feed(body)
            self.is_too_long = more and size >= self._most_bytes
        if self._token is None:
            self._token = search.end(cut=more)


class _Search(Protocol):
    """Looks for a field in a body that arrives in parts."""

    def feed(self, part: bytes) -> str | None:
        """Take the next part. Returns the value of the field if it is known now."""
        ...

    def end(self, *, cut: bool) -> str | None:
        """Return the value of the field after the last part. `cut`: whether the body goes on."""
        ...


def _search(content_type: str, field: str) -> _Search:
    if _media_type(content_type) == _MULTIPART:
        return _InMultipart(content_type, field)
    return _InUrlencoded(field)


class _InUrlencoded:
    def __init__(self, field: str) -> None:
        self._field = field
        self._body = bytearray()

    def feed(self, part: bytes) -> str | None:
        self._body.extend(part)
        return None

    def end(self, *, cut: bool) -> str | None:
        pairs = self._body.decode("latin-1").split("&")
        if cut:
            pairs.pop()  # perhaps the first half of it
        for pair in pairs:
            name, _, value = pair.partition("=")
            if unquote_plus(name) == self._field:
                return unquote_plus(value)
        return None


class _InMultipart:
    """The first part with this name that is not a file."""

    def __init__(self, content_type: str, field: str) -> None:
        try:
            from python_multipart import exceptions, multipart
        except ImportError:
            raise RuntimeError(
                "a CSRF token in a multipart form needs python-multipart: install sessiond-client[asgi], or send the"
                " token in the header"
            ) from None
        self._multipart, self._error = multipart, exceptions.FormParserError
        self._field = field.encode()
        self._name, self._header, self._value = bytearray(), bytearray(), bytearray()
        self._is_wanted = False
        self._found: str | None = None
        self._parser: multipart.MultipartParser | None = None
        boundary = multipart.parse_options_header(content_type)[1].get(b"boundary", b"")
        if not 0 < len(boundary) <= 70:  # RFC 2046, 5.1.1
            return
        self._parser = multipart.MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._header.extend(data[start:end]),
                "on_header_end": self._end_header,
                "on_part_data": self._take,
                "on_part_end": self._end_part,
            },
        )

    def feed(self, part: bytes) -> str | None:
        if self._parser is not None and self._found is None:
            try:
                self._parser.write(part)
            except self._error:
                self._parser = None  # the application says what is wrong with it, if it reads it at all
        return self._found

    def end(self, *, cut: bool) -> str | None:
        return self._found

    def _begin_part(self) -> None:
        self._is_wanted = False

    def _end_header(self) -> None:
        if self._name.lower() == b"content-disposition":
            _, options = self._multipart.parse_options_header(bytes(self._header))
            self._is_wanted = options.get(b"name") == self._field and b"filename" not in options
        self._name.clear()
        self._header.clear()

    def _take(self, data: bytes, start: int, end: int) -> None:
        if self._is_wanted and len(self._value) <= _MOST_TOKEN_BYTES:
            self._value.extend(data[start:end])

    def _end_part(self) -> None:
        if self._is_wanted and self._found is None:
            self._found = self._value.decode("utf-8", "replace")


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()
