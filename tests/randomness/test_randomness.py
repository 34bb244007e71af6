"""What the authority issues is random, as far as `ent` can tell, and nothing is issued twice."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.randomness.issued import ORDERED, broken_generator, dieharder, ent, issue

pytestmark = pytest.mark.slow
TOKENS, OTHERS = 2_000, 80
SIZE = 320_000
needs_ent = pytest.mark.skipif(shutil.which("ent") is None, reason="ent is not installed: apt install ent")
needs_dieharder = pytest.mark.skipif(
    shutil.which("dieharder") is None, reason="dieharder is not installed: apt install dieharder"
)


@needs_ent
def test_what_is_issued_looks_random(tmp_path: Path) -> None:
    """Secrets, sealed tokens, CSRF and companion tokens, tickets and caller keys look random, and nothing repeats.
    They are issued over both workers of a server, before and after a restart. `make randomness` has ten times as many
    tokens. The controls are below.
    """
    for kind, parts in issue(tmp_path, TOKENS, OTHERS).items():
        assert kind in ORDERED or ent(b"".join(parts)) == [], kind


@needs_ent
def test_ent_distinguishes() -> None:
    """As controls, the system's generator passes, and a generator in which one bit in 32 is always 0 does not."""
    assert ent(os.urandom(SIZE)) == []
    assert ent(broken_generator(SIZE))
    assert ent(broken_generator(SIZE // 100))


@needs_dieharder
def test_dieharder_distinguishes() -> None:
    """As controls, the system's generator passes, and the broken one does not."""
    assert dieharder(os.urandom(SIZE)) == []
    assert dieharder(broken_generator(SIZE))
