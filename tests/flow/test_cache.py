"""The cache as an application uses it, on a real database; the feed is driven by hand."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from handlers.cache import Cache
from handlers.cache_keys import Call
from handlers.cache_seams import Loaded
from pipeline.core.snapshot import Snapshot
from pipeline.db.cache import CacheDatabase
from pipeline.db.connection import Database
from pipeline.errors import UsageError
from tests.conftest import eventually
from tests.flow.cache_kit import TOTAL, Clock, Counted, Feed, cache_fixture, clock_fixture, feed_fixture, update  # noqa: F401


async def test_a_query_is_asked_once_and_again_after_its_row_changed(cache: Cache, feed: Feed) -> None:
    assert await cache.query(TOTAL, 1, tags="orders:1") == [{"total": 10}]
    xid = await update(feed.sql, 11)
    assert await cache.query(TOTAL, 1, tags="orders:1") == [{"total": 10}]  # within max_staleness
    feed.change(xid, "1")
    assert await cache.query(TOTAL, 1, tags="orders:1") == [{"total": 11}]
    status = cache.status()
    assert (status.hits_total, status.misses_total, status.invalidations_total) == (1, 2, 1)


async def test_a_change_that_the_rows_contain_already_costs_no_hit(cache: Cache, feed: Feed) -> None:
    xid = await update(feed.sql, 11)
    assert await cache.query(TOTAL, 1, tags="orders:1") == [{"total": 11}]
    feed.change(xid, "1")
    feed.change(xid)
    assert await cache.query(TOTAL, 1, tags="orders:1") == [{"total": 11}]
    assert cache.status().hits_total == 1


async def test_a_change_that_commits_and_is_delivered_during_the_load_is_not_cached_over(
    cache: Cache, feed: Feed, dsn: str
) -> None:
    """The stale fill: the query waits for a lock with its snapshot taken, meanwhile a writer commits."""
    locker = await asyncpg.connect(dsn)
    await locker.execute("select pg_advisory_lock(1)")
    slow = "with w as materialized (select pg_advisory_lock_shared(1)) select total from orders, w where id = 1"
    reading = asyncio.ensure_future(cache.query(slow, tags="orders:1"))
    waits = "select 1 from pg_locks where locktype = 'advisory' and not granted"
    await eventually(lambda: feed.sql.fetchval(waits), why="the query waits for the lock")
    xid = await update(feed.sql, 11)
    feed.change(xid, "1")
    await feed.prove()
    later = asyncio.ensure_future(cache.query(slow, tags="orders:1"))
    await eventually(lambda: cache.status().misses_total == 2, why="the later request does not join")
    await locker.execute("select pg_advisory_unlock(1)")
    assert await reading == [{"total": 10}]  # it asked before the change was known
    assert await later == [{"total": 11}]
    assert await cache.query(slow, tags="orders:1") == [{"total": 11}]
    assert cache.status().refused_fills_total == 1
    await locker.close()


async def test_a_read_under_an_older_snapshot_than_a_delivered_change_is_not_stored(
    cache: Cache, feed: Feed, dsn: str
) -> None:
    """The second form of the race: the change was delivered before the load began."""
    old = await asyncpg.connect(dsn)
    await old.execute("begin isolation level repeatable read")
    await old.fetchval("select count(*) from orders")
    xid = await update(feed.sql, 11)
    feed.change(xid, "1")
    await feed.prove()

    async def load() -> Loaded:
        snapshot = Snapshot.parse(await old.fetchval("select pg_current_snapshot()::text"))
        return Loaded(await old.fetchval(TOTAL, 1), snapshot)

    assert await cache.get_or_load("k", load, tags="orders:1") == 10
    assert cache.status().entries == 0
    await old.execute("rollback")
    assert await cache.get_or_load("k", load, tags="orders:1") == 11
    assert cache.status().entries == 1
    await old.close()


async def test_those_who_may_not_share_an_old_read_share_a_new_one(cache: Cache, feed: Feed) -> None:
    old = Snapshot.parse(await feed.sql.fetchval("select pg_current_snapshot()::text"))
    feed.change(await update(feed.sql, 11), "1")
    await feed.prove()
    stale, fresh = Counted(Loaded("old", old), open_=False), Counted("new")
    first = asyncio.ensure_future(cache.get_or_load("k", stale, tags="orders:1"))
    await eventually(lambda: stale.calls)
    others = [asyncio.ensure_future(cache.get_or_load("k", fresh, tags="orders:1")) for _ in range(20)]
    await eventually(lambda: cache.status().misses_total == 21)
    stale.gate.set()
    assert await first == "old"  # it brought its own old transaction
    assert set(await asyncio.gather(*others)) == {"new"}
    assert fresh.calls == 1


async def test_while_nothing_is_proved_nobody_shares_what_an_older_transaction_read(
    cache: Cache, feed: Feed, clock: Clock
) -> None:
    old = Snapshot.parse(await feed.sql.fetchval("select pg_current_snapshot()::text"))
    await update(feed.sql, 11)  # the feed is stuck: nobody tells the cache
    clock.now += 1.01
    await cache.probe()
    aged, fresh = Counted(Loaded("old", old), open_=False), Counted("new")
    first = asyncio.ensure_future(cache.get_or_load("k", aged, tags="orders:1"))
    await eventually(lambda: aged.calls)
    others = [asyncio.ensure_future(cache.get_or_load("k", fresh, tags="orders:1")) for _ in range(5)]
    await eventually(lambda: cache.status().bypassed_total == 6)
    aged.gate.set()
    assert await first == "old"
    assert set(await asyncio.gather(*others)) == {"new"}


async def test_when_nothing_is_proved_reads_go_to_the_database_and_come_back_with_the_proof(
    cache: Cache, feed: Feed, clock: Clock
) -> None:
    await cache.query(TOTAL, 1, tags="orders:1")
    await update(feed.sql, 11)  # the feed is stuck: nobody tells the cache
    clock.now += 1.01
    assert cache.status().age_bound_seconds is None
    assert not cache.healthy().ok
    assert await cache.query(TOTAL, 1, tags="orders:1") == [{"total": 11}]
    assert cache.status().bypassed_total == 1
    await feed.prove()
    assert cache.healthy().ok
    assert await cache.query(TOTAL, 1, tags="orders:1") == [{"total": 11}]
    assert cache.status().hits_total == 1


async def test_a_writer_that_the_feed_has_not_reached_keeps_the_cache_from_serving(
    cache: Cache, feed: Feed, clock: Clock
) -> None:
    await cache.query(TOTAL, 1, tags="orders:1")
    before = await feed.sql.fetchval("select pg_current_snapshot()::text")
    await update(feed.sql, 11)
    clock.now += 0.9
    await cache.probe()
    cache.on_position(Snapshot.parse(before))  # the feed is alive, but behind the writer
    clock.now += 0.2
    assert await cache.query(TOTAL, 1, tags="orders:1") == [{"total": 11}]
    assert cache.status().hits_total == 0


async def test_what_is_invalidated_or_cleared_by_hand_is_loaded_anew(cache: Cache, feed: Feed) -> None:
    loader = Counted("v")
    for forget in (lambda: cache.invalidate(tags=["orders"]), lambda: cache.invalidate("orders:7"), cache.clear):
        await cache.get_or_load("k", loader, tags=["orders:7"])
        before = loader.calls
        await cache.get_or_load("k", loader, tags=["orders:7"])
        assert loader.calls == before
        await forget()
    await cache.get_or_load("k", loader, tags=["orders:7"])
    assert loader.calls == 4


async def test_inside_bypass_every_request_loads_for_itself(cache: Cache, feed: Feed) -> None:
    loader = Counted("v")
    await cache.get_or_load("k", loader, tags="orders")
    async with cache.bypass():
        await cache.get_or_load("k", loader, tags="orders")
        await cache.get_or_load("other", loader, tags="orders")
    await cache.get_or_load("k", loader, tags="orders")
    assert (loader.calls, cache.status().entries, cache.status().bypassed_total) == (3, 1, 2)


async def test_tags_that_only_the_loader_knows_drop_the_entry(cache: Cache, feed: Feed) -> None:
    loader = Counted(Loaded("v", tags=("orders:1",)))
    await cache.get_or_load("k", loader, tags=None)
    assert await cache.get_or_load("k", loader, tags=None) == "v"
    feed.change(await update(feed.sql, 11), "1")
    await cache.get_or_load("k", loader, tags=None)
    assert loader.calls == 2


async def test_a_value_made_of_cached_values_goes_with_them(cache: Cache, feed: Feed) -> None:
    async def page() -> str:
        rows = await cache.query(TOTAL, 1, tags="orders:1", ttl="5m")
        async with cache.bypass():
            more = await cache.query(TOTAL, 2, tags="orders:2")
        return f"{rows[0]['total']} {more[0]['total']}"

    async def show() -> Any:
        return await cache.get_or_load("page", page, tags="pages")

    assert await show() == "10 20"
    feed.change(await update(feed.sql, 11), "1")
    assert await show() == "11 20"
    hits = cache.status().hits_total
    assert await show() == "11 20"
    assert cache.status().hits_total == hits + 1
    feed.change(1, "2")  # long past, but nobody knows under which snapshot the whole page was read
    assert "page" not in cache.core.store.entries


async def test_a_cached_function_has_one_entry_for_each_call_however_written(cache: Cache, feed: Feed) -> None:
    calls: list[tuple[Any, ...]] = []

    @cache.cached(ttl="5m", tags=["orders:{order_id}", "flags:{deep}"])
    async def order(order_id: int | str, deep: bool = False, extra: Any = None) -> str:
        """The order."""
        calls.append((order_id, deep, extra))
        return f"{order_id!r}"

    assert await order(1) == await order(order_id=1) == await order(1, False, None) == "1"
    assert await order("1") == "'1'"
    await order(1, extra={"a": 1, "b": {1, 2}})
    await order(1, extra={"b": {2, 1}, "a": 1})
    assert len(calls) == 3
    assert order.__doc__ == "The order."
    feed.change(2**40, "1")
    await order(1)
    assert len(calls) == 4
    await cache.invalidate("flags:false")
    await order(1)
    assert len(calls) == 5


async def test_a_call_that_the_function_would_not_take_is_refused_alike(cache: Cache) -> None:
    async def order(a: int, b: int = 2, c: int = 3) -> int:
        return a

    async def strict(a: int, /, *more: int, d: int = 4) -> int:
        return a

    call = Call(order, frozenset({"t"}))
    same = {call.key(args, kwargs) for args, kwargs in [((1,), {}), ((1, 2), {"c": 3}), ((), {"c": 3, "a": 1})]}
    assert same == {(order, 1, 2, 3)}
    wrong: list[tuple[tuple[int, ...], dict[str, int]]] = [
        ((), {}), ((1, 2, 3, 4), {}), ((1,), {"a": 1}), ((1,), {"d": 1}), ((), {"b": 1}), ((1, 2, 3), {"c": 3}),
    ]  # fmt: skip
    for args, kwargs in wrong:
        with pytest.raises(TypeError):
            call.key(args, kwargs)
    assert Call(strict, None).key((1, 2), {"d": 5}) == (strict, 1, (tuple, (2,)), 5)
    with pytest.raises(TypeError):
        Call(strict, None).key((), {"a": 1})


async def test_mistakes_in_a_cached_function_are_told_at_once(cache: Cache) -> None:
    async def order(order_id: int) -> int:
        return order_id

    def plain() -> int:
        return 1

    with pytest.raises(UsageError, match="names 'id', which is no argument"):
        cache.cached(tags="orders:{id}")(order)
    with pytest.raises(UsageError, match="cannot be read"):
        cache.cached(tags="orders:{order_id")(order)
    with pytest.raises(UsageError, match="not an async function"):
        cache.cached(tags="orders")(plain)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="time to live"):
        cache.cached(tags="orders", ttl="soon")
    with pytest.raises(UsageError, match="no name that other processes would know"):
        cache.cached(tags="orders", shared=True)(order)
    found = cache.cached(tags="orders:{order_id}", key=lambda order_id: "same")(order)
    assert await found(object()) is not None  # type: ignore[arg-type]


async def test_the_service_proves_freshness_until_it_is_stopped(db: Database, sql: asyncpg.Connection) -> None:
    cache = Cache(prober=CacheDatabase(db), max_staleness=0.2)
    await cache.start()
    running = asyncio.ensure_future(cache.run())
    feed = Feed(cache, sql)

    async def proved() -> bool:
        await feed.position()
        return cache.healthy().ok

    await eventually(proved, why="the cache serves")
    age = cache.status().age_bound_seconds
    assert age is not None
    assert 0 <= age <= 0.2
    await cache.stop()
    await asyncio.wait_for(running, 5)
    await eventually(lambda: not cache.healthy().ok, why="without probes the proof runs out")


async def test_a_probe_that_fails_is_told_and_the_next_one_mends_it(dsn: str) -> None:
    db = await Database(dsn).open()
    cache = Cache(prober=CacheDatabase(db))
    await db.close()
    await cache.probe()
    assert "closed" in cache.healthy().detail
    await db.open()
    await cache.probe()
    assert "behind" in cache.healthy().detail
    await db.close()


@pytest.mark.parametrize("tags", ["", [""], ["orders", 7], 7])
async def test_what_is_no_tag_is_refused(cache: Cache, tags: Any) -> None:
    with pytest.raises(UsageError, match="is no tag"):
        await cache.query("select 1", tags=tags)
    with pytest.raises(UsageError, match="is no tag"):
        await cache.invalidate(tags)


async def test_a_query_with_other_tags_is_another_value(cache: Cache, feed: Feed) -> None:
    await cache.query(TOTAL, 1, tags="somewhere")
    rows = await cache.query(TOTAL, 1, tags="orders:1")
    feed.change(await update(feed.sql, 11), "1")
    assert (await cache.query(TOTAL, 1, tags="orders:1"))[0]["total"] == 11 != rows[0]["total"]
