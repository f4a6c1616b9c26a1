"""Workers that reach the database only through a transaction pooler: every job is done, each once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

import pipeline
from handlers.jobs import JobWorker
from pipeline.app.poll_only import POLL_SECONDS
from pipeline.core.job import Job
from pipeline.core.retry import Backoff
from pipeline.db.jobs import JobStore, job_database
from pipeline.registry import Registry
from tests.conftest import eventually
from tests.pooler_kit import left_behind, needs_pgbouncer, pgbouncer

pytestmark = needs_pgbouncer
JOBS = 500


@pytest.fixture
def pooled_dsn(dsn: str) -> Iterator[str]:
    with pgbouncer(dsn) as address:
        yield address


@pytest.mark.parametrize("workers", [1, 2])
async def test_five_hundred_jobs_with_retries_and_delays_are_each_done_once(
    pooled_dsn: str, sql: asyncpg.Connection, workers: int
) -> None:
    begun, done = Counter[int](), Counter[int]()
    registry = Registry()

    async def work(job: Job, n: int) -> int:
        begun[n] += 1
        await asyncio.sleep(0)
        if n % 5 == 0 and job.attempt == 1:
            raise RuntimeError("again")
        done[n] += 1
        return n

    registry.add_task(work, name="work", backoff=Backoff(first=0.05, factor=1, jitter=0))
    async with AsyncExitStack() as stack:
        producer = JobStore(await stack.enter_async_context(job_database(pooled_dsn)))
        running = [
            await stack.enter_async_context(_worker(pooled_dsn, registry, f"w{number}"))
            for number in range(workers)
        ]
        soon = datetime.now(UTC) + timedelta(seconds=0.5)
        for n in range(0, JOBS, 5):
            await producer.enqueue("work", {"n": n}, run_at=soon if n % 2 else None)
        await producer.enqueue_many("work", [{"n": n} for n in range(JOBS) if n % 5])
        await eventually(lambda: done.total() >= JOBS, within=60)
        await eventually(lambda: sql.fetchval("select not exists (select from pipeline.job)"), within=30)
    assert done == Counter(range(JOBS))
    assert begun == Counter(range(JOBS)) + Counter(range(0, JOBS, 5))
    rows = await sql.fetch("select state, attempt, count(*) from pipeline.job_archive group by 1, 2 order by 2")
    assert [tuple(row) for row in rows] == [("finished", 1, JOBS - JOBS // 5), ("finished", 2, JOBS // 5)]
    finished = [worker.status().finished_total for worker in running]
    assert sum(finished) == JOBS
    assert await sql.fetchval("select count(*) from pipeline.worker") == 0
    assert await left_behind(pooled_dsn) == []


class _worker:
    """A worker with a pool of its own, stopped in good order."""

    def __init__(self, dsn: str, registry: Registry, name: str) -> None:
        self._database = job_database(dsn)
        self._worker = JobWorker(
            JobStore(self._database, registry=registry), registry, {"default": 20}, worker_name=name
        )
        self._worker.poll_every(POLL_SECONDS)

    async def __aenter__(self) -> JobWorker:
        await self._database.open()
        await self._worker.start()
        self._task = asyncio.create_task(self._worker.run())
        return self._worker

    async def __aexit__(self, *_exc: object) -> None:
        await self._worker.stop()
        await asyncio.wait_for(self._task, 30)
        await self._database.close()


async def test_a_job_is_found_by_looking_five_times_a_second(pooled_dsn: str, sql: asyncpg.Connection) -> None:
    began = asyncio.Event()
    registry = Registry()

    async def work(job: Job) -> None:
        began.set()

    registry.add_task(work, name="work")
    async with _worker(pooled_dsn, registry, "w"):
        await eventually(lambda: sql.fetchval("select exists (select from pipeline.worker)"))
        waits = []
        for _job in range(3):
            began.clear()
            await asyncio.sleep(POLL_SECONDS / 2)
            asked = asyncio.get_running_loop().time()
            await sql.execute("select pipeline.enqueue('work')")
            await asyncio.wait_for(began.wait(), 10)
            waits.append(asyncio.get_running_loop().time() - asked)
        assert min(waits) < 0.6  # with the usual second it would take that, less what has passed of it


async def test_a_client_enqueues_and_reads_through_the_pooler_and_caches_nothing(
    pooled_dsn: str, sql: asyncpg.Connection
) -> None:
    await sql.execute("create table shop (id int primary key)")
    async with pipeline.connect(pooled_dsn) as client:
        for n in range(3):
            await sql.execute("insert into shop values ($1)", n)
            found = await client.cache.query("select count(*) as n from shop", tags="shop")
            assert found == [{"n": n + 1}]
        await client.enqueue("send", order_id=7)
        await client.emit("a.channel", "1")
        assert client.follower.reconnects_total == -1
    assert await sql.fetchval("select count(*) from pipeline.job") == 1
    assert await left_behind(pooled_dsn) == []


async def test_a_client_with_another_address_for_listening_keeps_its_cache(dsn: str, pooled_dsn: str) -> None:
    async with pipeline.connect(pooled_dsn, listen_dsn=dsn) as client:
        await eventually(lambda: client.cache.healthy().ok)
        await client.cache.query("select 1 as n", tags="t")
        await client.cache.query("select 1 as n", tags="t")
        assert client.cache.status().hits_total == 1
    assert await left_behind(pooled_dsn) == []
