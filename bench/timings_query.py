"""What it costs to time every query: processor time a query, and how many fewer go through.

Owns: `select 1` with and without instrumentation, in turns on the same connections of asyncpg, on uvloop.
Rounds are short and compared pair by pair, so that what else the machine does falls on both.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg

from bench.jobs_kit import Bench, amount
from pipeline.app.query_observer import QueryObserver
from pipeline.core.timing_context import labelled
from pipeline.core.window import Windows
from pipeline.db import instrument_asyncpg

COST = "processor time that timing adds to a query, us"
SHARE = "throughput of select 1 on one connection, lost"
POOLED = "throughput of select 1 through a pool, lost"
GOALS = {COST: ("<=", 6.0), SHARE: ("<=", 0.05), POOLED: ("<=", 0.05)}
ROUND = 1_000  # queries; 20 to 60 ms
CLIENTS = 4
Costs = tuple[float, float]  # processor and clock, microseconds a query


async def measure(bench: Bench) -> None:
    rounds = amount(100, 15)
    report = bench.report
    observer = QueryObserver(Windows(time.time))
    async with bench.database("query_cost") as dsn:
        connection = await asyncpg.connect(dsn)
        pool = await asyncpg.create_pool(dsn, min_size=CLIENTS, max_size=CLIENTS)
        alone = await compared(rounds, connection, observer, one_by_one)
        named = await compared(rounds, connection, observer, with_labels)
        shared = await compared(rounds, pool, observer, side_by_side)
        await connection.close()
        await pool.close()
    if observer.faults_total:
        raise RuntimeError("some queries were not counted")
    queries = f"{rounds * ROUND:,} queries"
    report.goal(
        COST, added(alone), *GOALS[COST], f"median of pairs over {queries}; without: {without(alone):.1f} us"
    )
    report.goal(SHARE, 1 - ratio_of(alone), *GOALS[SHARE], f"a query takes {wall(alone):.0f} us")
    report.goal(
        POOLED,
        1 - ratio_of(shared),
        *GOALS[POOLED],
        f"{CLIENTS} clients; a call takes {wall(shared):.0f} us, with its reset, which is not timed",
    )
    report.figure("processor time that timing with labels adds to a query, us", added(named))
    report.figure("processor time that timing adds to a call of a pool, us", added(shared))
    report.figure("report of one query to the observer, us", report_cost())
    report.figure("report of one query whose text was never seen, us", unseen_cost())


async def one_by_one(connection: Any) -> Costs:
    query = connection.fetchval
    began, cpu = time.perf_counter(), time.process_time()
    for _ in range(ROUND):
        await query("select 1")
    return (time.process_time() - cpu) / ROUND * 1e6, (time.perf_counter() - began) / ROUND * 1e6


async def with_labels(connection: Any) -> Costs:
    with labelled({"endpoint": "/orders", "user": 7}):
        return await one_by_one(connection)


async def side_by_side(pool: Any) -> Costs:
    """As one_by_one, by several at once, each of which borrows a connection for each query."""

    async def client() -> None:
        for _ in range(ROUND // CLIENTS):
            await pool.fetchval("select 1")

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return (time.process_time() - cpu) / ROUND * 1e6, (time.perf_counter() - began) / ROUND * 1e6


async def compared(
    rounds: int, target: Any, observer: QueryObserver, run: Callable[[Any], Awaitable[Costs]]
) -> list[tuple[Costs, Costs]]:
    """Pairs of rounds, without and with."""
    await run(target)
    pairs = []
    for turn in range(rounds):
        costs = {}
        for timed in (turn % 2 == 0, turn % 2 == 1):
            if timed:
                instrument_asyncpg.instrument(target, observer)
            else:
                instrument_asyncpg.uninstrument(target)
            costs[timed] = await run(target)
        pairs.append((costs[False], costs[True]))
    return pairs


def added(pairs: list[tuple[Costs, Costs]]) -> float:
    return statistics.median(timed[0] - plain[0] for plain, timed in pairs)


def without(pairs: list[tuple[Costs, Costs]]) -> float:
    return statistics.median(plain[0] for plain, _ in pairs)


def wall(pairs: list[tuple[Costs, Costs]]) -> float:
    return statistics.median(plain[1] for plain, _ in pairs)


def ratio_of(pairs: list[tuple[Costs, Costs]]) -> float:
    """Queries a second with timing, as a share of those without."""
    return statistics.median(plain[1] / timed[1] for plain, timed in pairs)


def report_cost(calls: int = 100_000) -> float:
    observer = QueryObserver(Windows(time.time))
    began = time.process_time()
    for _ in range(calls):
        observer.query("select 1", 0.001, rows=1, error=None)
    return (time.process_time() - began) / calls * 1e6


def unseen_cost(calls: int = 10_000) -> float:
    """A program that writes values into its texts."""
    observer = QueryObserver(Windows(time.time))
    texts = [f"select a, b from orders where id = {n} and name = 'customer {n}' limit 10" for n in range(calls)]
    began = time.process_time()
    for text in texts:
        observer.query(text, 0.001, rows=1, error=None)
    return (time.process_time() - began) / calls * 1e6
