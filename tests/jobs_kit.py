"""What the tests of the job queue share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import asyncpg

from pipeline.core.job import Job, Outcome
from pipeline.db.jobs import JobStore, job_database
from pipeline.db.statements import statement
from pipeline.registry import Registry


@asynccontextmanager
async def job_store(dsn: str, registry: Registry | None = None) -> AsyncIterator[JobStore]:
    """A store with a pool of its own."""
    async with job_database(dsn) as database:
        yield JobStore(database, registry=registry)


async def claim(store: JobStore, worker: int, limit: int = 100, queue: str = "default") -> list[Job]:
    """As a worker's feeder claims: lanes first, then up to `limit` jobs."""
    await store.adopt()
    return (await store.claim(queue, limit, worker)).jobs


async def sweep(store: JobStore, worker: int, limit: int = 100, queue: str = "default") -> list[Job]:
    """Sweep now, however short ago the last one was."""
    return (await store.sweep(queue, limit, worker, every=0)).jobs


def ids(jobs: Iterable[Job]) -> list[int]:
    return [job.id for job in jobs]


def finished(jobs: Iterable[Job]) -> list[Outcome]:
    return [Outcome(job, "finish") for job in jobs]


def leases(jobs: Iterable[Job]) -> list[int]:
    return sorted({job.lease for job in jobs})


async def lose(sql: asyncpg.Connection, worker: int) -> None:
    """The worker was last seen long ago."""
    await sql.execute("update pipeline.worker set seen_at = seen_at - interval '1 hour' where id = $1", worker)


@asynccontextmanager
async def asleep(dsn: str, queue: str = "default") -> AsyncIterator[None]:
    """As if a worker of the queue slept: whoever adds a job rings."""
    connection = await asyncpg.connect(dsn)
    try:
        assert await connection.fetchval(statement("jobs/fall_asleep"), queue) == "mine"
        yield
    finally:
        await connection.close()
