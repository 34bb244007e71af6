"""The secret a client presents, in a wrapping that does not leak."""

from __future__ import annotations

from typing import NoReturn, Self, final

__all__ = ["Token"]


@final
class Token:
    """A secret of a session. It shows itself to nobody who does not ask: see `reveal`.

    The session's token above all; also companion and CSRF tokens, tickets, and Set-Cookie headers that hold one.
    `repr`, `str`, formatting, logging and JSON all give nothing away; pickling is refused, because a pickle is a
    copy that somebody keeps. Two tokens compare in constant time. A value that was read from a client is untrusted
    input and may be anything: what cannot be a token is still wrapped, and the authority calls it MALFORMED.
    """

    __slots__ = ("__value",)

    def __init__(self, value: str | Token) -> None:
        if isinstance(value, Token):
            value = value.reveal()
        if not isinstance(value, str):
            raise TypeError("a token is text")  # says nothing of the value, whatever it was
        # A lone surrogate has no UTF-8 form: the encoder's own error would carry the whole value to a log.
        self.__value = value.encode("utf-8", "replace").decode("utf-8")

    def reveal(self) -> str:
        """The secret itself: for the client, and for nothing and nobody else."""
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
