"""What it costs to acquire and release a connection, beside asyncpg's own pool.

Owns: the processor time of one process on uvloop; both pools are open at once and take turns. The server's time is
not in it, since it is another process.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg

import pipeline
from bench.jobs_kit import Bench, amount
from bench.report import ratio

MOST = 1.3
SIZE = 10
CLIENTS = 100
Work = Callable[[Any, int], Awaitable[None]]


async def bare(pool: Any, times: int) -> None:
    for _ in range(times):
        async with pool.acquire():
            pass


async def query(pool: Any, times: int) -> None:
    for _ in range(times):
        async with pool.acquire() as connection:
            await connection.fetchval("select 1")


async def shortcut(pool: Any, times: int) -> None:
    for _ in range(times):
        await pool.fetchval("select 1")


async def crowd(pool: Any, times: int) -> None:
    """Ten times as many clients as connections, so that nearly all wait in line."""
    await asyncio.gather(*(query(pool, times // CLIENTS) for _ in range(CLIENTS)))


async def no_reset(_connection: object) -> None:
    """Leaves the two pools' own work alone to be measured."""


WORKS: dict[str, tuple[Work, dict[str, Any], int]] = {
    "acquire and release": (bare, {}, 10_000),
    "acquire and release, reset off": (bare, {"reset": no_reset}, 20_000),
    "acquire, one query, release": (query, {}, 5_000),
    "one query through the pool": (shortcut, {}, 5_000),
    f"one query of {CLIENTS} clients on {SIZE} connections": (crowd, {}, 5_000),
}
GOALS = {f"ours/asyncpg, {name}": ("<=", MOST) for name in WORKS}


async def measure(bench: Bench) -> None:
    report = bench.report
    rounds = amount(11, 5)
    async with bench.database("pool") as dsn:
        for name, (work, options, full) in WORKS.items():
            times = amount(full, full // 5)
            ours: list[float] = []
            theirs: list[float] = []
            async with (
                asyncpg.create_pool(dsn, min_size=SIZE, max_size=SIZE, **options) as peer,
                pipeline.create_pool(dsn, min_size=SIZE, max_size=SIZE, **options) as own,
            ):
                await work(peer, times // 5)
                await work(own, times // 5)
                for _ in range(rounds):
                    theirs.append(await cost(work, peer, times))
                    ours.append(await cost(work, own, times))
            report.figure(f"{name}, us", statistics.median(ours))
            report.peer(f"asyncpg {asyncpg.__version__}, {name}, us", statistics.median(theirs))
            report.goal(f"ours/asyncpg, {name}", ratio(ours, theirs), "<=", MOST, f"median of {rounds} rounds")


async def cost(work: Work, pool: Any, times: int) -> float:
    """Microseconds of processor time each."""
    began = time.process_time()
    await work(pool, times)
    return (time.process_time() - began) / times * 1e6
