"""An authority that is copied to another store goes on there, whatever the engines."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import asyncpg
import pytest

from sessiond.config.data_folder import database_in, key_file_in, lock_of
from sessiond.config.store_address import PostgresAddress
from sessiond.copy_store import Copied, KeyFile, Progress, Stage, copy_store
from sessiond.store.contract import Changes, Decision, StoreHeld, StoreRefused, StoreUnavailable, Transaction
from sessiond.store.copying import TABLES, Identity
from sessiond.store.postgres.copying import PostgresEnd
from sessiond.store.postgres.store import PostgresStore
from tests.contracts import samples
from tests.support.clock import ManualClock
from tests.support.moving import DIRECTIONS, Held, Home, homes_of, use, verify

NOT_COPIED = {
    "sessiond_schema": "the version of the engine's own schema",
    "replicas": "the replicas of the source are not those of the destination",
    "commit_marks": "of transactions under way, and there are none",
    "sqlite_stat1": "written by a migration",
}
"""The tables that a copy leaves out, each with its reason."""
EACH_DIRECTION = pytest.mark.parametrize("engines", DIRECTIONS, ids=" to ".join)
WRITES = pytest.mark.parametrize("engines", [("sqlite", "postgres"), ("postgres", "sqlite")], ids=" to ".join)


def unheard(_: Progress) -> None:
    """Ignore the progress."""


async def copied(source: Home, destination: Home, most: int | None = None) -> Copied:
    """Copy to the end."""
    return await copy_store(source.place, destination.place, unheard, most)


async def used(home: Home, clock: ManualClock, *, sealed: bool = False) -> Held:
    """Run a server, use it, and stop it."""
    async with home.served(clock, sealed=sealed) as app:
        return await use(app, clock)


async def content(home: Home) -> dict[str, list[tuple[object, ...]]]:
    """Return all rows of the tables that are copied, read without any code of ours."""
    names = [table.name for table in TABLES] + ["incarnations", "keys"]
    if isinstance(home.place, Path):
        with closing(sqlite3.connect(database_in(home.place))) as db:
            columns = {name: sorted(row[1] for row in db.execute(f"PRAGMA table_info({name})")) for name in names}
            return {
                name: sorted(db.execute(f"SELECT {', '.join(columns[name])} FROM {name}").fetchall(), key=repr)
                for name in names
            }
    connection = await asyncpg.connect(home.place.url)
    try:
        found = {name: await connection.fetch(f"SELECT * FROM {name}") for name in names}
        return {
            name: sorted([tuple(value for _, value in sorted(row.items())) for row in rows], key=repr)
            for name, rows in found.items()
        }
    finally:
        await connection.close()


async def change(home: Home, sql: str) -> None:
    """Run a statement in the store of a home that is not served."""
    if isinstance(home.place, Path):
        with closing(sqlite3.connect(database_in(home.place), isolation_level=None)) as db:
            db.execute(sql)
        return
    connection = await asyncpg.connect(home.place.url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


@pytest.mark.parametrize("sealed", [False, True], ids=["plain", "sealed"])
@EACH_DIRECTION
async def test_an_authority_goes_on_in_another_store(
    tmp_path: Path, postgres: str, clock: ManualClock, engines: tuple[str, str], sealed: bool
) -> None:
    """Tokens, data, labels, first responses, events and positions are as good in the copy as they were."""
    source, destination = await homes_of(tmp_path, postgres, *engines)
    held = await used(source, clock, sealed=sealed)
    before = await content(source)
    done = await copied(source, destination)
    assert {counts.table: (counts.source, counts.destination) for counts in done.counts} == {
        table.name: (len(before[table.name]),) * 2 for table in TABLES
    }
    assert all(before[table.name] for table in TABLES)
    assert await content(destination) == before == await content(source)
    if done.key_file is KeyFile.NEEDED:
        destination.take_keys(source)
    async with destination.served(clock, sealed=sealed) as app:
        assert app.authority.parts.store.authority_id == done.authority_id
        await verify(app, held)


@WRITES
async def test_there_and_back_again(
    tmp_path: Path, postgres: str, clock: ManualClock, engines: tuple[str, str]
) -> None:
    """An authority that was moved and used there can be moved back to an empty store."""
    first, second, third = await homes_of(tmp_path, postgres, *engines, engines[0])
    held = await used(first, clock)
    await copied(first, second)
    second.take_keys(first)
    async with second.served(clock) as app:
        await verify(app, held)
    await copied(second, third)
    third.take_keys(first)
    assert await content(third) == await content(second)
    async with third.served(clock) as app:
        assert app.authority.parts.feed.revision == held.events[-1].revision + 1


@WRITES
async def test_retention_is_copied(tmp_path: Path, postgres: str, clock: ManualClock, engines: tuple[str, str]) -> None:
    """An ended session is deleted from the copy when its retention has passed, and not earlier."""
    source, destination = await homes_of(tmp_path, postgres, *engines)
    held = await used(source, clock)
    await copied(source, destination)
    destination.take_keys(source)
    async with destination.served(clock) as app:
        store = app.authority.parts.store
        assert await store.prunable(clock.advance(6 * 24 * 3_600_000), 10) == []
        (gone,) = await store.prunable(clock.advance(24 * 3_600_000), 10)
        assert str(gone) == held.revoked.session.session_id


@EACH_DIRECTION
async def test_a_copy_that_stops_after_any_batch_continues(
    tmp_path: Path, postgres: str, clock: ManualClock, engines: tuple[str, str]
) -> None:
    """Wherever a copy stops, its destination is refused by servers, and the next copy writes only what is missing."""
    source, destination = await homes_of(tmp_path, postgres, *engines)
    held = await used(source, clock)
    destination.take_keys(source)
    stops: set[tuple[str, str]] = set()
    copying = comparing = 0

    def stop_at(number: int) -> Callable[[Progress], None]:
        reports = iter(range(number))

        def report(progress: Progress) -> None:
            if next(reports, None) is None:
                stops.add((progress.stage, progress.table))
                raise KeyboardInterrupt

        return report

    async def attempt(number: int) -> bool:
        with suppress(KeyboardInterrupt):
            await copy_store(source.place, destination.place, stop_at(number), 2)
            return True
        await refuse_to_serve(destination, clock)
        return False

    # Each run writes one batch more, and then stops while it compares, one batch later each time.
    while ("comparing", "") not in stops:
        assert not await attempt(1)
        copying += 1
        assert copying < 100
    while not await attempt(1 + comparing + 1):
        comparing += 1
        assert comparing < 100
    assert {(stage, table.name) for stage in Stage for table in TABLES} <= stops
    assert await content(destination) == await content(source)
    async with destination.served(clock) as app:
        await verify(app, held)


async def refuse_to_serve(home: Home, clock: ManualClock) -> None:
    """Check that a server refuses an unfinished copy, and says what to do."""
    with pytest.raises(StoreRefused, match=r"unfinished copy .* Run the same `sessionctl store copy` again"):
        async with home.served(clock):
            pass


@WRITES
async def test_a_copy_that_is_cancelled_anywhere_continues(
    tmp_path: Path, postgres: str, clock: ManualClock, engines: tuple[str, str]
) -> None:
    """A copy may be interrupted at any await: nothing is written twice, and nothing is missing in the end."""
    source, destination = await homes_of(tmp_path, postgres, *engines)
    await used(source, clock)
    destination.take_keys(source)
    interrupted: list[Stage] = []
    for moment in range(50):
        began = asyncio.Event()
        stages: list[Stage] = []

        def report(progress: Progress, began: asyncio.Event = began, stages: list[Stage] = stages) -> None:
            stages.append(progress.stage)
            began.set()

        task = asyncio.create_task(copy_store(source.place, destination.place, report, 1))
        waiting = asyncio.create_task(began.wait())
        await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(moment / 5000)  # not for anything to happen: each run is cancelled a little later
        task.cancel()
        waiting.cancel()
        # The commit of the run before may still be under way in the database: then it is taken for another copy.
        with suppress(asyncio.CancelledError, StoreHeld):
            await task
        interrupted += stages[-1:]
    assert interrupted.count(Stage.COPYING) >= 5
    await copied(source, destination)
    assert await content(destination) == await content(source)


# What is refused


@EACH_DIRECTION
async def test_a_source_in_use_is_refused(
    tmp_path: Path, postgres: str, clock: ManualClock, engines: tuple[str, str]
) -> None:
    """While a server uses the source nothing is copied, and the error names who uses it."""
    source, destination = await homes_of(tmp_path, postgres, *engines)
    async with source.served(clock) as app:
        await use(app, clock)
        with pytest.raises(StoreHeld, match=rf"is in use by .*{os.getpid()}"):
            await copied(source, destination)
    if isinstance(destination.place, Path):
        assert not destination.data.exists()
    await copied(source, destination)


async def test_a_replica_without_a_lease_waits_for_the_copy(tmp_path: Path, postgres: str, clock: ManualClock) -> None:
    """A replica that was suspended until its lease was over cannot write before the copy has ended."""
    (source,) = await homes_of(tmp_path, postgres, "postgres")
    await used(source, clock)
    assert isinstance(source.place, PostgresAddress)
    replica, other = await PostgresStore.open(source.place), await asyncpg.connect(source.place.url)
    try:
        await other.execute("UPDATE replicas SET lease_until = clock_timestamp()")

        async def decide(_: Transaction) -> Decision[None]:
            return Decision(Changes(sessions={(one := samples.session()).id: one}), None)

        end = await PostgresEnd.open_source(source.place)
        try:
            before = await end.count(TABLES[0])
            write = asyncio.create_task(replica.write(decide))
            while not await other.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                assert not write.done()
            assert await end.count(TABLES[0]) == before
        finally:
            await end.close()
        await write
    finally:
        await other.close()
        await replica.close()


async def test_a_store_that_something_writes_to_is_refused(tmp_path: Path, postgres: str, clock: ManualClock) -> None:
    """A source is in use if a transaction that writes to it does not end."""
    (source,) = await homes_of(tmp_path, postgres, "postgres")
    await used(source, clock)
    assert isinstance(source.place, PostgresAddress)
    other = await asyncpg.connect(source.place.url)
    try:
        async with other.transaction():
            await other.execute("UPDATE log_head SET revision = revision")
            with pytest.raises(StoreHeld, match="something writes to it"):
                await PostgresEnd.open_source(source.place)
    finally:
        await other.close()


@EACH_DIRECTION
async def test_a_destination_of_another_authority_is_refused(
    tmp_path: Path, postgres: str, clock: ManualClock, engines: tuple[str, str]
) -> None:
    """A store that another authority has used is left as it is."""
    source, destination = await homes_of(tmp_path, postgres, *engines)
    await used(source, clock)
    destination.take_keys(source)
    await used(destination, clock)
    before = await content(destination)
    with pytest.raises(StoreRefused, match="not empty: it belongs to another authority"):
        await copied(source, destination)
    assert await content(destination) == before


@EACH_DIRECTION
async def test_a_destination_that_has_been_served_is_refused(
    tmp_path: Path, postgres: str, clock: ManualClock, engines: tuple[str, str]
) -> None:
    """A complete copy is compared again, until a server has used it: then it is left as it is."""
    source, destination = await homes_of(tmp_path, postgres, *engines)
    held = await used(source, clock)
    first = await copied(source, destination)
    again = await copied(source, destination)
    assert again.counts == first.counts
    destination.take_keys(source)
    async with destination.served(clock) as app:
        await verify(app, held)
    before = await content(destination)
    with pytest.raises(StoreRefused, match="one of the two has been used since"):
        await copied(source, destination)
    assert await content(destination) == before


@EACH_DIRECTION
async def test_a_source_that_was_used_in_between_is_refused(
    tmp_path: Path, postgres: str, clock: ManualClock, engines: tuple[str, str]
) -> None:
    """A copy is not continued if a server has used the source since: it would be of two states."""
    source, destination = await homes_of(tmp_path, postgres, *engines)
    await used(source, clock)
    reports: list[Progress] = []

    def report(progress: Progress) -> None:
        reports.append(progress)
        if len(reports) == 3:
            raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        await copy_store(source.place, destination.place, report, 2)
    async with source.served(clock):
        pass
    with pytest.raises(StoreRefused, match=r"has been used since the copy .* began"):
        await copied(source, destination)


@WRITES
@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE sessions SET last_active = last_active + 1 WHERE subject = 'ada' AND ended_at IS NULL",
        "DELETE FROM events WHERE revision = 2",
        "DELETE FROM answers",
        "UPDATE session_data SET sealed = 1 WHERE key = 'cart'",
        "INSERT INTO session_labels SELECT log, session_id, 'zzz', value, application FROM session_labels "
        "WHERE key = 'device'",
    ],
)
async def test_a_copy_that_differs_is_found(
    tmp_path: Path, postgres: str, clock: ManualClock, engines: tuple[str, str], damage: str
) -> None:
    """A changed, a missing and a surplus row of the copy are each reported, with the table."""
    source, destination = await homes_of(tmp_path, postgres, *engines)
    await used(source, clock)
    await copied(source, destination)
    await change(destination, damage)
    (table,) = [name for name in re.findall(r"\w+", damage) if name in {table.name for table in TABLES}][:1]
    with pytest.raises(StoreRefused, match=f"the rows of `{table}` in .* differ"):
        await copied(source, destination)


async def test_a_row_that_changes_while_it_is_copied_is_found(
    tmp_path: Path, postgres: str, clock: ManualClock
) -> None:
    """A copy whose destination something else changes meanwhile stays unfinished."""
    source, destination = await homes_of(tmp_path, postgres, "sqlite", "postgres")
    await used(source, clock)
    with pytest.raises(KeyboardInterrupt):
        await copy_store(source.place, destination.place, _interrupt_comparing)
    await change(destination, "UPDATE events SET at = at + 1 WHERE revision = 1")
    with pytest.raises(StoreRefused, match="the rows of `events`"):
        await copied(source, destination)
    destination.take_keys(source)
    await refuse_to_serve(destination, clock)


def _interrupt_comparing(progress: Progress) -> None:
    if progress.stage is Stage.COMPARING:
        raise KeyboardInterrupt


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
async def test_an_unfinished_copy_is_no_source(tmp_path: Path, postgres: str, clock: ManualClock, engine: str) -> None:
    """What is not complete cannot be copied further."""
    source, half, destination = await homes_of(tmp_path, postgres, "sqlite", engine, "sqlite")
    await used(source, clock)
    with pytest.raises(KeyboardInterrupt):
        await copy_store(source.place, half.place, _interrupt_comparing)
    half.take_keys(source)
    with pytest.raises(StoreRefused, match="unfinished copy"):
        await copied(half, destination)
    assert not destination.data.exists()


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
async def test_nothing_is_no_source(tmp_path: Path, postgres: str, engine: str) -> None:
    """A folder or a database without a store is refused, and nothing is created in either place."""
    source, destination = await homes_of(tmp_path, postgres, engine, "sqlite")
    with pytest.raises(StoreRefused, match=r"has no (database|sessiond store)"):
        await copied(source, destination)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("engine", "damage", "says"),
    [
        ("sqlite", "PRAGMA user_version = 4", "start `sessiond serve` on it once"),
        ("sqlite", "PRAGMA user_version = 999", "Run the newer sessiond"),
        ("postgres", "UPDATE sessiond_schema SET version = 999", "Run the newer sessiond"),
    ],
)
async def test_a_source_of_another_version_is_refused(
    tmp_path: Path, postgres: str, clock: ManualClock, engine: str, damage: str, says: str
) -> None:
    """Only a source with this version's schema is copied; the error says what to do first."""
    source, destination = await homes_of(tmp_path, postgres, engine, "sqlite")
    await used(source, clock)
    await change(source, damage)
    with pytest.raises(StoreRefused, match=says):
        await copied(source, destination)
    assert not destination.data.exists()


async def test_a_database_of_another_program_is_no_destination(
    tmp_path: Path, postgres: str, clock: ManualClock
) -> None:
    """A database that has a table `sessions` of its own is left as it is."""
    source, destination = await homes_of(tmp_path, postgres, "sqlite", "postgres")
    await used(source, clock)
    await change(destination, "CREATE TABLE sessions (theirs INT)")
    with pytest.raises(StoreRefused, match="of another program"):
        await copied(source, destination)


async def test_one_database_under_two_names_is_refused(tmp_path: Path, postgres: str, clock: ManualClock) -> None:
    """Source and destination must differ, however they are written."""
    (source,) = await homes_of(tmp_path, postgres, "postgres")
    await used(source, clock)
    assert isinstance(source.place, PostgresAddress)
    other = Home(tmp_path / "other", PostgresAddress(source.place.url.replace("127.0.0.1", "localhost")))
    with pytest.raises(StoreRefused, match="are the same store"):
        await copied(source, other)


async def test_two_copies_to_one_database(tmp_path: Path, postgres: str, clock: ManualClock) -> None:
    """Of two copies to one database at the same time at least one ends well, and the other is refused or also does."""
    one, two, destination = await homes_of(tmp_path, postgres, "sqlite", "sqlite", "postgres")
    await used(one, clock)
    await copied(one, two)
    results = await asyncio.gather(copied(one, destination, 1), copied(two, destination, 1), return_exceptions=True)
    assert any(isinstance(result, Copied) for result in results)
    assert all(isinstance(result, Copied | StoreHeld | StoreRefused) for result in results)
    assert await content(destination) == await content(one)


async def test_a_database_that_does_not_respond(tmp_path: Path, clock: ManualClock) -> None:
    """A database that nobody runs is reported as that, without the password."""
    address = PostgresAddress("postgres://sessiond:secret@127.0.0.1:1/x")
    with pytest.raises(StoreUnavailable, match=r"postgres://127.0.0.1:1/x does not respond") as caught:
        await copied(Home(tmp_path, address), Home(tmp_path, tmp_path / "data"))
    assert "secret" not in str(caught.value)
    assert os.listdir(tmp_path) == []


@WRITES
async def test_a_copy_whose_database_goes_away_continues(
    tmp_path: Path, postgres: str, clock: ManualClock, engines: tuple[str, str]
) -> None:
    """A lost connection ends the copy with an error, and the next copy completes it."""
    source, destination = await homes_of(tmp_path, postgres, *engines)
    await used(source, clock)
    database = next(home.place for home in (source, destination) if isinstance(home.place, PostgresAddress))
    other, began = await asyncpg.connect(database.url), asyncio.Event()
    try:
        copy = asyncio.create_task(copy_store(source.place, destination.place, lambda _: began.set(), 1))
        await began.wait()
        await other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        with pytest.raises(StoreUnavailable, match="does not respond"):
            await copy
    finally:
        await other.close()
    await copied(source, destination)
    assert await content(destination) == await content(source)


async def test_a_text_that_postgres_cannot_hold_is_refused(tmp_path: Path, postgres: str, clock: ManualClock) -> None:
    """U+0000, which sessiond accepted before it had a Postgres store, is reported with the table and the remedy."""
    source, destination = await homes_of(tmp_path, postgres, "sqlite", "postgres")
    await used(source, clock)
    await change(source, "UPDATE events SET device_id = char(0) WHERE revision = 3")
    with pytest.raises(StoreRefused, match=r"`events` contains the character U\+0000"):
        await copied(source, destination)


# Key files


async def test_the_key_file_is_copied_between_folders(tmp_path: Path, postgres: str, clock: ManualClock) -> None:
    """A destination folder without a key file gets a copy that only its owner can read."""
    source, destination = await homes_of(tmp_path, postgres, "sqlite", "sqlite")
    await used(source, clock)
    assert (await copied(source, destination)).key_file is KeyFile.COPIED
    path = key_file_in(destination.data)
    assert path.read_bytes() == key_file_in(source.data).read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    assert (await copied(source, destination)).key_file is KeyFile.PRESENT


async def test_a_wrong_key_file_is_refused(tmp_path: Path, postgres: str, clock: ManualClock) -> None:
    """If the destination's key file cannot open the source's tokens, nothing is copied."""
    source, destination = await homes_of(tmp_path, postgres, "postgres", "sqlite")
    await used(source, clock)
    destination.data.mkdir(parents=True, mode=0o700)
    path = key_file_in(destination.data)
    path.write_text(os.urandom(64).hex() + "\n")
    path.chmod(0o600)
    with pytest.raises(StoreRefused, match=r"does not contain the key that postgres://.* was last written with"):
        await copied(source, destination)


async def test_a_source_without_its_key_file_is_refused(tmp_path: Path, postgres: str, clock: ManualClock) -> None:
    """Without the keys no token would be valid in the copy, so the key file must be there."""
    source, destination = await homes_of(tmp_path, postgres, "sqlite", "postgres")
    await used(source, clock)
    key_file_in(source.data).unlink()
    with pytest.raises(StoreRefused, match=r"key file .* is missing"):
        await copied(source, destination)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
@pytest.mark.parametrize("stage", list(Stage))
async def test_root_leaves_no_files_of_its_own(tmp_path: Path, postgres: str, clock: ManualClock, stage: Stage) -> None:
    """What root creates in a data folder belongs to the folder's owner, whose server must be able to open it."""
    source, destination = await homes_of(tmp_path, postgres, "sqlite", "sqlite")
    await used(source, clock)
    lock_of(database_in(source.data)).unlink()
    destination.data.mkdir(parents=True, mode=0o700)
    for folder in (source.data, destination.data):
        os.chown(folder, 65534, 65534)

    def report(progress: Progress) -> None:
        found = [path for path in destination.data.iterdir() if path.suffix != ".key"]
        if progress.stage is stage and len(found) > 2:
            assert {path.stat().st_uid for path in found} == {65534}

    await copy_store(source.place, destination.place, report)
    owners = {path.name: path.stat().st_uid for path in destination.data.iterdir()}
    assert owners == dict.fromkeys(("sessiond.db", "sessiond.db.lock", "sessiond.key"), 65534)
    assert lock_of(database_in(source.data)).stat().st_uid == 65534


# The tables


async def test_every_table_is_copied_or_left_out_for_a_reason(
    tmp_path: Path, postgres: str, clock: ManualClock
) -> None:
    """Both engines have the same tables to copy, with the same columns and the primary keys that the copy assumes."""
    lite, pg = await homes_of(tmp_path, postgres, "sqlite", "postgres")
    for home in (lite, pg):
        await used(home, clock)
    assert isinstance(lite.place, Path)
    with closing(sqlite3.connect(database_in(lite.place))) as db:
        names = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        sqlite = {name: {row[1] for row in db.execute(f"PRAGMA table_info({name})")} for name in names}
        for table in TABLES:
            info = db.execute(f"PRAGMA table_info({table.name})").fetchall()
            assert tuple(row[1] for row in sorted(info, key=lambda row: row[5]) if row[5]) == table.key
    assert isinstance(pg.place, PostgresAddress)
    connection = await asyncpg.connect(pg.place.url)
    try:
        rows = await connection.fetch(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
        )
    finally:
        await connection.close()
    theirs = {name: {row["column_name"] for row in rows if row["table_name"] == name} for name, _ in rows}
    copied_as_rows = {table.name for table in TABLES}
    identity = {
        "log_head": Identity.HEAD_COLUMNS,
        "incarnations": Identity.INCARNATION_COLUMNS,
        "keys": Identity.KEY_COLUMNS,
    }
    assert (sqlite.keys() | theirs.keys()) - NOT_COPIED.keys() == copied_as_rows | identity.keys()
    assert all(sqlite[name] == theirs[name] for name in copied_as_rows)
    assert all(set(columns) == sqlite[name] <= theirs[name] for name, columns in identity.items())


async def test_a_store_that_was_begun_is_an_ordinary_one(tmp_path: Path, clock: ManualClock, postgres: str) -> None:
    """The schema of a finished copy is that of a store that a server created."""
    source, destination, other = await homes_of(tmp_path, postgres, "sqlite", "sqlite", "sqlite")
    await used(source, clock)
    await copied(source, destination)
    async with other.served(clock):
        pass

    def schema(home: Home) -> list[tuple[object, ...]]:
        assert isinstance(home.place, Path)
        with closing(sqlite3.connect(database_in(home.place))) as db:
            found = db.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY name").fetchall()
            for pragma in ("application_id", "user_version", "auto_vacuum", "journal_mode"):
                found += db.execute(f"PRAGMA {pragma}").fetchall()
            return found + db.execute("SELECT * FROM sqlite_stat1 ORDER BY 1, 2").fetchall()

    assert schema(destination) == schema(other)
