"""Kept answers are limited in bytes, and the deletion of expired ones keeps up with new ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sessiond.domain.values import Instant
from sessiond.store.contract import Changes, Decision, KeptAnswer, Transaction
from sessiond.store.sqlite.store import SqliteStore
from tests.contracts.store import kept
from tests.support.clock import START

HOUR = 3_600_000
DAY = 24 * HOUR


def answer(number: int, expires: int = DAY, sealed: bytes = bytes(800)) -> KeptAnswer:
    """Return an answer of 1,000 bytes, its row included, that expires so long after the start."""
    return KeptAnswer(number.to_bytes(32, "big"), bytes(32), sealed, Instant(START + expires))


async def keep(store: SqliteStore, answers: Sequence[KeptAnswer], now: int = 0) -> None:
    """Commit these answers."""

    async def decide(_: Transaction) -> Decision[None]:
        return Decision(Changes(answers=list(answers), forget=Instant(START + now)), None)

    await store.write(decide)


async def numbers(store: SqliteStore, up_to: int) -> list[int]:
    """Return which of the answers are still stored."""
    found = await kept(store, *(number.to_bytes(32, "big") for number in range(up_to)))
    return sorted(int.from_bytes(key, "big") for key in found)


async def test_the_oldest_go_where_there_is_too_much(tmp_path: Path) -> None:
    """If the limit is exceeded, the answers that would expire first are deleted, and the newest are kept."""
    store = await SqliteStore.open(tmp_path / "sessiond.db", max_answer_bytes=20_000)
    try:
        for number in range(100):
            await keep(store, [answer(number, DAY + number)])
            assert store._answers.used <= 21_000
        left = await numbers(store, 100)
        assert left == list(range(100 - len(left), 100))
        assert 18 <= len(left) <= 20
    finally:
        await store.close()


async def test_what_was_kept_before_counts(tmp_path: Path) -> None:
    """The limit also applies after a restart, and a smaller limit than before takes effect."""
    path = tmp_path / "sessiond.db"
    store = await SqliteStore.open(path)
    await keep(store, [answer(number, DAY + number) for number in range(50)])
    await store.close()
    store = await SqliteStore.open(path, max_answer_bytes=20_000)
    try:
        assert store._answers.used == 50_000
        for number in range(50, 100):
            await keep(store, [answer(number, DAY + number)])
        assert store._answers.used <= 21_000
        assert 18 <= len(await numbers(store, 100)) <= 20
    finally:
        await store.close()


async def test_logins_and_used_tickets_stay(tmp_path: Path) -> None:
    """Answers that expire within minutes, and used tickets, are never deleted before they expire."""
    store = await SqliteStore.open(tmp_path / "sessiond.db", max_answer_bytes=10_000)
    try:
        await keep(store, [answer(1_000, 60_000), answer(1_001, DAY, sealed=b"")])
        for number in range(100):
            await keep(store, [answer(number, DAY + number)])
        assert [number for number in await numbers(store, 1_002) if number >= 1_000] == [1_000, 1_001]
    finally:
        await store.close()


async def test_the_expired_cannot_outrun_the_clearing(tmp_path: Path) -> None:
    """However many answers a commit stores, as many expired ones are deleted, so that the file stops growing."""
    store = await SqliteStore.open(tmp_path / "sessiond.db")
    try:
        for second in range(40):
            batch = [answer(100 * second + number, 1_000 * second + 5_000) for number in range(100)]
            await keep(store, batch, 1_000 * second)
        assert store._answers.used <= 6 * 100_000
        assert len(await numbers(store, 4_000)) <= 600
    finally:
        await store.close()
