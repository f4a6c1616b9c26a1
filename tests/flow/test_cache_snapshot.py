"""All reads inside snapshot() are of one database state, whether from the cache or not."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import asyncpg
import pytest

from handlers.cache import Cache
from handlers.cache_seams import Loaded
from pipeline.app.client import connect
from pipeline.core.events import Batch
from pipeline.core.snapshot import Loose, Position, Snapshot
from pipeline.db.cache import CacheDatabase
from pipeline.db.connection import Database
from pipeline.db.statements import statement
from pipeline.db.transactions import Transactions
from pipeline.errors import UsageError
from tests.conftest import eventually
from tests.flow.cache_kit import TOTAL, Clock, Counted, Feed, clock_fixture, feed_fixture, update  # noqa: F401

SWAP = "update orders set total = 30 - total where id in (1, 2)"  # the totals of 1 and 2 are always 30 together


@pytest.fixture(name="cache")
async def cache_fixture(db: Database, clock: Clock) -> Cache:
    return Cache(prober=CacheDatabase(db), transactions=Transactions(db), clock=clock)


class Told:
    """A feed by hand whose positions are of the database's history, as snapshot() asks for."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.sql = feed.sql

    async def position(self) -> None:
        text = await self.sql.fetchval("select pg_current_snapshot()::text")
        epoch = await self.sql.fetchval("select pipeline.epoch()")
        self.feed.cache.on_batch(Batch(epoch, 1, 0))
        self.feed.cache.on_position(Position.at(text, None, epoch))

    async def prove(self) -> None:
        await self.feed.cache.probe()
        await self.position()


@pytest.fixture(name="told")
async def told_fixture(feed: Feed) -> Told:
    await feed.sql.execute("select pipeline.watch('orders', keys => '{id}')")
    await feed.sql.execute("select pipeline.take_over()")
    await feed.sql.execute("select pipeline.finish_turn((select term from pipeline.leader), false)")
    told = Told(feed)
    await told.prove()
    await told.prove()
    return told


async def total(cache: Cache, order: int) -> Any:
    return (await cache.query(TOTAL, order, tags=f"orders:{order}"))[0]["total"]


async def test_what_has_not_changed_is_served_from_the_cache(cache: Cache, told: Told) -> None:
    assert (await total(cache, 1), await total(cache, 2)) == (10, 20)
    async with cache.snapshot() as seen:
        assert isinstance(seen, Snapshot)
        assert (await total(cache, 1), await total(cache, 2)) == (10, 20)
    assert cache.status().hits_total == 2


async def test_an_entry_that_lacks_a_change_the_state_has_is_not_served(cache: Cache, told: Told) -> None:
    """The change has committed, and the feed has not told of it: the cache alone would still serve the old one."""
    await total(cache, 1)
    await total(cache, 3)
    await told.sql.execute(SWAP)
    assert await total(cache, 1) == 10
    async with cache.snapshot():
        assert (await total(cache, 1), await total(cache, 2)) == (20, 10)
        hits = cache.status().hits_total
        await total(cache, 3)
        assert cache.status().hits_total == hits + 1  # what the change does not touch is served


async def test_what_changes_after_the_state_is_not_seen_even_if_others_have_loaded_it(
    cache: Cache, told: Told
) -> None:
    async with cache.snapshot():
        assert await total(cache, 1) == 10
        await told.sql.execute(SWAP)
        [now] = await asyncio.gather(outside(cache, 2))
        assert now == 10
        assert (await total(cache, 1), await total(cache, 2)) == (10, 20)
    assert await total(cache, 2) == 10


async def outside(cache: Cache, order: int) -> Any:
    """A read of another task, which is not in the block."""
    import contextvars

    return await asyncio.get_running_loop().create_task(total(cache, order), context=contextvars.Context())


async def test_what_was_read_in_a_block_is_kept_for_later(cache: Cache, told: Told) -> None:
    async with cache.snapshot():
        await total(cache, 1)
    await total(cache, 1)
    assert cache.status().hits_total == 1


async def test_what_was_read_in_a_block_is_not_kept_when_it_changed_meanwhile(cache: Cache, told: Told) -> None:
    async with cache.snapshot():
        told.feed.change(await update(told.sql, 11), "1")
        await told.position()
        assert await total(cache, 1) == 10
    assert cache.status().entries == 0
    assert await total(cache, 1) == 11


async def test_cached_functions_and_their_parts_are_of_the_state(cache: Cache, told: Told) -> None:
    @cache.cached(tags=None)
    async def both() -> Any:
        return await total(cache, 1), await total(cache, 2)

    assert await both() == (10, 20)
    await told.sql.execute(SWAP)
    async with cache.snapshot():
        await told.sql.execute(SWAP)
        assert await both() == (20, 10)
        assert await both() == (20, 10)
        assert await cache.get_or_load("sum", both, tags="sums") == (20, 10)


async def test_a_loader_that_reads_by_itself_is_refused_unless_its_value_is_of_the_state(
    cache: Cache, told: Told
) -> None:
    async def load() -> Any:
        return await told.sql.fetchval(TOTAL, 1)

    async with cache.snapshot():
        with pytest.raises(UsageError, match="reads by itself"):
            await cache.get_or_load("k", load, tags="orders:1")
    assert await cache.get_or_load("k", load, tags="orders:1") == 10
    async with cache.snapshot():
        assert await cache.get_or_load("k", load, tags="orders:1") == 10  # an entry can be placed
    await told.sql.execute(SWAP)
    async with cache.snapshot():
        with pytest.raises(UsageError, match="reads by itself"):
            await cache.get_or_load("k", load, tags="orders:1")


async def test_a_value_from_a_standby_counts_only_as_itself(cache: Cache, told: Told) -> None:
    """It may contain what the primary does not show yet."""
    seen = Loose.of(Snapshot.parse(await told.sql.fetchval("select pg_current_snapshot()::text")))
    early = Counted(Loaded([{"total": 99}], seen))
    assert await cache.get_or_load(("k",), early, tags="orders:1") == [{"total": 99}]

    async def made() -> Any:
        return await cache.get_or_load(("k",), early, tags="orders:1")

    assert await cache.get_or_load("made", made, tags=None) == [{"total": 99}]
    async with cache.snapshot():
        for key in (("k",), "made"):
            with pytest.raises(UsageError, match="reads by itself"):
                await cache.get_or_load(key, Counted(0), tags="orders:1")


async def test_after_the_feed_was_down_or_began_anew_everything_is_read(cache: Cache, told: Told) -> None:
    await total(cache, 1)
    cache.on_down("gone")
    async with cache.snapshot():
        assert await total(cache, 1) == 10
    assert cache.status().hits_total == 0
    await told.prove()
    cache.core.freshness._position = Position(10**9, 10**9, frozenset(), None, "another")
    async with cache.snapshot():
        assert await total(cache, 1) == 10
    assert cache.status().hits_total == 0


async def test_while_writers_may_write_nothing_no_entry_counts(cache: Cache, told: Told) -> None:
    await total(cache, 1)
    await told.sql.execute("select setval('pipeline.gate', 2)")
    await told.sql.execute(SWAP)
    async with cache.snapshot():
        assert (await total(cache, 1), await total(cache, 2)) == (20, 10)


TURN = "select pipeline.rotate((select term from pipeline.leader), 1, pg_current_snapshot(), 1, '0')"


async def test_a_transaction_that_was_in_progress_at_the_feeds_position_is_asked_for(
    cache: Cache, told: Told, dsn: str
) -> None:
    slow = await asyncpg.connect(dsn)
    async with slow.transaction():
        await slow.execute(SWAP)
        await told.sql.execute("select pg_current_xact_id()")  # so that the slow one is below the newest
        await told.prove()
        assert (await total(cache, 1), await total(cache, 2)) == (10, 20)
    async with cache.snapshot():
        assert (await total(cache, 1), await total(cache, 2)) == (20, 10)
    await slow.close()


async def test_what_was_truncated_and_not_delivered_counts_as_lost(cache: Cache, told: Told) -> None:
    assert (await total(cache, 1), await total(cache, 2)) == (10, 20)
    await told.sql.execute(SWAP)
    for _ in range(2):  # the tables with the change are the second to be emptied
        await told.sql.execute("select pipeline.emit('x')")  # tables in which nothing was written are not turned
        await eventually(lambda: told.sql.fetchval(TURN), why="a turn, when nobody's transaction is in the way")
        await told.sql.execute("select pipeline.turn((select term from pipeline.leader))")
        await told.sql.execute("select pipeline.finish_turn((select term from pipeline.leader), false)")
    assert await told.sql.fetchval("select count(*) from pipeline.outbox where op = 'u'") == 0
    async with cache.snapshot():
        assert (await total(cache, 1), await total(cache, 2)) == (20, 10)


async def test_the_outbox_is_not_turned_between_the_state_and_the_look(told: Told, dsn: str) -> None:
    """The lock comes before the snapshot: what commits after it is seen, and no turn can hide it."""
    await told.sql.execute("select pipeline.emit('x')")
    conn = await asyncpg.connect(dsn)
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        await conn.execute(statement("cache/hold_turn"))
        assert await told.sql.fetchval(TURN) is False
        await told.sql.execute(SWAP)
        assert await conn.fetchval(TOTAL, 1) == 20
    await eventually(lambda: told.sql.fetchval(TURN), why="a turn once the block has ended")
    await conn.close()


async def test_a_block_ends_in_time_and_says_so(cache: Cache, told: Told) -> None:
    with pytest.raises(UsageError, match="open for more than"):
        async with cache.snapshot(max_seconds=0.05):
            await asyncio.sleep(10)
    with pytest.raises(UsageError, match="open for more than"):  # in the middle of a query
        async with cache.snapshot(max_seconds=0.5):
            await cache.query("select pg_sleep(10)::text", tags="orders")
    open_ = "select count(*) from pg_stat_activity where datname = current_database() and state ~ 'in transaction'"
    await eventually(lambda: told.sql.fetchval(f"select ({open_}) = 0"), why="no transaction left open")
    assert await total(cache, 1) == 10
    left: list[Any] = []
    async with cache.snapshot():
        left.append(asyncio.ensure_future(later(cache)))
    with pytest.raises(UsageError, match="has ended"):
        await left[0]
    async with cache.transaction():
        with pytest.raises(UsageError, match="inside another"):
            async with cache.snapshot():
                pass
    assert cache.core.places == []


async def later(cache: Cache) -> Any:
    await asyncio.sleep(0.05)
    return await total(cache, 1)


async def test_pairs_are_never_torn_while_writers_run(dsn: str, sql: asyncpg.Connection) -> None:
    """Two rows that are always written together, read through real caches in two processes' worth of clients."""
    await sql.execute("create table pair (id int primary key, n int not null)")
    await sql.execute("insert into pair values (1, 0), (2, 0), (3, 0), (4, 0)")
    await sql.execute("select pipeline.watch('pair', keys => '{id}')")
    ends = time.monotonic() + 3
    rng = random.Random(7)

    async def write(first: int) -> None:
        writer = await asyncpg.connect(dsn)
        while time.monotonic() < ends:
            async with writer.transaction():
                await writer.execute("update pair set n = n + 1 where id = $1", first)
                await asyncio.sleep(rng.random() * 0.004)
                await writer.execute("update pair set n = n + 1 where id = $1", first + 1)
            await asyncio.sleep(rng.random() * 0.08)
        await writer.close()

    read = torn_outside = 0

    async def reader(cache: Cache, first: int) -> None:
        nonlocal read, torn_outside

        async def one(row: int) -> Any:
            return (await cache.query("select n from pair where id = $1", row, tags=f"pair:{row}"))[0]["n"]

        while time.monotonic() < ends:
            async with cache.snapshot():
                order = [first, first + 1]
                rng.shuffle(order)
                values = [await one(row) for row in order]
                values += await asyncio.gather(one(first), one(first + 1))
            assert len(set(values)) == 1, values
            read += 1
            before = await one(first)
            await asyncio.sleep(0.005)
            torn_outside += before != await one(first + 1)

    async with connect(dsn) as a, connect(dsn) as b:
        await eventually(lambda: a.cache.healthy().ok and b.cache.healthy().ok)
        async with asyncio.timeout(30):
            await asyncio.gather(
                *(write(first) for first in (1, 3)),
                *(reader(client.cache, first) for client in (a, b) for first in (1, 3)),
            )
        hits = a.cache.status().hits_total
    assert read > 50
    assert hits > 50
    assert torn_outside > 0  # without the block they are, so that the test can tell
