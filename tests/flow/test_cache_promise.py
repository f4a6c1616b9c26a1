"""The promise, end to end: two clients on a real feed, a writer, and connections that are killed meanwhile."""

from __future__ import annotations

import asyncio
import time

import asyncpg
import pytest

from pipeline.app.client import connect
from tests.conftest import eventually

STALE = 0.4
ROWS = 5
SLOW_SUM = "select sum(n)::bigint as n, pg_sleep(0.02)::text from counters"


@pytest.fixture
async def counters(sql: asyncpg.Connection) -> None:
    await sql.execute("create table counters (id int primary key, n bigint not null)")
    await sql.execute("insert into counters select g, 0 from generate_series(1, $1) g", ROWS)
    await sql.execute("select pipeline.watch('counters', keys => '{id}')")


async def test_a_cached_read_reflects_whatever_committed_longer_ago_than_max_staleness(
    dsn: str, sql: asyncpg.Connection, counters: None
) -> None:
    acknowledged = {row: [(0.0, 0)] for row in range(1, ROWS + 1)}
    ends = time.monotonic() + 4

    async def write() -> None:
        step = 0
        while time.monotonic() < ends:
            step += 1
            row = step % ROWS + 1
            n = await sql.fetchval("update counters set n = n + 1 where id = $1 returning n", row)
            acknowledged[row] = [*acknowledged[row][-200:], (time.monotonic(), n)]
            await asyncio.sleep(0.004 if step % 60 else 2 * STALE)  # long enough for a stale fill to show

    async def trouble(killer: asyncpg.Connection) -> None:
        """Both clients lose their connections to the feed, and the one that pumps its own, several times."""
        listeners = "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()"
        while time.monotonic() < ends - 1:
            await asyncio.sleep(1)
            await killer.execute(f"{listeners} and application_name ~ '^pgreflex (follow|lead)'")

    killer = await asyncpg.connect(dsn)
    async with connect(dsn, max_staleness=STALE) as one, connect(dsn, max_staleness=STALE) as two:
        await eventually(lambda: one.cache.healthy().ok and two.cache.healthy().ok, why="both caches serve")
        reads = 0

        async def read(cache_of: object, row: int) -> None:
            nonlocal reads
            cache = cache_of.cache  # type: ignore[attr-defined]
            while time.monotonic() < ends:
                began = time.monotonic()
                rows = await cache.query("select n from counters where id = $1", row, tags=f"counters:{row}")
                due = max(n for at, n in acknowledged[row] if at < began - STALE)
                assert rows[0]["n"] >= due, f"row {row}: {rows[0]['n']} was read, {due} was due"
                total = await cache.query(SLOW_SUM, tags="counters")
                due = sum(max(n for at, n in row if at < began - STALE) for row in acknowledged.values())
                assert total[0]["n"] >= due, f"a sum of {total[0]['n']} was read, {due} was due"
                reads += 1
                await asyncio.sleep(0.001)

        readers = [read(client, row) for client in (one, two) for row in acknowledged]
        async with asyncio.timeout(20):
            await asyncio.gather(write(), trouble(killer), *readers)
        status = one.cache.status()
        assert status.hits_total > reads / 10
        assert status.invalidations_total > 0
    await killer.close()
