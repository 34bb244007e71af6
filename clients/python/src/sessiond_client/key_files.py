"""Files with the key of a caller."""

from __future__ import annotations

from pathlib import Path

from sessiond_client.arguments import invalid_argument
from sessiond_client.errors import Violation
from sessiond_client.tokens import Token

__all__ = ["KEY_VARIABLE", "key_in"]

KEY_VARIABLE = "SESSIOND_KEY_FILE"
_LONGEST = 4096


def key_in(path: str | Path, field: str) -> Token:
    """Return the key in a file, whose only line it must be. `field`: what named the file.

    Raises `InvalidArgument` with field, file and remedy; it shows nothing of the text. The mode of the file is not
    checked, because orchestrators mount secrets with modes of their own.
    """
    try:
        with Path(path).open("rb") as file:
            text = file.read(_LONGEST + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no such path"
        problem = f"{path} cannot be read: {reason}; name a file that this user can read"
        raise invalid_argument(Violation(field, problem)) from None
    words = text.decode("ascii", "replace").split()
    if len(text) > _LONGEST or len(words) != 1 or not words[0].startswith("sessiond_") or not words[0].isascii():
        problem = f"{path} does not hold a key; write one line, as `sessionctl callers add` shows it"
        raise invalid_argument(Violation(field, problem))
    return Token(words[0])
