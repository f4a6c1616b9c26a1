"""Mistakes that are easily made with the cache: each is told, and none is paid for later."""

from __future__ import annotations

import asyncio
import time

import asyncpg
import pytest

import pipeline
from handlers.cache import Cache
from pipeline.errors import DatabaseUnavailable, LoginFailed, PgreflexError, UsageError
from tests.conftest import with_database
from tests.flow.cache_kit import Counted, Feed, cache_fixture, clock_fixture, feed_fixture  # noqa: F401


async def test_a_loader_that_is_not_async_is_told_so(cache: Cache, feed: Feed) -> None:
    def plain() -> int:
        return 7

    with pytest.raises(UsageError, match="the loader returned int, which cannot be awaited"):
        await cache.get_or_load("k", plain, tags="t")  # type: ignore[arg-type]


async def test_a_key_that_cannot_be_one_is_told_so(cache: Cache, feed: Feed) -> None:
    with pytest.raises(UsageError, match="this key cannot be used: unhashable type: 'list'"):
        await cache.get_or_load(["k"], Counted(1), tags="t")  # type: ignore[arg-type]


async def test_a_function_that_is_cached_twice_has_two_results(cache: Cache, feed: Feed) -> None:
    calls = 0

    async def count() -> int:
        nonlocal calls
        calls += 1
        return calls

    by_orders, by_items = cache.cached(tags="orders")(count), cache.cached(tags="items")(count)
    assert (await by_orders(), await by_items()) == (1, 2)
    await cache.invalidate("items")
    assert (await by_orders(), await by_items()) == (1, 3)


async def test_a_client_that_is_closed_does_not_wait_for_what_is_loading(
    dsn: str, sql: asyncpg.Connection
) -> None:
    client = pipeline.connect(dsn)
    await client.open()
    asking = asyncio.create_task(client.cache.query("select pg_sleep(20)", tags="t"))
    running = (
        "select exists (select from pg_stat_activity where query = 'select pg_sleep(20)' and state = 'active')"
    )
    while not await sql.fetchval(running):
        await asyncio.sleep(0.01)
    began = time.monotonic()
    await client.close()
    assert time.monotonic() - began < 4
    with pytest.raises(PgreflexError, match="was cancelled"):
        await asking
    assert not await sql.fetchval(running)


async def test_a_client_that_cannot_connect_says_so_when_it_is_opened(dsn: str, sql: asyncpg.Connection) -> None:
    with pytest.raises(DatabaseUnavailable):
        await pipeline.connect("postgres://127.0.0.1:1/nowhere").open()
    with pytest.raises(LoginFailed):
        await pipeline.connect(with_database(dsn, "no_such_database")).open()
