"""Names that resemble a misspelt one."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

__all__ = ["must_be_one_of", "nearest"]

_SIMILAR = 0.6
_MOST_COMPARED = 64  # characters; comparing takes time that grows with the square of the length


def nearest(name: str, names: Collection[str], *, similarity: float = _SIMILAR) -> str:
    """Return the name that resembles `name` most, or an empty string if none does.

    Case is ignored, and so is the difference between `-` and `_`. `similarity` is from 0 (nothing in common) to 1. A
    name that is more than twice as long must begin with `name`: `lock` may mean `lock_after`, but `port` not
    `transport`.
    """
    asked = name[:_MOST_COMPARED].lower().replace("-", "_")
    plain = {candidate.lower().replace("-", "_"): candidate for candidate in names}
    plain = {key: candidate for key, candidate in plain.items() if len(key) <= 2 * len(asked) or key.startswith(asked)}
    found = get_close_matches(asked, plain, 1, similarity)
    return plain[found[0]] if found else ""


def must_be_one_of(choices: Collection[str], value: object) -> str:
    """Return the remedy for a value that is none of the choices, with the one that resembles it if there is one."""
    remedy = "must be one of " + ", ".join(f'"{choice}"' for choice in choices)
    close = nearest(value, choices) if isinstance(value, str) else ""
    return f'{remedy}; did you mean "{close}"?' if close else remedy
