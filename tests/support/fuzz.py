"""Shared parts of the fuzz tests: bounded, repeatable runs, and small damage to bytes and text."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

__all__ = ["bounded", "damaged_bytes", "damaged_text"]


def bounded(examples: int = 100) -> settings:
    """Return settings with the same examples on every run and no deadline, so that a busy machine fails no test."""
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


@st.composite
def damaged_bytes(draw: st.DrawFn, originals: st.SearchStrategy[bytes]) -> bytes:
    """One of the originals after one to three changes: bytes replaced, removed, inserted, repeated or cut off."""
    raw = draw(originals)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(raw)))
        until = min(len(raw), at + draw(st.integers(0, 4)))
        middle = draw(st.binary(max_size=4) | st.just(raw[at:until] * 2))
        raw = raw[:at] + middle + (b"" if draw(st.integers(0, 9)) == 0 else raw[until:])
    return raw


@st.composite
def damaged_text(draw: st.DrawFn, originals: st.SearchStrategy[str], alphabet: str = "") -> str:
    """One of the originals after one to three changes of the same kinds; new characters are mostly from `alphabet`."""
    text = draw(originals)
    characters = st.characters() | st.sampled_from(alphabet) if alphabet else st.characters()
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        until = min(len(text), at + draw(st.integers(0, 4)))
        middle = draw(st.text(characters, max_size=4) | st.just(text[at:until] * 2))
        text = text[:at] + middle + ("" if draw(st.integers(0, 9)) == 0 else text[until:])
    return text
