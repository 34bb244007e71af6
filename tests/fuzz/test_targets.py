"""Each fuzzing target stands its corpus, damaged versions of it, and arbitrary bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.targets import CORPUS, LONGEST_SEED, TARGETS, seeds_of
from tests.support.fuzz import bounded, damaged_bytes

MOST_KEPT = 100


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus(name: str) -> None:
    """Every input that once reached new code, or was wrongly handled, is handled as the target says."""
    for raw in seeds_of(name):
        TARGETS[name].run(raw)


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_inputs(name: str) -> None:
    """Damaged inputs and arbitrary bytes are refused in the way of the target, and nothing else is raised."""
    target = TARGETS[name]

    @bounded(60 if target.slow else 300)
    @given(damaged_bytes(st.sampled_from(seeds_of(name))) | st.binary(max_size=80) | st.text().map(str.encode))
    def check(raw: bytes) -> None:
        target.run(raw)

    check()


def test_the_corpus_is_small() -> None:
    """The corpus has at most a hundred inputs for each target, each of at most 4 KB, and none for other targets."""
    folders = [path for path in CORPUS.iterdir() if path.is_dir()]
    assert {path.name for path in folders} <= set(TARGETS)
    for folder in folders:
        kept = list(folder.iterdir())
        assert len(kept) <= MOST_KEPT
        assert all(path.stat().st_size <= LONGEST_SEED for path in kept)
