"""What tests of the cache share: a clock that stands still, a feed driven by hand, loaders that wait."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from handlers.cache import Cache
from pipeline.core.events import Batch, Event
from pipeline.core.snapshot import Snapshot
from pipeline.db.cache import CacheDatabase
from pipeline.db.connection import Database

TOTAL = "select total from orders where id = $1"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Feed:
    """Says to a cache what the real feed would."""

    def __init__(self, cache: Cache, sql: asyncpg.Connection) -> None:
        self.cache = cache
        self.sql = sql
        self.seq = 0

    async def position(self) -> None:
        text = await self.sql.fetchval("select pg_current_snapshot()::text")
        self.cache.on_batch(Batch("epoch", self.seq, self.seq - 1))
        self.cache.on_position(Snapshot.parse(text))

    async def prove(self) -> None:
        await self.cache.probe()
        await self.position()

    def change(self, xid: int, *keys: str, name: str = "orders") -> None:
        self.cache.on_batch(Batch("epoch", 1, 0, None, (Event(xid, name, "u", keys or None),)))


@pytest.fixture(name="clock")
def clock_fixture() -> Clock:
    return Clock()


@pytest.fixture(name="cache")
async def cache_fixture(db: Database, clock: Clock) -> Cache:
    return Cache(prober=CacheDatabase(db), clock=clock)


@pytest.fixture(name="feed")
async def feed_fixture(cache: Cache, sql: asyncpg.Connection) -> Feed:
    await sql.execute("create table orders (id int primary key, total int)")
    await sql.execute("insert into orders select n, 10 * n from generate_series(1, 3) n")
    feed = Feed(cache, sql)
    await feed.prove()
    await feed.prove()  # the first position ends the time before the cache was listening
    return feed


async def update(sql: asyncpg.Connection, total: int) -> int:
    """Change order 1; returns the transaction."""
    async with sql.transaction():
        await sql.execute("update orders set total = $1 where id = 1", total)
        return int(await sql.fetchval("select pg_current_xact_id()::text"))


class Counted:
    """A loader that counts its calls and waits for a sign before it returns."""

    def __init__(self, value: Any = None, *, open_: bool = True) -> None:
        self.value = value
        self.calls = 0
        self.gate = asyncio.Event()
        if open_:
            self.gate.set()

    async def __call__(self) -> Any:
        self.calls += 1
        await self.gate.wait()
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value
