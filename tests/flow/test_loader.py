"""The loader: what is asked for in one turn of the loop is read in one query, and cached key by key."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from contextvars import copy_context
from decimal import Decimal
from typing import Any

import asyncpg
import pytest

import pipeline
from handlers.cache import Cache
from handlers.cache_seams import Loaded
from handlers.loader import Loader
from pipeline.core.cache_policy import QueryTags
from pipeline.core.events import Batch, Event
from pipeline.core.snapshot import Snapshot
from pipeline.db.cache import CacheDatabase
from pipeline.db.connection import Database
from pipeline.db.rows import Lookups
from pipeline.errors import QueryFailed, UsageError
from tests.conftest import eventually
from tests.flow.cache_kit import Clock, Feed, update

TAGS = "orders:{key}"


class Counting(CacheDatabase):
    """Keeps the keys that each query asked for; in which order they meet in a batch does not matter."""

    def __init__(self, db: Database) -> None:
        super().__init__(db)
        self.asked: list[list[Any]] = []

    async def read(
        self, query: str, args: Sequence[Any], *, timeout: float | None = None
    ) -> tuple[list[dict[str, Any]], Snapshot]:
        self.asked.append(list(args[0]) if len(args[0]) < 2 else sorted(args[0], key=str))
        return await super().read(query, args, timeout=timeout)


@pytest.fixture
def source(db: Database) -> Counting:
    return Counting(db)


@pytest.fixture
def cache(db: Database, source: Counting) -> Cache:
    return Cache(prober=source, lookups=Lookups(db), clock=Clock())


@pytest.fixture
async def feed(cache: Cache, sql: asyncpg.Connection) -> Feed:
    await sql.execute("create table orders (id int primary key, total int, customer uuid)")
    await sql.execute("insert into orders select n, 10 * n from generate_series(1, 300) n")
    feed = Feed(cache, sql)
    await feed.prove()
    await feed.prove()
    return feed


def orders(cache: Cache, **options: Any) -> Loader:
    more = {name: options.pop(name) for name in ("key", "columns", "many") if name in options}
    return Loader(lambda: cache, "orders", tags=options.pop("tags", TAGS), options=options, **more)


async def test_requests_of_one_turn_are_one_query_without_doubles_and_answered_in_order(
    cache: Cache, feed: Feed, source: Counting
) -> None:
    loader = orders(cache, columns=["total"])
    assert await loader.load_many([3, 1, 3, 2]) == [{"total": 30}, {"total": 10}, {"total": 30}, {"total": 20}]
    assert source.asked == [[1, 2, 3]]


async def test_more_than_100_keys_are_several_queries(cache: Cache, feed: Feed, source: Counting) -> None:
    rows = await orders(cache).load_many(range(1, 251))
    assert [row["id"] for row in rows] == list(range(1, 251))
    assert sorted(map(len, source.asked)) == [50, 100, 100]


async def test_what_is_cached_is_not_asked_for_again_until_it_changes(
    cache: Cache, feed: Feed, source: Counting, sql: asyncpg.Connection
) -> None:
    loader = orders(cache)
    await loader.load_many([1, 2])
    feed.change(await update(sql, 11), "1")
    assert [row["total"] for row in await loader.load_many([1, 2, 3])] == [11, 20, 30]
    assert source.asked == [[1, 2], [1, 3]]


async def test_a_key_without_a_row_is_none_and_remembered_as_such_until_the_row_comes(
    cache: Cache, feed: Feed, source: Counting, sql: asyncpg.Connection
) -> None:
    loader = orders(cache)
    assert await loader.load(900) is None
    assert await loader.load(900) is None
    assert len(source.asked) == 1
    await sql.execute("insert into orders values (900, 5)")
    feed.change(int(await sql.fetchval("select xmin::text from orders where id = 900")), "900")
    assert (await loader.load(900))["total"] == 5
    assert await loader.load(None) is None


async def test_a_key_that_no_row_can_have_fails_alone(cache: Cache, feed: Feed) -> None:
    loader = orders(cache)
    one, bad, two = await loader.load_many([1, "seven", 2], return_exceptions=True)
    assert (one["total"], two["total"]) == (10, 20)
    assert isinstance(bad, QueryFailed)
    with pytest.raises(QueryFailed):
        await loader.load_many([1, "seven"])


async def test_all_rows_of_a_key_come_as_a_list(cache: Cache, feed: Feed, sql: asyncpg.Connection) -> None:
    ann, nobody = uuid.uuid4(), uuid.uuid4()
    await sql.execute("update orders set customer = $1 where id <= 2", ann)
    loader = orders(cache, key="customer", many=True, tags="orders")
    hers, none = await loader.load_many([ann, nobody])
    assert sorted(row["id"] for row in hers) == [1, 2]
    assert none == []
    assert await loader.load(None) == []
    with pytest.raises(UsageError, match="2 rows of orders have this customer"):
        await orders(cache, key="customer", tags="orders").load(str(ann))


async def test_a_name_that_needs_quotes_is_quoted(cache: Cache, feed: Feed, sql: asyncpg.Connection) -> None:
    await sql.execute('create table "Odd "" name" ("the key" text, place int)')
    await sql.execute('insert into "Odd "" name" values (\'a\', 1)')
    loader = Loader(lambda: cache, '"Odd "" name"', key="the key", tags="odd", options={})
    assert await loader.load("a") == {"the key": "a", "place": 1}


@pytest.mark.parametrize(
    ("table", "key", "said"), [("nowhere", "id", "there is no table nowhere"), ("orders", "x", "has no column x")]
)
async def test_a_table_or_column_that_does_not_exist_is_said_so(
    cache: Cache, feed: Feed, table: str, key: str, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        await Loader(lambda: cache, table, key=key, tags="t", options={}).load(1)


async def test_a_function_loads_many_keys_at_once_and_one_of_them_may_fail(cache: Cache, feed: Feed) -> None:
    calls: list[list[int]] = []

    async def prices(keys: list[int]) -> dict[int, Any]:
        calls.append(keys)
        return {key: ValueError("no price") if key == 2 else key * 100 for key in keys if key != 3}

    loader = Loader(lambda: cache, prices, tags="price:{key}", options={})
    assert await loader.load_many([1, 3, 1]) == [100, None, 100]
    with pytest.raises(ValueError, match="no price"):
        await loader.load(2)
    assert await loader.load_many([1, 3]) == [100, None]
    assert calls == [[1, 3], [2]]
    await cache.invalidate("price:1")
    assert await loader.load(1) == 100
    assert calls[-1] == [1]


async def test_a_function_that_returns_too_few_values_is_told_so(cache: Cache, feed: Feed) -> None:
    async def nothing(_keys: list[int]) -> list[int]:
        return []

    with pytest.raises(UsageError, match="asked for 1 keys and returned 0 values"):
        await Loader(lambda: cache, nothing, tags="t", options={}).load(1)


async def test_a_loader_of_a_function_needs_tags(cache: Cache) -> None:
    async def nothing(keys: list[int]) -> list[int]:
        return keys

    with pytest.raises(UsageError, match="it must be said what it depends on"):
        Loader(lambda: cache, nothing, options={})


async def test_what_a_batch_reads_through_the_cache_is_read_anew(cache: Cache, feed: Feed) -> None:
    """A part that came from the cache would make only one of the keys depend on it."""
    parts = 0

    async def part() -> int:
        nonlocal parts
        parts += 1
        return parts

    async def load(keys: list[int]) -> list[Any]:
        found = await cache.get_or_load("part", part, tags="part")
        return [Loaded((key, found)) for key in keys]

    loader = Loader(lambda: cache, load, tags="t:{key}", options={})
    await cache.get_or_load("part", part, tags="part")
    assert await loader.load_many([1, 2]) == [(1, 2), (2, 2)]


async def test_past_the_cache_requests_still_meet_in_one_query(cache: Cache, feed: Feed, source: Counting) -> None:
    async with cache.bypass():
        rows = await orders(cache).load_many([1, 2, 1])
    assert [row["id"] for row in rows] == [1, 2, 1]
    assert source.asked == [[1, 2]]


async def test_of_those_who_give_up_waiting_the_others_still_get_their_rows(cache: Cache, feed: Feed) -> None:
    loader = orders(cache)
    gone = asyncio.create_task(loader.load(1))
    stays = asyncio.create_task(loader.load(2))
    await asyncio.sleep(0)
    gone.cancel()
    assert (await stays)["id"] == 2


async def test_a_loader_of_the_module_belongs_to_whatever_client_is_open(
    dsn: str, sql: asyncpg.Connection
) -> None:
    await sql.execute("create table item (id int primary key, name text)")
    await sql.execute("insert into item values (1, 'one')")
    items = pipeline.loader("item", tags="item:{key}")
    with pytest.raises(UsageError, match="no client is open"):
        await items.load(1)
    async with pipeline.connect(dsn):
        assert await items.load(1) == {"id": 1, "name": "one"}
    async with pipeline.connect(dsn):
        assert await items.load(1) == {"id": 1, "name": "one"}


async def test_the_tags_of_rows_are_found_and_a_change_by_anybody_drops_the_row_alone(
    dsn: str, sql: asyncpg.Connection
) -> None:
    await sql.execute("create table item (id int primary key, name text)")
    await sql.execute("insert into item values (1, 'one'), (2, 'two')")
    await sql.execute("select pipeline.watch('item')")
    items = pipeline.loader("item")
    async with pipeline.connect(dsn) as client:
        await eventually(lambda: client.cache.healthy().ok)
        assert [row["name"] for row in await items.load_many([1, 2])] == ["one", "two"]
        dropped = client.cache.status().invalidations_total
        await sql.execute("update item set name = 'ONE' where id = 1")
        await eventually(lambda: client.cache.status().invalidations_total > dropped)
        assert client.cache.status().invalidations_total == dropped + 1
        assert [row["name"] for row in await items.load_many([1, 2])] == ["ONE", "two"]


async def test_a_loader_of_a_table_that_is_not_watched_is_refused_with_the_reason(
    dsn: str, sql: asyncpg.Connection
) -> None:
    await sql.execute("create table item (id int primary key)")
    async with pipeline.connect(dsn):
        with pytest.raises(UsageError, match="watch"):
            await pipeline.loader("item").load(1)


async def test_a_key_longer_than_the_column_finds_no_row(db: Database, sql: asyncpg.Connection) -> None:
    await sql.execute("create table code (id varchar(3) primary key, letters char(4), total numeric(5, 2))")
    await sql.execute("insert into code values ('abc', 'wxyz', 1.01)")
    cache = Cache(prober=CacheDatabase(db), lookups=Lookups(db), clock=Clock())
    for column, other, found in (("id", "abcd", "abc"), ("letters", "wxyzz", "wxyz")):
        codes = Loader(lambda: cache, "code", key=column, tags="code:{key}", options={})
        assert [row and row["id"] for row in await codes.load_many([other, found])] == [None, "abc"]
    totals = Loader(lambda: cache, "code", key="total", tags="code", options={})
    assert await totals.load(Decimal("1.009")) is None


async def test_a_changed_table_is_looked_at_again(cache: Cache, feed: Feed, sql: asyncpg.Connection) -> None:
    loader = orders(cache)
    assert await loader.load(1) == {"id": 1, "total": 10, "customer": None}
    await sql.execute("alter table orders drop column customer, add column note text default 'new'")
    feed.cache.on_batch(Batch("epoch", 1, 0, None, (Event(1, "pipeline.ddl", "w"),)))
    assert await loader.load(2) == {"id": 2, "total": 20, "note": "new"}


async def test_rows_have_the_tags_of_the_definitions_under_which_they_are_loaded(
    db: Database, source: Counting, sql: asyncpg.Connection
) -> None:
    class Moving:
        """The keys of the watch change just after the tags were asked for."""

        asked = 0

        async def tags(self, sql: str, args: Sequence[Any]) -> QueryTags:
            self.asked += 1
            if self.asked > 1:
                return QueryTags(frozenset({"orders"}), "key")
            cache.on_batch(Batch("epoch", 1, 0, None, (Event(1, "orders", "w"),)))
            return QueryTags(frozenset({"orders:1"}), "key")

        def forget(self, tag: str | None = None) -> None: ...

    cache = Cache(prober=source, lookups=Lookups(db), analyst=Moving(), clock=Clock())
    await sql.execute("create table orders (id int primary key)")
    feed = Feed(cache, sql)
    await feed.prove()
    await feed.prove()
    await orders(cache, tags=None).load(1)
    (entry,) = cache.core.store.entries.values()
    assert "orders" in entry.tags


async def test_a_request_never_gets_what_a_function_reads_inside_the_transaction_of_another(
    dsn: str, sql: asyncpg.Connection
) -> None:
    await sql.execute("create table item (id int primary key, name text)")
    await sql.execute("insert into item values (1, 'one'), (2, 'two')")

    async def names(keys: list[int]) -> dict[int, str]:
        rows = await pipeline.cache.query("select * from item where id = any($1::int[])", keys, tags="item")
        return {row["id"]: row["name"] for row in rows}

    items = pipeline.loader(names, tags="item:{key}")
    outside = copy_context()
    async with pipeline.connect(dsn) as client, client.transaction() as conn:
        await conn.execute("update item set name = 'not committed'")
        inside = asyncio.create_task(items.load(1))
        other = asyncio.create_task(items.load(2), context=outside)
        assert await inside == "not committed"
        assert await other == "two"


async def test_a_loader_keeps_no_connection_that_it_has_read_on(cache: Cache, feed: Feed) -> None:
    loader = orders(cache)
    await loader.load_many(range(1, 251))
    assert loader._batches == {}


async def test_a_tag_of_a_loader_names_nothing_but_the_key() -> None:
    with pytest.raises(UsageError, match="names 'id'"):
        pipeline.loader("orders", tags="orders:{id}")
