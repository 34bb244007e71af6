"""A secret in a wrapper that does not leak it."""

from __future__ import annotations

from typing import NoReturn, Self, final

__all__ = ["Token"]


def _encodable(value: str) -> str:
    return value.encode("utf-8", "replace").decode("utf-8")


@final
class Token:
    """A secret: a session token, a companion or CSRF token, a ticket, or a `Set-Cookie` value that holds one.

    Only `reveal` shows it: `repr`, `str`, formatting and logging show `<Token>`. It cannot be pickled, because a pickle
    is a copy that may be stored. Two tokens compare in constant time; a token never equals a `str`. A value from a
    client is untrusted input and may be anything: if it cannot be a token, the authority's verdict is MALFORMED.
    """

    __slots__ = ("__value",)

    def __init__(self, value: str | Token) -> None:
        if isinstance(value, Token):
            value = value.reveal()
        if not isinstance(value, str):
            raise TypeError("a token is text")  # does not show the value
        # A lone surrogate has no UTF-8 form, and the encoder's own error would carry the whole value into a log.
        self.__value = value if type(value) is str and value.isascii() else _encodable(value)

    def reveal(self) -> str:
        """The secret itself, to send to the client and to nobody else."""
        return self.__value

    def __repr__(self) -> str:
        return "<Token>"

    def __str__(self) -> str:
        return "<Token>"

    def __format__(self, format_spec: str) -> str:
        return format("<Token>", format_spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Token):
            return NotImplemented
        import hmac

        return hmac.compare_digest(self.__value.encode(), other.__value.encode())

    def __hash__(self) -> int:
        return hash((Token, self.__value))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a token cannot be pickled")
