"""Loads of the cache: shared, refused, failed, given up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from handlers.cache import Cache
from handlers.cache_seams import Loaded
from pipeline.core.snapshot import Snapshot
from pipeline.db.cache import CacheDatabase
from pipeline.db.connection import Database
from pipeline.errors import QueryFailed
from tests.conftest import eventually
from tests.flow.cache_kit import TOTAL, Clock, Counted, Feed, cache_fixture, clock_fixture, feed_fixture  # noqa: F401


async def test_requests_at_the_same_time_share_one_load(cache: Cache, feed: Feed) -> None:
    loader = Counted("v", open_=False)
    asking = [asyncio.ensure_future(cache.get_or_load("k", loader, tags="orders")) for _ in range(50)]
    await eventually(lambda: loader.calls)
    loader.gate.set()
    assert set(await asyncio.gather(*asking)) == {"v"}
    assert loader.calls == 1


async def test_after_a_value_that_could_not_be_stored_nobody_is_served_an_older_one(
    cache: Cache, feed: Feed, clock: Clock
) -> None:
    """A change that the newer load does not contain refuses it, and says nothing of the older value."""
    before = Snapshot.parse(await feed.sql.fetchval("select pg_current_snapshot()::text"))
    await cache.get_or_load("k", Counted(Loaded("old", before)), tags="orders:1")
    clock.now += 1.01  # nothing is proved, so everybody loads
    refused = Counted(Loaded("new", Snapshot(1, 1)))
    assert await cache.get_or_load("k", refused, tags="orders:1") == "new"
    clock.now -= 1.01  # as if the proof had come meanwhile
    assert await cache.get_or_load("k", Counted("newest"), tags="orders:1") == "newest"


async def test_a_load_that_a_later_one_overtook_is_not_stored(cache: Cache, feed: Feed) -> None:
    first, second = Counted("old", open_=False), Counted(Loaded("new", Snapshot(1, 1)))
    asking = asyncio.ensure_future(cache.get_or_load("k", first, tags=()))
    await eventually(lambda: first.calls)
    cache.core.fence.generation += 1  # whoever comes from now on does not join it
    assert await cache.get_or_load("k", second, tags=()) == "new"
    cache.core.fence.generation -= 1
    first.gate.set()
    assert await asking == "old"
    assert cache.status().entries == 0


async def test_while_nothing_is_proved_requests_share_young_loads_only_and_few_loads_run(
    db: Database, clock: Clock
) -> None:
    cache = Cache(prober=CacheDatabase(db), clock=clock, max_direct_loads=2)
    loader = Counted("v", open_=False)
    asking = [asyncio.ensure_future(cache.get_or_load("a", loader, tags="t")) for _ in range(5)]
    await eventually(lambda: loader.calls)
    clock.now += 1.01
    asking += [asyncio.ensure_future(cache.get_or_load(key, loader, tags="t")) for key in "aabcd"]
    await eventually(lambda: cache.status().bypassed_total == 10)
    for _ in range(20):
        await asyncio.sleep(0)
    assert loader.calls == 2
    loader.gate.set()
    await asyncio.gather(*asking)
    assert loader.calls == 5


async def test_a_failing_load_fails_all_who_wait_and_leaves_nothing(cache: Cache, feed: Feed) -> None:
    loader = Counted(LookupError("gone"), open_=False)
    asking = [asyncio.ensure_future(cache.get_or_load("k", loader, tags="orders")) for _ in range(3)]
    await eventually(lambda: loader.calls)
    loader.gate.set()
    assert [type(result) for result in await asyncio.gather(*asking, return_exceptions=True)] == [LookupError] * 3
    loader.value = None
    assert await cache.get_or_load("k", loader, tags="orders") is None
    assert await cache.get_or_load("k", loader, tags="orders") is None  # None is a value
    assert loader.calls == 2
    with pytest.raises(QueryFailed):
        await cache.query("select no_such_column from orders", tags="orders")


async def test_one_who_gives_up_does_not_stop_the_load_for_the_others(cache: Cache, feed: Feed) -> None:
    loader = Counted("v", open_=False)
    first = asyncio.ensure_future(cache.get_or_load("k", loader, tags="orders"))
    second = asyncio.ensure_future(cache.get_or_load("k", loader, tags="orders"))
    await eventually(lambda: loader.calls)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    loader.gate.set()
    assert await second == "v"
    assert loader.calls == 1


async def test_a_load_that_nobody_waits_for_is_cancelled_and_joined_by_nobody(cache: Cache, feed: Feed) -> None:
    loader, tidied = Counted("v", open_=False), asyncio.Event()

    async def tidy() -> Any:
        try:
            return await loader()
        finally:
            await tidied.wait()  # a load that is cancelled may take its time to end

    first = asyncio.ensure_future(cache.get_or_load("k", tidy, tags="orders"))
    await eventually(lambda: loader.calls)
    first.cancel()
    await asyncio.wait([first])
    second = asyncio.ensure_future(cache.get_or_load("k", tidy, tags="orders"))
    await eventually(lambda: loader.calls == 2)
    loader.gate.set()
    tidied.set()
    assert await second == "v"
    assert first.cancelled()


@pytest.mark.parametrize("how", ["flush", "clear"])
async def test_what_empties_the_cache_keeps_loads_in_flight_out_of_it(cache: Cache, feed: Feed, how: str) -> None:
    loader = Counted("v", open_=False)
    await cache.query(TOTAL, 1, tags="orders:1")
    asking = asyncio.ensure_future(cache.get_or_load("k", loader, tags="orders"))
    await eventually(lambda: loader.calls)
    if how == "flush":
        cache.on_flush("a gap")
    else:
        await cache.clear()
    loader.gate.set()
    assert await asking == "v"
    assert cache.status().entries == 0


async def test_a_load_that_asks_for_its_own_key_does_not_wait_for_itself(cache: Cache, feed: Feed) -> None:
    depth = 0

    async def load() -> int:
        nonlocal depth
        depth += 1
        return depth if depth > 2 else int(await cache.get_or_load("k", load, tags="orders"))

    assert await asyncio.wait_for(cache.get_or_load("k", load, tags="orders"), 5) == 3


async def test_a_task_that_a_loader_leaves_behind_is_served_as_anybody(cache: Cache, feed: Feed) -> None:
    left: list[asyncio.Task[Any]] = []
    go = asyncio.Event()
    loader = Counted("v")

    async def behind() -> Any:
        await go.wait()
        return await cache.get_or_load("k", loader, tags="orders")

    async def load() -> str:
        left.append(asyncio.ensure_future(behind()))
        return "first"

    assert await cache.get_or_load("k", load, tags="orders") == "first"
    go.set()
    assert await left[0] == "first"
    assert loader.calls == 0
