"""After its own commit a process sees what it wrote, before the feed has said a word of it."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from handlers.cache import Cache
from handlers.cache_seams import Loaded
from pipeline.core.snapshot import Snapshot
from pipeline.db.cache import CacheDatabase
from pipeline.db.connection import Database
from pipeline.db.transactions import Open, Transactions
from pipeline.errors import DatabaseUnavailable, PgreflexError, QueryFailed, UsageError
from tests.conftest import eventually
from tests.flow.cache_kit import TOTAL, Clock, Counted, Feed, clock_fixture, feed_fixture, update  # noqa: F401

SET = "update orders set total = $1 where id = 1"


@pytest.fixture(name="cache")
async def cache_fixture(db: Database, clock: Clock) -> Cache:
    return Cache(prober=CacheDatabase(db), transactions=Transactions(db), clock=clock)


@pytest.fixture(name="watched")
async def watched_fixture(feed: Feed) -> Feed:
    """Orders are watched; nothing is delivered but by hand."""
    await feed.sql.execute("select pipeline.watch('orders', keys => '{id}')")
    return feed


async def total(cache: Cache, tags: str = "orders:1") -> Any:
    return (await cache.query(TOTAL, 1, tags=tags))[0]["total"]


async def test_a_read_after_the_commit_has_what_was_written(cache: Cache, watched: Feed) -> None:
    for tags in ("orders:1", "orders"):
        await total(cache, tags)
    await cache.query(TOTAL, 2, tags="orders:2")
    async with cache.transaction() as conn:
        await conn.execute(SET, 11)
    assert await total(cache) == 11
    assert await total(cache, "orders") == 11
    hits = cache.status().hits_total
    await total(cache)  # the new one is kept, before the feed has told
    await cache.query(TOTAL, 2, tags="orders:2")  # and what was not written stays
    assert cache.status().hits_total == hits + 2


async def test_the_feed_tells_of_it_later_and_drops_nothing(cache: Cache, watched: Feed) -> None:
    async with cache.transaction() as conn:
        await conn.execute(SET, 11)
        xid = await conn.fetchval("select pg_current_xact_id()::text::bigint")
    assert await total(cache) == 11
    watched.change(xid, "1")
    await watched.position()
    assert len(cache.core.fence.own) == 0
    await total(cache)
    assert cache.status().hits_total == 1


async def test_inside_it_queries_see_what_is_not_committed_and_nothing_is_kept(
    cache: Cache, watched: Feed
) -> None:
    await total(cache)
    calls = Counted("loaded")
    async with cache.transaction() as conn:
        await conn.execute(SET, 11)
        assert await total(cache) == 11
        assert await cache.get_or_load("k", calls, tags="orders:1") == "loaded"
        assert await cache.get_or_load("k", calls, tags="orders:1") == "loaded"
    assert calls.calls == 2
    assert cache.status().entries == 0  # the write dropped what was there, and inside nothing was stored


async def test_what_is_rolled_back_is_not_seen_and_holds_nothing(cache: Cache, watched: Feed) -> None:
    class Failed(Exception):
        pass

    async def fail() -> None:
        async with cache.transaction() as conn:
            await conn.execute(SET, 11)
            assert await total(cache) == 11
            raise Failed

    with pytest.raises(Failed):
        await fail()
    assert await total(cache) == 10
    assert len(cache.core.fence.own) == 0
    with pytest.raises(asyncpg.DivisionByZeroError):  # as the application's own statement raises it
        async with cache.transaction() as conn:
            await conn.execute("select 1 / 0")


async def test_a_block_inside_another_is_a_savepoint(cache: Cache, watched: Feed) -> None:
    await cache.query(TOTAL, 2, tags="orders:2")
    async with cache.transaction() as conn:

        async def fail() -> None:
            async with cache.transaction() as inner:
                assert inner is conn
                await inner.execute("update orders set total = 0")
                raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            await fail()
        async with cache.transaction() as inner:
            await inner.execute(SET, 11)
    assert await total(cache) == 11
    await cache.query(TOTAL, 2, tags="orders:2")
    assert cache.status().hits_total == 1  # order 2 was changed in the savepoint only that was rolled back


async def test_a_load_that_read_before_the_commit_is_neither_kept_nor_joined_after_it(
    cache: Cache, watched: Feed
) -> None:
    early, late = Counted(10, open_=False), Counted(11)
    reading = asyncio.ensure_future(cache.get_or_load("k", early, tags="orders:1"))
    await eventually(lambda: early.calls)
    async with cache.transaction() as conn:
        await conn.execute(SET, 11)
    after = await cache.get_or_load("k", late, tags="orders:1")
    kept = await cache.get_or_load("k", Counted(12), tags="orders:1")  # it began to read after the commit
    early.gate.set()
    assert (await reading, after, kept) == (10, 11, 11)


async def test_a_load_under_an_older_snapshot_is_not_kept_after_the_commit(
    cache: Cache, watched: Feed, dsn: str
) -> None:
    old = await asyncpg.connect(dsn)
    await old.execute("begin isolation level repeatable read")
    seen = Snapshot.parse(await old.fetchval("select pg_current_snapshot()::text"))
    async with cache.transaction() as conn:
        await conn.execute(SET, 11)
    assert await cache.get_or_load("k", Counted(Loaded(10, seen)), tags="orders:1") == 10
    assert cache.status().entries == 0
    await old.close()


@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize(
    "error", [DatabaseUnavailable("the connection was lost"), QueryFailed("nobody knows", sqlstate="40003")]
)
async def test_a_commit_whose_outcome_is_unknown_counts_as_one(
    cache: Cache, watched: Feed, monkeypatch: pytest.MonkeyPatch, committed: bool, error: PgreflexError
) -> None:
    """The connection is lost during COMMIT, and with it the answer."""
    await total(cache)

    async def commit(self: Open) -> None:
        self.ended = True
        await self.connection.execute("commit" if committed else "rollback")
        raise error

    monkeypatch.setattr(Open, "commit", commit)
    with pytest.raises(type(error)):
        async with cache.transaction() as conn:
            await conn.execute(SET, 11)
    assert await total(cache) == (11 if committed else 10)
    assert len(cache.core.fence.own) == 1  # only the feed can tell that it has ended
    await watched.position()
    assert len(cache.core.fence.own) == 0


async def test_a_commit_that_fails_for_certain_holds_nothing(cache: Cache, watched: Feed) -> None:
    async def clash() -> None:
        async with cache.transaction(isolation="serializable") as conn:
            await conn.execute("insert into orders select 9, count(*) from orders")
            async with cache._transactions.begin(isolation="serializable") as other:  # type: ignore[union-attr]
                await other.connection.execute("insert into orders select 8, count(*) from orders")
                await other.commit()

    with pytest.raises(QueryFailed):
        await clash()
    assert len(cache.core.fence.own) == 0


async def test_what_a_deferred_trigger_writes_at_the_commit_is_seen(cache: Cache, watched: Feed) -> None:
    await watched.sql.execute("create table notes (id int)")
    await watched.sql.execute(
        "create function raise_total() returns trigger language plpgsql as"
        " 'begin update orders set total = 77 where id = 1; return null; end'"
    )
    await watched.sql.execute(
        "create constraint trigger late after insert on notes deferrable initially deferred"
        " for each row execute function raise_total()"
    )
    await total(cache)
    async with cache.transaction() as conn:
        await conn.execute("insert into notes values (1)")
        assert await total(cache) == 10
    assert await total(cache) == 77


async def test_too_many_changes_to_name_drop_everything(cache: Cache, watched: Feed) -> None:
    await cache.query(TOTAL, 2, tags="other")
    async with cache.transaction() as conn:
        for _ in range(1001):
            await conn.execute(SET, 11)
    assert cache.status().entries == 0
    assert await total(cache) == 11


async def test_an_invalidation_inside_it_is_said_when_it_commits(cache: Cache, watched: Feed) -> None:
    await cache.query(TOTAL, 1, tags="t")
    async with cache.transaction() as conn:
        await conn.execute("select pipeline.invalidate(tags => '{t}')")
        await cache.invalidate(tags=["u"])
        told = "select array_agg(payload order by id) from pipeline.outbox where name = 'pipeline.invalidate'"
        assert len(await conn.fetchval(told)) == 2
        assert await watched.sql.fetchval(told) is None
    assert cache.status().entries == 0


async def test_a_transaction_of_your_own_is_seen_as_well(cache: Cache, watched: Feed) -> None:
    await total(cache)
    async with watched.sql.transaction():
        async with cache.own_writes(watched.sql):
            await watched.sql.execute(SET, 11)
            assert await total(cache) == 11
        assert await total(cache) == 10  # not committed yet, and not kept
    assert await total(cache) == 11
    await total(cache)
    assert cache.status().hits_total == 1
    assert len(cache.core.fence.own) == 1


async def test_a_load_before_the_commit_of_your_own_transaction_is_not_shared_after_it(
    cache: Cache, watched: Feed
) -> None:
    early = Counted(10, open_=False)
    async with watched.sql.transaction():
        async with cache.own_writes(watched.sql):
            await watched.sql.execute(SET, 11)
        reading = asyncio.ensure_future(cache.get_or_load("k", early, tags=None))
        await eventually(lambda: early.calls)
    after = asyncio.ensure_future(cache.get_or_load("k", Counted(11), tags="orders:1"))
    await asyncio.sleep(0)
    early.value = Loaded(10, None, ("orders:1",))
    early.gate.set()
    assert (await reading, await after) == (10, 11)


async def test_own_writes_outside_of_a_transaction_says_so(cache: Cache, watched: Feed) -> None:
    with pytest.raises(UsageError, match="not inside one transaction"):
        async with cache.own_writes(watched.sql):
            await watched.sql.execute(SET, 11)


async def test_connections_of_other_libraries_are_told_of_too(cache: Cache, watched: Feed, dsn: str) -> None:
    import psycopg

    await total(cache)
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        async with cache.own_writes(conn):
            await conn.execute("update orders set total = 11 where id = 1")
            with pytest.raises(UsageError, match="asyncpg"):
                await total(cache)
        await conn.commit()
    assert await total(cache) == 11


async def test_asking_what_was_written_stays_cheap_with_a_large_outbox(sql: asyncpg.Connection) -> None:
    fill = (
        "insert into pipeline.{} (xid, id, op, rows, at)"
        " select '5', n, 'i', 1, now() from generate_series(1, 50000) n"
    )
    for table in ("outbox_0", "outbox_1", "outbox_durable"):
        await sql.execute(fill.format(table))
    await sql.execute("select pipeline.take_over()")
    async with sql.transaction():
        await sql.execute("select pipeline.emit('x', 'y')")
        await sql.execute("load 'auto_explain'")
        await sql.execute("set local auto_explain.log_min_duration = 0")
        await sql.execute("set local auto_explain.log_nested_statements = on")
        await sql.execute("set local client_min_messages = log")
        plans: list[str] = []
        sql.add_log_listener(lambda _connection, message: plans.append(str(message)))
        await sql.fetchval("select pipeline.own_changes()")
        await sql.fetchval("select pipeline.changes_since('10:10:')")
        await asyncio.sleep(0)
    text = "\n".join(plans)
    assert text.count("Index Scan using outbox_0_xid") >= 3, text
    for index in ("outbox_1_xid", "outbox_durable_xid"):
        assert text.count(f"Index Scan using {index}") >= 3
    assert "Seq Scan on outbox" not in text
