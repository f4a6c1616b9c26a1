"""What a snapshot that somebody holds open does to a queue: ours, and the classical one under the same load.

Owns: the load and its phases: some time without a snapshot, then minutes with one. Before the first and at the
end of the second, a burst shows how fast the queue could go.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg
import msgspec

from bench import jobs_classical
from bench.jobs_child import Child, module
from bench.jobs_kit import NOOP, SLOTS, Bench, amount, archived_rate, fetchval, job_store, settle, workers
from bench.report import edges, fall

PER_SECOND = 800
FREE_SECONDS = amount(40, 2)
HELD_SECONDS = amount(300, 4)
WARM_SECONDS = amount(5, 1)
BURST = amount(20_000, 3_000)
TICK_SECONDS = 0.01
EMPTY_SECONDS = 60.0
BATCH = 1_000

GOALS = {"throughput lost under a held snapshot": ("<=", 0.05), "claim at the end/at the start": ("<=", 1.1)}
Add = Callable[[int], Awaitable[object]]


class Queue:
    """One contestant under load: the child that works, its tables, and how jobs are added."""

    def __init__(self, worker: Child, dsn: str, archive: str, add: Add) -> None:
        self.worker = worker
        self.dsn = dsn
        self.archive = archive
        self._add = add
        self.made = 0

    async def add(self, jobs: int) -> None:
        self.made += jobs
        await self._add(jobs)

    async def all_done(self) -> None:
        """Wait until all jobs are done by the worker's own word: to ask the server would slow it down."""
        while await self.worker.hear("done", EMPTY_SECONDS) < self.made:
            pass


class Held(msgspec.Struct):
    """Jobs a second without and with the snapshot, claims in ms, bursts in jobs a second."""

    free: float
    held: float
    claim_first: float
    claim_last: float
    burst_free: float
    burst_held: float


async def measure(bench: Bench) -> None:
    found = await ours(bench)
    detail = f"{PER_SECOND} jobs/s offered, {FREE_SECONDS} s without a snapshot, then {HELD_SECONDS} s with one"
    lost, slower = GOALS
    bench.report.goal(lost, fall(found.free, found.held), *GOALS[lost], detail)
    bench.report.goal(slower, found.claim_last / found.claim_first, *GOALS[slower], "medians of its tenths")
    tell(bench, "ours", found)
    tell(bench, "classical", await classical(bench))


def tell(bench: Bench, name: str, found: Held) -> None:
    figure = bench.report.figure
    figure(f"held snapshot, {name}: jobs/s without", found.free)
    figure(f"held snapshot, {name}: jobs/s with", found.held)
    figure(f"held snapshot, {name}: claim at the start, ms", found.claim_first)
    figure(f"held snapshot, {name}: claim at the end, ms", found.claim_last)
    figure(f"held snapshot, {name}: burst without, jobs/s", found.burst_free)
    figure(f"held snapshot, {name}: burst at the end, jobs/s", found.burst_held)


async def ours(bench: Bench) -> Held:
    async with (
        bench.database("held") as dsn,
        workers("daemon", module("jobs_worker", dsn, str(SLOTS), "service")) as [daemon],
        job_store(dsn) as store,
    ):

        async def add(jobs: int) -> None:
            await store.enqueue_many(NOOP, [{"n": n} for n in range(jobs)])

        return await phases(Queue(daemon, dsn, "pipeline.job_archive", add))


async def classical(bench: Bench) -> Held:
    async with bench.database("held", "template1") as dsn:
        await jobs_classical.create(dsn)
        connection = await asyncpg.connect(dsn)

        async def add(jobs: int) -> None:
            await jobs_classical.add(connection, range(jobs))

        argv = module("jobs_classical", dsn, str(BATCH), "2")
        async with workers("classical", argv) as [worker]:
            worker.order("go")
            found = await phases(Queue(worker, dsn, "queue_archive", add))
        await connection.close()
        return found


async def phases(queue: Queue) -> Held:
    """The whole course; ends the worker."""
    await offer(queue, WARM_SECONDS)
    await queue.all_done()
    await settle(queue.dsn)
    burst_free = await burst(queue)
    free = await offer(queue, FREE_SECONDS)
    async with snapshot(queue):
        start = time.monotonic()
        held = await offer(queue, HELD_SECONDS)
        end = time.monotonic()
        await queue.all_done()
        burst_held = await burst(queue)
    queue.worker.end_input()
    claims = [(at, took * 1000) for at, took in await queue.worker.hear("claims", 60) if start <= at <= end]
    return Held(free, held, *edges(claims), burst_free, burst_held)


@asynccontextmanager
async def snapshot(queue: Queue) -> AsyncIterator[None]:
    """A transaction that sees the past as long as the block lasts, as a forgotten report does."""
    connection = await asyncpg.connect(queue.dsn)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            await connection.fetchval(f"select count(*) from {queue.archive}")
            yield
    finally:
        await connection.close()


async def offer(queue: Queue, seconds: float) -> float:
    """Add jobs at a steady pace; returns how many a second were finished durably meanwhile."""
    began = await fetchval(queue.dsn, "select clock_timestamp()")
    start, made = time.monotonic(), 0
    while (passed := time.monotonic() - start) < seconds:
        due = int(passed * PER_SECOND) - made
        if due > 0:
            await queue.add(due)
            made += due
        await asyncio.sleep(TICK_SECONDS)
    query = (
        "select count(*)::float8 / extract(epoch from clock_timestamp() - $1::timestamptz)::float8"
        f" from {queue.archive} where finished_at >= $1"
    )
    return float(await fetchval(queue.dsn, query, began))


async def burst(queue: Queue) -> float:
    """Jobs a second of many that come at once."""
    last = await fetchval(queue.dsn, f"select coalesce(max(id), 0) from {queue.archive}")
    await queue.add(BURST)
    await queue.all_done()
    return await archived_rate(queue.dsn, BURST, queue.archive, last)
