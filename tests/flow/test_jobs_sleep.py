"""No job waits for a worker that sleeps, though nobody rings while workers are awake."""

from __future__ import annotations

import asyncio
import contextlib
from random import Random

import asyncpg

from handlers.jobs import JobWorker
from pipeline.core.job import Job
from pipeline.db.sleeping import Sleeping
from pipeline.registry import Registry
from tests.conftest import eventually
from tests.jobs_kit import job_store

SECONDS = 4.0
BELLS = "delete from pipeline.outbox_{} where name = 'pipeline.jobs' returning payload"


async def ring(dsn: str, workers: list[JobWorker], heard: list[str]) -> None:
    """Carry each bell to every worker, as the feed does."""
    connection = await asyncpg.connect(dsn)
    try:
        while True:
            for table in (0, 1):
                for row in await connection.fetch(BELLS.format(table)):
                    heard.append(row["payload"])
                    for worker in workers:
                        worker.wake(row["payload"])
            await asyncio.sleep(0.002)
    finally:
        connection.terminate()


async def produce(dsn: str, rng: Random, until: asyncio.Event) -> int:
    """One job at a time, with pauses in which workers fall asleep; now and then the transaction stays open."""
    connection = await asyncpg.connect(dsn)
    made = 0
    while not until.is_set():
        async with connection.transaction():
            for _ in range(rng.choice((1, 1, 1, 30))):
                await connection.execute("select pipeline.enqueue('noop')")
                made += 1
            if rng.random() < 0.2:
                await asyncio.sleep(rng.random() * 0.2)
        await asyncio.sleep(rng.choice((0, 0, 0.01, 0.15)) * rng.random())
    await connection.close()
    return made


async def test_a_worker_falls_asleep_only_once_no_job_is_added_unheard(dsn: str, sql: asyncpg.Connection) -> None:
    await sql.execute("select pipeline.request_lane('default', 0)")
    await sql.execute("select pipeline.adopt_lanes()")
    one, two = Sleeping(dsn), Sleeping(dsn)
    try:
        async with sql.transaction():
            await sql.execute("select pipeline.enqueue('noop')")
            assert not await one.fall_asleep("default")  # this job will ring for nobody
            assert await one.fall_asleep("mail")
        assert await one.fall_asleep("default")
        assert await two.fall_asleep("default")  # the other's lock serves both
        assert one.rung("default")
        assert two.rung("default")
        await one.wake("default")
        assert not one.rung("default")
        assert await two.fall_asleep("default")
    finally:
        await one.close()
        await two.close()


async def test_every_job_is_found_without_a_poll(dsn: str, sql: asyncpg.Connection) -> None:
    registry = Registry()

    async def noop(job: Job) -> None: ...

    registry.add_task(noop, name="noop")
    heard: list[str] = []
    over = asyncio.Event()
    async with job_store(dsn, registry) as one, job_store(dsn, registry) as two:
        await one.enqueue("noop")
        await one.adopt()
        workers = [JobWorker(store, registry, {"default": 4}, poll_seconds=3600) for store in (one, two)]
        for worker in workers:
            await worker.start()
        tasks = [asyncio.create_task(worker.run()) for worker in workers]
        bell = asyncio.create_task(ring(dsn, workers, heard))
        producers = [asyncio.create_task(produce(dsn, Random(n), over)) for n in range(3)]
        await asyncio.sleep(SECONDS)
        over.set()
        made = sum(await asyncio.gather(*producers)) + 1
        await eventually(
            lambda: sql.fetchval("select count(*) = $1 from pipeline.job_archive", made), within=5, why="all jobs"
        )
        bell.cancel()
        for worker in workers:
            await worker.stop()
        await asyncio.gather(*tasks)
        with contextlib.suppress(asyncio.CancelledError):
            await bell
    assert 0 < len(heard) < made / 2, "the bell was rung, and seldom"
