"""What is kept of timings, and how fast SQL reads it and takes it in.

Owns: a day of stored timings, written and rolled up by the real code, once with every window full and once by
Zipf. The bytes of a row come from the tables with their indexes; the rows of 30 days are counted, not stored.
"""

from __future__ import annotations

import statistics
import time
from random import Random

import asyncpg

from bench.jobs_kit import Bench, amount, settle
from pipeline.core.digest import Digest
from pipeline.core.window import KEEP_SECONDS, LEVELS, Part, Series
from pipeline.db.connection import Database
from pipeline.db.latency import LatencyStore

FULL = "storage of 500 fingerprints over 30 days, every window full, GB"
ZIPF = "storage of 500 fingerprints over 30 days, 1,000 queries/s by Zipf, GB"
READ = "pipeline.percentile over 24 h, ms"
GOALS = {FULL: ("<=", 1.0), ZIPF: ("<=", 1.0), READ: ("<=", 20.0)}
FINGERPRINTS = 500
RETENTION = 30 * 86_400
DAILY = 86_400
_random = Random(1)
POOL = [_random.lognormvariate(1, 1) for _ in range(100_000)]
FULL_MINUTE = 400  # samples; more make no digest larger
ZIPF_MINUTE = 60_000  # of all fingerprints together


async def measure(bench: Bench) -> None:
    every = amount(20, 25)  # one of so many fingerprints is stored; they are alike
    hours = amount(24, 6)
    ranks = range(1, FINGERPRINTS + 1, every)
    whole = sum(1 / rank for rank in range(1, FINGERPRINTS + 1))
    traffics = {
        FULL: [FULL_MINUTE for _ in ranks],
        ZIPF: [round(ZIPF_MINUTE / rank / whole) for rank in ranks],
    }
    for name, rates in traffics.items():
        async with bench.database("timings") as dsn:
            await store_hours(dsn, rates, hours)
            await settle(dsn)
            sizes = await row_bytes(dsn)
            total = sum(sizes[seconds] * FINGERPRINTS * windows(seconds) for seconds in LEVELS[1:])
            each = ", ".join(f"{seconds} s {sizes[seconds]:.0f}" for seconds in LEVELS[1:])
            bench.report.goal(name, total / 1e9, *GOALS[name], f"bytes a row with indexes: {each}")
            if name == FULL:
                took = await percentile_ms(dsn, amount(31, 9))
                detail = f"full windows of {len(rates)} series, {hours} h stored"
                bench.report.goal(READ, took, *GOALS[READ], detail)


def windows(seconds: int) -> int:
    """How many windows of a level are kept of one series, within the 30 days."""
    return min(KEEP_SECONDS[seconds], RETENTION) // seconds


async def store_hours(dsn: str, rates: list[int], hours: int) -> None:
    """Write `rates` samples a minute of each series for the last hours, and roll them up."""
    random = Random(2)
    lines = [
        Series(f'query{{fingerprint="{n:016x}"}}', "query", "query", {"fingerprint": f"{n:016x}"})
        for n in range(len(rates))
    ]
    async with Database(dsn, purpose="bench", max_size=2) as database:
        store = LatencyStore(database)
        last = int(await store.clock()) // 60 * 60
        for start in range(last - hours * 3_600, last, 60):
            parts = []
            for series, rate in zip(lines, rates, strict=True):
                if rate:
                    first = random.randrange(len(POOL) - min(rate, 20_000))
                    values = POOL[first : first + min(rate, 20_000)]
                    parts.append(Part(series, start, Digest(values), rows=len(values)))
            await store.flush(store.number(parts))
        while await store.roll_up():
            pass


async def row_bytes(dsn: str) -> dict[int, float]:
    """Bytes a row takes at each level: heap, index and what is stored outside the row."""
    connection = await asyncpg.connect(dsn)
    try:
        sizes = {}
        for seconds in LEVELS[1:]:
            [table] = await connection.fetchrow(
                "select distinct tableoid::regclass::text from pipeline.timing_part where seconds = $1", seconds
            ) or ["pipeline.timing_1h"]  # a day that has not ended has no row; its digest is as large
            sizes[seconds] = await connection.fetchval(
                f"select pg_total_relation_size('{table}')::float8 / greatest(count(*), 1) from {table}"
            )
        return sizes
    finally:
        await connection.close()


async def percentile_ms(dsn: str, rounds: int) -> float:
    """The median time of one call, as psql sees it."""
    connection = await asyncpg.connect(dsn)
    try:
        times = []
        for _ in range(rounds):
            began = time.perf_counter()
            found = await connection.fetchval(
                "select pipeline.percentile($1, 0.99, interval '24 hours')",
                'query{fingerprint="0000000000000001"}',
            )
            times.append((time.perf_counter() - began) * 1000)
            if not 10 < found < 100:
                raise RuntimeError(f"the 99th percentile is {found}")
        return statistics.median(times)
    finally:
        await connection.close()
