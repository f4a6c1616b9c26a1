"""What it costs to add jobs: one a transaction beside a plain insert, and many at a time.

Owns: what the plain insert is: into a table with the columns of the job table, its primary key, a ready index and
a position from a sequence, but with no function, no checks and nobody to wake.
"""

from __future__ import annotations

import statistics
import time

from bench.jobs_child import module
from bench.jobs_kit import NOOP, SLOTS, Bench, amount, execute, fill, job_store, settle, workers
from bench.report import ratio

ROUNDS = amount(7, 2)
LISTENING_ROUNDS = amount(3, 1)
SECONDS = amount(4, 1)
CLIENTS = 4
BULK = amount(500_000, 50_000)
BULK_CHUNK = 50_000
WARM = 10

GOALS = {"enqueue/bare insert": (">=", 0.9), "bulk enqueue, rows/s": (">=", 200_000.0)}

BARE_TABLE = (
    "create sequence bench_pos",
    "create table bench_bare (like pipeline.job including defaults including identity)",
    "alter table bench_bare alter pos set default nextval('bench_pos')",
    "alter table bench_bare add primary key (id)",
    "create index on bench_bare (queue, priority, pos) where pos is not null",
)
# both take task and args as parameters of a prepared statement, and both return the id
VALUES = "\\set n random(1, 1000000)\n"
BARE = (
    VALUES
    + "insert into bench_bare (task, args) values ('bench.noop', jsonb_build_object('n', :n::int)) returning id;\n"
)
ENQUEUE = VALUES + "select pipeline.enqueue('bench.noop', jsonb_build_object('n', :n::int));\n"


async def measure(bench: Bench) -> None:
    await single(bench)
    await bulk(bench)


async def single(bench: Bench) -> None:
    """Transactions a second of both, in turn; then once more while a daemon listens to the queue's events."""
    async with bench.database("enqueue") as dsn:
        await fill(dsn, WARM)
        await visit(dsn)  # a worker has been there: the queue is known
        await execute(dsn, *BARE_TABLE)
        bench.pgbench(
            dsn, BARE, clients=CLIENTS, seconds=1
        )  # the first seconds of a new server are like no others
        bare, ours = await in_turn(bench, dsn, ROUNDS)
        detail = f"median of {ROUNDS} rounds of {SECONDS} s each, {CLIENTS} clients, prepared"
        name = "enqueue/bare insert"
        bench.report.goal(name, ratio(ours, bare), *GOALS[name], detail)
        bench.report.figure("bare insert, transactions/s", statistics.median(bare))
        bench.report.figure("enqueue, transactions/s", statistics.median(ours))
        # it works on another queue, so that it hears of each job and takes none
        async with workers("daemon", module("jobs_worker", dsn, str(SLOTS), "service", "another")):
            bare, ours = await in_turn(bench, dsn, LISTENING_ROUNDS)
        bench.report.figure("enqueue/bare insert while a daemon listens", ratio(ours, bare))


async def visit(dsn: str) -> None:
    async with workers("worker", module("jobs_worker", dsn, str(SLOTS))) as children:
        children[0].order("go")
        await children[0].hear("done", 30)


async def in_turn(bench: Bench, dsn: str, rounds: int) -> tuple[list[float], list[float]]:
    bare, ours = [], []
    for _round in range(rounds):
        await execute(dsn, "truncate bench_bare", "truncate pipeline.job cascade")
        await settle(dsn)
        bare.append(bench.pgbench(dsn, BARE, clients=CLIENTS, seconds=SECONDS))
        ours.append(bench.pgbench(dsn, ENQUEUE, clients=CLIENTS, seconds=SECONDS))
        bench.report.say(f"bare {bare[-1]:10,.0f}   enqueue {ours[-1]:10,.0f} transactions/s")
    return bare, ours


async def bulk(bench: Bench) -> None:
    """Rows a second through the public method, each call a transaction of its own."""
    rates = []
    rows = [{"n": n} for n in range(BULK_CHUNK)]
    for _round in range(ROUNDS):
        async with bench.database("bulk") as dsn, job_store(dsn) as store:
            await store.enqueue_many(NOOP, rows[:WARM])
            began = time.perf_counter()
            for _chunk in range(BULK // BULK_CHUNK):
                await store.enqueue_many(NOOP, rows)
            rates.append(BULK / (time.perf_counter() - began))
            bench.report.say(f"bulk {rates[-1]:10,.0f} rows/s")
    name = "bulk enqueue, rows/s"
    detail = f"median of {ROUNDS} rounds of {BULK:,} rows, {BULK_CHUNK:,} a transaction, one connection"
    bench.report.goal(name, statistics.median(rates), *GOALS[name], detail)
