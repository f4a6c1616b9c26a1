"""What the cache saves a real database, and how soon a write in one process is felt in another.

Owns: two parts over real processes (bench/cache_reader.py). In the first, several processes read rows through the
cache and now and then change one; Postgres itself counts what reaches it, with the cache and without. In the
second, a writer commits and a reader in another process notes when its entry is gone, on the clock that all
processes of a machine share (CLOCK_MONOTONIC).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random

import asyncpg

from bench.cache_reader import ROWS, WRITE, WRITE_EVERY
from bench.jobs_child import Child, child, module
from bench.jobs_kit import Bench, amount, execute, settle
from bench.report import quantile

HITS = "read-mostly: hits, part of reads"
SAVED = "read-mostly: queries saved, part"
IDLE_P50, IDLE_P99 = (
    "write to eviction in another process, p50, ms",
    "write to eviction in another process, p99, ms",
)
GOALS = {HITS: (">=", 0.95), SAVED: (">=", 0.80), IDLE_P50: ("<=", 3.0), IDLE_P99: ("<=", 15.0)}
PROCESSES = 3
OTHER_WRITES = 200  # a second
HEAR_SECONDS = 120.0
QUERIES = (
    "select coalesce(sum(calls), 0)::bigint from pg_stat_statements s join pg_database d on d.oid = s.dbid"
    " where d.datname = current_database() and query not like '%pg_stat_statements%'"
)


async def measure(bench: Bench) -> None:
    async with bench.database("cache") as dsn:
        await execute(
            dsn,
            "create extension pg_stat_statements",
            "create table orders (id int primary key, state text not null, total numeric not null, note text)",
            f"insert into orders select n, 'new', n / 7.0, repeat('x', 50) from generate_series(1, {ROWS}) n",
            "select pipeline.watch('public.orders', keys => '{id}')",
        )
        await settle(dsn)
        await read_mostly(bench, dsn)
        await write_to_eviction(bench, dsn)


async def read_mostly(bench: Bench, dsn: str) -> None:
    """`PROCESSES` processes, each warm, reads by Zipf and changes a row for every WRITE_EVERY reads."""
    reads = amount(30_000, 5_000)
    told: dict[str, list[dict[str, float]]] = {}
    queries: dict[str, int] = {}
    for way in ("direct", "cached"):
        async with readers(dsn, way, str(reads), count=PROCESSES) as children:
            before = await count_queries(dsn)
            for one in children:
                one.order("go")
            told[way] = await asyncio.gather(*(one.hear("told", 300) for one in children))
            queries[way] = await count_queries(dsn) - before
    hits, asked = (sum(one[what] for one in told["cached"]) for what in ("hits", "asked"))
    detail = f"{PROCESSES} processes x {reads:,} reads of {ROWS:,} rows by Zipf 1.0, a write for {WRITE_EVERY}"
    bench.report.goal(HITS, hits / asked, *GOALS[HITS], detail)
    saved = 1 - queries["cached"] / queries["direct"]
    seen = f"{queries['direct']:,} and {queries['cached']:,} by pg_stat_statements, probes and the feed included"
    bench.report.goal(SAVED, saved, *GOALS[SAVED], seen)
    for way, parts in told.items():
        rate = sum(one["reads"] / one["seconds"] for one in parts)
        bench.report.figure(f"read-mostly: {way}, reads/s", rate)


async def count_queries(dsn: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        return int(await connection.fetchval(QUERIES))
    finally:
        await connection.close()


async def write_to_eviction(bench: Bench, dsn: str) -> None:
    """One write at a time while nothing else happens; then the same beside a load of other writes."""
    writes = amount(400, 100)
    async with readers(dsn, "evicted", str(writes)) as [reader]:
        idle = await evictions(dsn, reader, writes)
    detail = f"{writes} writes, one at a time, from before the UPDATE is sent; no daemon, the reader pumps"
    bench.report.goal(IDLE_P50, quantile(idle, 0.5), *GOALS[IDLE_P50], detail)
    bench.report.goal(IDLE_P99, quantile(idle, 0.99), *GOALS[IDLE_P99], f"worst {max(idle):.1f} ms")
    async with (
        readers(dsn, "evicted", str(writes)) as [reader],
        readers(dsn, "writing", str(OTHER_WRITES)) as [other],
    ):
        other.order("go")
        busy = await evictions(dsn, reader, writes)
    for q in (0.5, 0.99):
        name = f"write to eviction beside {OTHER_WRITES} other writes/s, p{100 * q:.0f}, ms"
        bench.report.figure(name, quantile(busy, q))


async def evictions(dsn: str, reader: Child, writes: int) -> list[float]:
    """Milliseconds for each write, by this process, until the reader's entry was gone."""
    rng = Random(1)
    began: dict[int, float] = {}
    connection = await asyncpg.connect(dsn)
    for key in range(1, writes + 1):
        await asyncio.sleep(rng.uniform(0.01, 0.05))
        began[key] = time.monotonic()
        await connection.execute(WRITE, key)
    await connection.close()
    await asyncio.sleep(1)
    reader.end_input()
    ended = dict(await reader.hear("ended", HEAR_SECONDS))
    if missing := began.keys() - ended.keys():
        raise RuntimeError(f"{len(missing)} of {writes} entries outlived the write to their row")
    return [(ended[key] - began[key]) * 1000 for key in began]


@asynccontextmanager
async def readers(dsn: str, way: str, amount_: str, count: int = 1) -> AsyncIterator[list[Child]]:
    """Processes that are connected and have warmed up."""
    async with AsyncExitStack() as stack:
        argv = module("cache_reader", way, dsn, amount_)
        children = [await stack.enter_async_context(child(way, argv)) for _ in range(count)]
        for one in children:
            await one.hear("ready", HEAR_SECONDS)
        yield children
