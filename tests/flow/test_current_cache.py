"""`pipeline.cache` and `pipeline.cached`: bound at the call to the client that is open."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

import pipeline
from pipeline.app.client import Client
from pipeline.errors import UsageError
from tests.conftest import eventually

calls: list[int] = []


@pipeline.cached(tags="orders:{order_id}")
async def doubled(order_id: int) -> int:
    calls.append(order_id)
    return 2 * order_id


async def test_a_cached_function_belongs_to_the_newest_client_that_is_open_when_it_is_called(
    dsn: str, sql: asyncpg.Connection
) -> None:
    calls.clear()
    async with Client(dsn) as one:
        await eventually(lambda: one.cache.healthy().ok)
        assert [await doubled(4), await doubled(4), len(calls)] == [8, 8, 1]
        async with Client(dsn) as two:
            await eventually(lambda: two.cache.healthy().ok)
            assert [await doubled(4), await doubled(4), len(calls)] == [8, 8, 2]
            assert pipeline.cache.status().entries == 1
        assert [await doubled(4), len(calls)] == [8, 2]
        assert one.cache.status().hits_total == 2
        await pipeline.cache.clear()
        assert [await doubled(4), len(calls)] == [8, 3]


async def test_without_a_client_a_cached_function_says_what_is_missing_unless_it_is_bypassed() -> None:
    calls.clear()
    with pytest.raises(UsageError, match="no client is open"):
        await doubled(4)
    with pytest.raises(UsageError, match="no client is open"):
        pipeline.cache.status()
    async with pipeline.cache.bypass():
        assert await doubled(4) == 8
    assert calls == [4]


async def test_each_event_loop_has_the_cache_of_its_own_client(dsn: str, sql: asyncpg.Connection) -> None:
    async def elsewhere() -> Any:
        with pytest.raises(UsageError, match="another event loop"):
            await doubled(4)
        async with Client(dsn):
            return await doubled(5), await pipeline.cache.query("select 1 as one", tags="a")

    async with Client(dsn) as client:
        assert (await asyncio.to_thread(asyncio.run, elsewhere()))[:2] == (10, [{"one": 1}])
        assert await asyncio.to_thread(pipeline.cache.healthy) == client.cache.healthy()
        other = asyncio.create_task(asyncio.to_thread(asyncio.run, elsewhere()))
        while not other.done():
            assert await pipeline.cache.query("select 2 as two", tags="a") == [{"two": 2}]
            await asyncio.sleep(0.01)
        await other
