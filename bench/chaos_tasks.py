"""The tasks of the chaos check: small ones that write down what they did.

Owns: what each kind of job does, and its fenced record that it has begun. Knows nothing of the faults.

`started` is the fenced record: it holds the lease's row and writes in the same statement, so a worker whose
lease is gone cannot make one. `pool` is set by the worker process: connections that have nothing to do with the
queue's own.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from pipeline.core.directives import Snooze
from pipeline.core.job import Job
from pipeline.core.limits import Unique
from pipeline.core.retry import Backoff
from pipeline.errors import LeaseLost
from pipeline.registry import task

OFTEN = 1_000  # attempts: faults must not end a job before the check does
SOON = Backoff(first=0.2, factor=1.5, longest=2.0)
DSN = "CHAOS_DSN"

EFFECT = "insert into chaos.effect values ($1, $2)"
STARTED = """
with held as materialized (
    select l.id, l.worker from pipeline.lease l where l.id = $3 and $1 = any(l.ids) for key share
)
insert into chaos.start (job, attempt, lease, worker) select $1, $2, h.id, h.worker from held h returning true
"""

pool: asyncpg.Pool[Any] | None = None


async def run(query: str, *args: Any) -> Any:
    """One statement on a connection that is not the queue's."""
    assert pool is not None
    return await pool.fetchval(query, *args)


async def started(job: Job) -> None:
    """The job begins, and its lease is still there. Raises LeaseLost."""
    if not await run(STARTED, job.id, job.attempt, job.lease):
        await refused(job, "start")
        raise LeaseLost(f"job {job.id} began after its lease was gone")


async def refused(job: Job, what: str) -> None:
    await run("insert into chaos.refused values ($1, $2)", job.id, what)


async def effect(job: Job) -> None:
    await run(EFFECT, job.id, job.attempt)


@asynccontextmanager
async def span(job: Job) -> AsyncIterator[None]:
    """From a fenced start to its end, in the database."""
    await started(job)
    try:
        yield
    finally:
        await run("insert into chaos.stop values ($1, $2)", job.id, job.lease)


@task("chaos.plain", max_attempts=OFTEN, backoff=SOON)
async def plain(job: Job, n: int = 0) -> int:
    await effect(job)
    return n


@task("chaos.started", max_attempts=OFTEN, backoff=SOON)
async def with_start(job: Job, n: int = 0) -> None:
    """Also the delayed ones."""
    await started(job)
    await effect(job)


@task("chaos.flaky", max_attempts=OFTEN, backoff=SOON)
async def flaky(job: Job, n: int = 0) -> None:
    """Fails up to twice, then snoozes once in a while."""
    if job.attempt <= n % 3:
        raise RuntimeError(f"not in attempt {job.attempt}")
    if n % 5 == 0 and await job.saved() is None:
        await job.save("snoozed")
        raise Snooze(0.5)
    await effect(job)


@task("chaos.one", queue="keys", concurrency_key="one:{n}", concurrency=1, max_attempts=OFTEN, backoff=SOON)
async def one_at_a_time(job: Job, n: int) -> None:
    async with span(job):
        await asyncio.sleep(0.005)
        await effect(job)


@task("chaos.two", queue="keys", concurrency_key="two:{n}", concurrency=2, max_attempts=OFTEN, backoff=SOON)
async def two_at_a_time(job: Job, n: int) -> None:
    async with span(job):
        await asyncio.sleep(0.01)
        await effect(job)


@task("chaos.five", queue="five", max_attempts=OFTEN, backoff=SOON)
async def five_at_a_time(job: Job, n: int = 0) -> None:
    async with span(job):
        await asyncio.sleep(0.01)
        await effect(job)


@task("chaos.rated", queue="rated", max_attempts=OFTEN, backoff=SOON)
async def rated(job: Job, n: int = 0) -> None:
    await effect(job)


@task("chaos.key_rated", queue="keys", concurrency_key="rate:{n}", rate="2/s", max_attempts=OFTEN, backoff=SOON)
async def key_rated(job: Job, n: int) -> None:
    await effect(job)


@task("chaos.tenant", queue="keys", tenant="tenant:{n}", max_attempts=OFTEN, backoff=SOON)
async def tenant(job: Job, n: int) -> None:
    await effect(job)


@task("chaos.unique", unique=Unique(by="{n}"), max_attempts=OFTEN, backoff=SOON)
async def unique(job: Job, n: int) -> None:
    await asyncio.sleep(0.05)
    await effect(job)


@task("chaos.expiring", expires=2.0, max_attempts=OFTEN, backoff=SOON)
async def expiring(job: Job, n: int = 0) -> None:
    await effect(job)


@task("chaos.batch", batch=20, batch_wait=0.05, max_attempts=OFTEN, backoff=SOON)
async def batch(jobs: list[Job]) -> None:
    await run("insert into chaos.effect select * from unnest($1::bigint[], $2::int[])",
              [job.id for job in jobs], [job.attempt for job in jobs])  # fmt: skip


@task("chaos.thread", max_attempts=OFTEN, backoff=SOON)
def in_thread(job: Job, n: int = 0) -> None:
    time.sleep(0.01)
    job.wait(effect(job))


@task("chaos.process", queue="processes", process=True, max_attempts=OFTEN, backoff=SOON)
def in_process(job: Job, n: int = 0) -> None:
    async def connect_and_run() -> None:
        connection = await asyncpg.connect(os.environ[DSN])
        await connection.execute(EFFECT, job.id, job.attempt)
        await connection.close()

    asyncio.run(connect_and_run())


@task("chaos.transaction", max_attempts=OFTEN, backoff=SOON)
async def in_transaction(job: Job, n: int = 0) -> None:
    try:
        async with job.transaction() as connection:
            await connection.execute("insert into chaos.effect_tx values ($1, $2)", job.id, job.attempt)
            if n % 20 == 0:
                await asyncio.sleep(0.3)  # so that faults hit transactions
    except LeaseLost:
        await refused(job, "transaction")
        raise


@task("chaos.saver", queue="slow", max_attempts=OFTEN, backoff=SOON)
async def saver(job: Job, n: int = 0) -> None:
    """Goes on from what was saved; writes down where it began and every step that was saved."""
    saved = await job.saved() or 0
    await run("insert into chaos.resumed (job, n) values ($1, $2)", job.id, saved)
    for step in range(saved + 1, 6):
        await asyncio.sleep(0.05)
        await guarded(job, "save", job.save(step))
        await run("insert into chaos.step (job, n) values ($1, $2)", job.id, step)
    await effect(job)


@task("chaos.long", queue="slow", max_attempts=OFTEN, backoff=SOON)
async def long(job: Job, n: int = 0) -> None:
    """Two seconds; talks at the end, which one that was stopped past its lease does too late."""
    await started(job)
    for part in range(8):
        await asyncio.sleep(0.25)
        job.log(f"part {part} under lease {job.lease}")
    await guarded(job, "progress", job.progress(8, 8))
    await effect(job)


@task("chaos.cancelled", queue="slow", max_attempts=OFTEN, backoff=SOON)
async def to_be_cancelled(job: Job, n: int = 0) -> None:
    """Ends only when it is cancelled, so one that nobody stops is stuck."""
    await started(job)
    while True:
        await asyncio.sleep(60)


@task("chaos.letter", max_attempts=1)
async def letter(job: Job, n: int = 0) -> None:
    """Fails for good until somebody lets it run again."""
    if not await run("select exists (select from chaos.redriven where job = $1)", job.id):
        raise RuntimeError("a dead letter")
    await effect(job)


@task("chaos.workflow", max_attempts=OFTEN, backoff=SOON)
async def in_workflow(job: Job, n: int, place: int) -> int:
    """A job of a diamond: place 0 is its first, 1 one of the three in the middle, 2 the last."""
    await started(job)
    expected = [{}, {"first": n}, {"a": n + 1, "b": n + 1, "c": n + 1}][place]
    results = await job.results()
    if dict(results) != expected:
        await run("insert into chaos.wrong values ($1)", f"workflow job {job.id} was given {results}")
    return n + place


@task("chaos.poison", queue="poison", max_attempts=OFTEN)
async def poison(job: Job, n: int = 0) -> None:
    """Takes its worker with it, whenever it runs."""
    await started(job)
    os.kill(os.getpid(), signal.SIGKILL)


@task("chaos.neighbour", queue="poison", max_attempts=OFTEN, backoff=SOON)
async def neighbour(job: Job, n: int = 0) -> None:
    """Shares a queue, and often a lease, with the poison."""
    await effect(job)


async def guarded(job: Job, what: str, write: Any) -> None:
    """A write that its lease permits; notes when it was refused."""
    try:
        await write
    except LeaseLost:
        await refused(job, what)
        raise
