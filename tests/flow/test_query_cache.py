"""Queries whose tags find themselves, through the cache: with the whole feed, and with one that is driven by
hand.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

import pipeline
from handlers.cache import Cache
from pipeline.app import Client
from pipeline.core.events import Batch, Event
from pipeline.core.query_plan import DDL
from pipeline.core.snapshot import Snapshot
from pipeline.db.cache import CacheDatabase
from pipeline.db.connection import Database
from pipeline.db.query_tags import QueryAnalyst
from pipeline.errors import NotCacheable, QueryFailed
from tests.conftest import eventually
from tests.flow.cache_kit import Clock, Feed, clock_fixture, feed_fixture  # noqa: F401

SHOP = """
    create table orders (id int primary key, customer_id int, total int);
    create table item (order_id int, name text);
    create table sale (region text, n int) partition by list (region);
    create table sale_eu partition of sale for values in ('eu');
    create view big as select id, total from orders where total >= 20;
    create function items(int) returns bigint language sql stable as 'select count(*) from item where order_id =
    $1'; insert into orders select n, n % 2, 10 * n from generate_series(1, 3) n; insert into item values (1,
    'cup'), (2, 'pen'); insert into sale values ('eu', 1); select pipeline.watch('orders'),
    pipeline.watch('item', keys => '{order_id}'), pipeline.watch('sale');
"""
# a query, a change of the world, and whether the query's rows have to be loaded again because of it
FOLLOWED = [
    ("select total from orders where id = 1", "update orders set total = 11 where id = 1", True),
    ("select total from orders where id = 1", "update orders set total = 21 where id = 2", False),
    ("select total from orders where id = 1", "update orders set id = 9 where id = 1", True),
    (
        "select sum(total) from orders where customer_id = 1",
        "update orders set customer_id = 1 where id = 2",
        True,
    ),
    ("select * from big", "insert into orders values (7, 1, 99)", True),
    ("select * from big where id = 3", "insert into orders values (8, 1, 99)", False),
    ("with o as (select * from orders) select count(*) from o", "delete from orders where id = 2", True),
    ("select 1 where exists (select from item where order_id = 2)", "truncate item", True),
    ("select items(2)", "insert into item values (2, 'ink')", True),
    ("select sum(n) from sale", "insert into sale_eu values ('eu', 5)", True),
    ("select sum(n) from sale_eu", "insert into sale values ('eu', 6)", True),
    ("select count(*) from sale", "alter table sale detach partition sale_eu", True),
    ("select * from orders", "alter table orders add column note text", True),
    ("select * from big", "create or replace view big as select id, total from orders where total >= 30", True),
    (
        "select items(1)",
        "create or replace function items(int) returns bigint language sql stable as 'select 5'",
        True,
    ),
    ("select count(*) from orders", "create temp table orders_copy as select * from orders", False),
]


@pytest.fixture(name="client")
async def client_fixture(dsn: str, sql: asyncpg.Connection) -> AsyncIterator[Client]:
    await sql.execute(SHOP)
    async with pipeline.connect(dsn, max_staleness=5.0) as client:
        await eventually(lambda: client.cache.healthy().ok)
        yield client


async def test_every_change_of_what_a_query_reads_is_followed_and_no_other(
    client: Client, sql: asyncpg.Connection
) -> None:
    """In the order of the list, each on what the ones before have left."""
    cache, marks = client.cache, 0

    async def delivered() -> None:
        nonlocal marks
        marks += 1
        tag = f"mark:{marks}"
        await cache.get_or_load(tag, lambda: asyncio.sleep(0, 1), tags=tag)
        await eventually(lambda: tag in cache.core.store.entries, why="the mark is stored")
        await pipeline_invalidate(sql, tag)
        await eventually(lambda: tag not in cache.core.store.entries, why="the mark is delivered")

    for query, change, followed in FOLLOWED:
        await eventually(lambda: cache.healthy().ok)
        before = await cache.query(query)
        key = next(key for key in cache.core.store.entries if isinstance(key, tuple) and query in key)
        assert await cache.query(query) is before
        await sql.execute(change)
        await delivered()
        assert (key not in cache.core.store.entries) == followed, change
        async with cache.bypass():
            fresh = await cache.query(query)
        assert await cache.query(query) == fresh, change


@pytest.mark.parametrize("tags", [None, "orders"])
async def test_too_few_arguments_are_no_lost_connection(client: Client, tags: str | None) -> None:
    with pytest.raises(QueryFailed, match="the server expects 1 argument") as caught:
        await client.cache.query("select * from orders where id = $1", tags=tags)
    assert caught.value.hint == "Pass one argument for each of $1, $2, ... in the query."


async def pipeline_invalidate(sql: asyncpg.Connection, tag: str) -> None:
    await sql.execute("select pipeline.invalidate(array[$1])", tag)


async def test_a_table_that_is_watched_no_more_is_refused_from_then_on(
    client: Client, sql: asyncpg.Connection
) -> None:
    await client.cache.query("select * from orders")
    await sql.execute("select pipeline.unwatch('orders')")

    async def refused() -> bool:
        try:
            await client.cache.query("select * from orders")
        except NotCacheable as error:
            return "orders, which is not watched" in error.message
        return False

    await eventually(refused)
    assert await client.cache.query("select count(*) from orders", tags="orders") == [{"count": 3}]


async def test_other_keys_of_a_watch_change_the_tags(client: Client, sql: asyncpg.Connection) -> None:
    query = "select sum(total) from orders where customer_id = $1"
    assert (await client.cache.depends_on(query, 1)).tags == {"orders", DDL}
    await sql.execute("select pipeline.watch('orders', keys => '{customer_id}')")

    async def narrowed() -> bool:
        return (await client.cache.depends_on(query, 1)).tags == {"orders:1", DDL}

    await eventually(narrowed)


@pytest.fixture(name="cache")
async def cache_fixture(db: Database, clock: Clock) -> Cache:
    return Cache(prober=CacheDatabase(db), analyst=QueryAnalyst(db), clock=clock)


@pytest.fixture(name="view")
async def view_fixture(feed: Feed) -> Feed:
    await feed.sql.execute("create table other (id int primary key, total int); insert into other values (1, 5)")
    await feed.sql.execute("select pipeline.watch('orders'), pipeline.watch('other')")
    await feed.sql.execute("create view seen as select total from orders where id = 1")
    return feed


SEEN = "select total from seen"


async def redefine(feed: Feed) -> Batch:
    """Let the view read another table; what the feed would say of it."""
    async with feed.sql.transaction():
        await feed.sql.execute("create or replace view seen as select total from other where id = 1")
        xid = int(await feed.sql.fetchval("select pg_current_xact_id()::text"))
    return Batch("epoch", 1, 0, None, (Event(xid, DDL, "w"),))


async def test_rows_loaded_after_a_change_of_a_view_go_when_it_is_delivered(cache: Cache, view: Feed) -> None:
    """They contain the change, but have the tags of the view as it was."""
    await cache.depends_on(SEEN)
    told = await redefine(view)
    assert await cache.query(SEEN) == [{"total": 5}]
    cache.on_batch(told)
    assert cache.status().entries == 0
    assert await cache.query(SEEN) == [{"total": 5}]
    view.change(10**9, "1", name="other")
    assert cache.status().entries == 0


async def test_a_load_that_was_announced_before_a_change_of_a_view_and_begins_after_it_has_the_new_tags(
    dsn: str, db: Database, clock: Clock, sql: asyncpg.Connection
) -> None:
    cache = Cache(prober=CacheDatabase(db), analyst=QueryAnalyst(db), clock=clock, max_direct_loads=1)
    await sql.execute("create table orders (id int primary key, total int); insert into orders values (1, 10)")
    await sql.execute("create table other (id int primary key, total int); insert into other values (1, 5)")
    await sql.execute("select pipeline.watch('orders'), pipeline.watch('other')")
    await sql.execute("create view seen as select total from orders where id = 1")
    feed = Feed(cache, sql)
    await feed.prove()
    await feed.prove()
    await cache.depends_on(SEEN)
    clock.now += 100  # nothing is proved, so loads take turns
    gate = asyncio.Event()
    slow = asyncio.ensure_future(cache.get_or_load("slow", gate.wait, tags="slow"))
    await eventually(lambda: cache._loads._flying)
    waiting = asyncio.ensure_future(cache.query(SEEN))
    await eventually(lambda: len(cache._loads) == 2)
    cache.on_batch(await redefine(feed))
    gate.set()
    assert await slow
    assert await waiting == [{"total": 5}]
    await feed.prove()
    assert await cache.query(SEEN) == [{"total": 5}]
    feed.change(10**9, "1", name="other")
    assert not [key for key in cache.core.store.entries if "slow" not in key]


async def test_a_gap_in_the_feed_makes_every_query_be_looked_at_again(cache: Cache, view: Feed) -> None:
    await cache.query(SEEN)
    await redefine(view)
    cache.on_flush("a gap")
    assert (await cache.depends_on(SEEN)).tags == {"other:1", DDL}


async def test_a_cache_without_an_analyst_says_that_it_needs_tags(db: Database, clock: Clock) -> None:
    with pytest.raises(pipeline.errors.UsageError, match="cannot find the tags"):
        await Cache(prober=CacheDatabase(db), clock=clock).query("select 1")


async def test_what_other_processes_loaded_after_a_change_of_definitions_may_be_used_again(
    cache: Cache, view: Feed
) -> None:
    cache.on_batch(await redefine(view))
    await view.prove()
    now = Snapshot.parse(await view.sql.fetchval("select pg_current_snapshot()::text"))
    assert cache.core.fence.admits({DDL, "other:1"}, now)
