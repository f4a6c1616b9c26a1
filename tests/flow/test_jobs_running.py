"""What a job can do while it runs, and what can be done to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from handlers.jobs import JobWorker
from pipeline.app.jobs import Jobs
from pipeline.core.args import MOST_BYTES
from pipeline.core.job import Job
from pipeline.core.window import Windows
from pipeline.db.jobs import JobStore
from pipeline.errors import JobFailed, LeaseLost, TaskError
from pipeline.registry import Registry
from tests.conftest import eventually
from tests.jobs_kit import job_store, lose

STARTED = "select $1 = any(started) from pipeline.lease where id = $2"


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
async def store(dsn: str, registry: Registry) -> AsyncIterator[JobStore]:
    async with job_store(dsn, registry) as store:
        yield store


@pytest.fixture
def jobs(store: JobStore) -> Jobs:
    return Jobs(store)


@asynccontextmanager
async def running(
    store: JobStore, registry: Registry, queues: dict[str, int] | None = None, **options: Any
) -> AsyncIterator[JobWorker]:
    worker = JobWorker(store, registry, queues or {"default": 4}, **{"poll_seconds": 0.05, **options})
    await worker.start()
    task = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        await worker.stop()
        await asyncio.wait_for(task, 20)


async def ended(sql: asyncpg.Connection, id_: int) -> asyncpg.Record:
    row = await eventually(
        lambda: sql.fetchrow("select * from pipeline.job_archive where id = $1", id_), why="the job's end"
    )
    assert isinstance(row, asyncpg.Record)
    return row


async def test_effects_in_the_jobs_own_transaction_commit_with_its_end(
    store: JobStore, jobs: Jobs, registry: Registry, sql: asyncpg.Connection
) -> None:
    await sql.execute("create table effect (job bigint)")

    async def pay(job: Job) -> None:
        async with job.transaction() as connection:
            await connection.execute("insert into effect values ($1)", job.id)

    registry.add_task(pay, name="pay")
    windows = Windows(time.time)
    async with running(store, registry, timings=windows) as worker:
        job = await jobs.enqueue("pay")
        assert (await ended(sql, job.id))["state"] == "finished"
        await eventually(lambda: worker.status().finished_total == 1)
    assert await sql.fetchval("select count(*) from effect where job = $1", job.id) == 1
    assert await sql.fetchval("select count(*) from pipeline.lease") == 0
    assert {part.series.text for part in windows.take(None)} == {
        'job.run{task="pay"}',
        'job.wait{queue="default"}',
    }


async def test_an_error_in_the_jobs_transaction_takes_its_effects_back_and_the_job_is_retried(
    store: JobStore, jobs: Jobs, registry: Registry, sql: asyncpg.Connection
) -> None:
    await sql.execute("create table effect (job bigint)")

    async def pay(job: Job) -> None:
        async with job.transaction() as connection:
            await connection.execute("insert into effect values ($1)", job.id)
            if job.attempt == 1:
                raise OSError("no network")

    registry.add_task(pay, name="pay", backoff=lambda attempt, error: 0.0)
    async with running(store, registry):
        job = await jobs.enqueue("pay")
        row = await ended(sql, job.id)
    assert (row["state"], row["attempt"]) == ("finished", 2)
    assert await sql.fetchval("select count(*) from effect") == 1


@pytest.mark.parametrize("how", ["cancelled", "rescued"])
async def test_a_job_that_is_no_longer_the_workers_commits_nothing_saves_nothing_and_logs_nothing(
    store: JobStore, jobs: Jobs, registry: Registry, sql: asyncpg.Connection, how: str
) -> None:
    await sql.execute("create table effect (job bigint)")
    begun, go = asyncio.Event(), asyncio.Event()
    refused: list[type[BaseException]] = []

    async def slow(job: Job) -> None:
        if job.lost:
            return
        begun.set()
        await asyncio.shield(go.wait())

        async def late() -> None:
            job.log("too late")
            for call in (job.save({"n": 1}), job.progress(1, 2)):
                try:
                    await call
                except LeaseLost as error:
                    refused.append(type(error))
            try:
                async with job.transaction() as connection:
                    await connection.execute("insert into effect values ($1)", job.id)
            except LeaseLost as error:
                refused.append(type(error))

        await late()

    registry.add_task(slow, name="slow")
    async with running(store, registry) as worker:
        job = await jobs.enqueue("slow")
        await begun.wait()
        assert worker._shift is not None
        if how == "cancelled":
            # it goes on all the same, as a plain function in a thread would
            worker._shift.running = dict.fromkeys(worker._shift.running)
            assert await job.cancel("not needed")
        else:
            await lose(sql, worker._shift.worker)
            await store.rescue(10)  # or the worker's own chores were first
        go.set()
        row = await ended(sql, job.id)
        await eventually(lambda: len(refused) == 3, why="three refusals")
    assert row["state"] == ("cancelled" if how == "cancelled" else "finished")
    assert await sql.fetchval("select count(*) from effect") == 0
    assert await sql.fetchval("select count(*) from pipeline.job_state") == 0
    assert await sql.fetchval("select count(*) from pipeline.job_log") == 0


async def test_progress_and_what_was_saved_are_seen_from_outside_and_by_the_next_attempt(
    store: JobStore, jobs: Jobs, registry: Registry, sql: asyncpg.Connection
) -> None:
    look, go = asyncio.Event(), asyncio.Event()

    async def copy(job: Job) -> Any:
        if job.attempt == 1:
            await job.progress(30, 100, "rows")
            with pytest.raises(TaskError, match=r"saves are 1,048,577 bytes of JSON; a job takes 1,048,576"):
                await job.save("x" * (MOST_BYTES - 1))
            await job.save({"row": 30})
            look.set()
            await go.wait()
            raise OSError("gone")
        return await job.saved()

    registry.add_task(copy, name="copy", backoff=lambda attempt, error: 0.0)
    async with running(store, registry):
        job = await jobs.enqueue("copy")
        await asyncio.wait_for(look.wait(), 10)
        stage = await job.status()
        assert (stage.state, stage.done, stage.total, stage.note) == ("running", 30, 100, "rows")
        go.set()
        assert await job.result(timeout=10) == {"row": 30}


async def test_what_a_job_logs_is_kept_with_its_attempt(
    store: JobStore, jobs: Jobs, registry: Registry, sql: asyncpg.Connection
) -> None:
    def plain(job: Job) -> None:
        job.log(f"attempt {job.attempt}", "warning")
        job.wait(job.progress(1))
        if job.attempt == 1:
            raise OSError("again")

    registry.add_task(plain, name="plain", backoff=lambda attempt, error: 0.0)
    async with running(store, registry):
        job = await jobs.enqueue("plain")
        await ended(sql, job.id)
    rows = await sql.fetch(
        "select attempt, level, message from pipeline.job_log where job = $1 order by at", job.id
    )
    assert [tuple(row) for row in rows] == [(1, "warning", "attempt 1"), (2, "warning", "attempt 2")]


async def test_waiting_for_the_worker_inside_its_loop_is_an_error_and_not_a_deadlock(
    store: JobStore, jobs: Jobs, registry: Registry, sql: asyncpg.Connection
) -> None:
    async def wrong(job: Job) -> None:
        job.wait(job.progress(1))

    registry.add_task(wrong, name="wrong", max_attempts=1)
    async with running(store, registry):
        job = await jobs.enqueue("wrong")
        assert "await the call itself" in (await ended(sql, job.id))["error"]


async def test_a_result_is_awaited_from_anywhere_and_a_failure_is_told(
    store: JobStore, jobs: Jobs, registry: Registry
) -> None:
    async def double(job: Job, n: int) -> int:
        if n < 0:
            raise ValueError("below zero")
        return 2 * n

    registry.add_task(double, name="double", max_attempts=1)
    good, bad = await jobs.enqueue("double", n=21), await jobs.enqueue("double", n=-1)
    with pytest.raises(TimeoutError):
        await good.result(timeout=0.05)
    async with running(store, registry):
        assert await good.result(timeout=10) == 42
        assert await jobs.get(good.id).result() == 42
        with pytest.raises(JobFailed, match="ValueError: below zero") as caught:
            await bad.result(timeout=10)
    assert caught.value.state == "failed"
    with pytest.raises(TaskError, match="there is no job"):
        await jobs.get(10**12).result(timeout=1)


@pytest.mark.parametrize("told", [True, False], ids=["told", "found out"])
async def test_a_running_job_that_is_cancelled_stops_and_is_not_written_again(
    store: JobStore, jobs: Jobs, registry: Registry, sql: asyncpg.Connection, told: bool
) -> None:
    begun, stopped = asyncio.Event(), asyncio.Event()

    async def endless(job: Job) -> None:
        begun.set()
        try:
            await asyncio.sleep(3600)
        finally:
            stopped.set()

    registry.add_task(endless, name="endless", timeout=600)
    async with running(store, registry) as worker:
        job = await jobs.enqueue("endless")
        await begun.wait()
        assert await job.cancel("wrong order")
        if told:
            worker.cancel([job.id])
        await asyncio.wait_for(stopped.wait(), 10)
        with pytest.raises(JobFailed, match="cancelled: wrong order"):
            await job.result(timeout=5)
        assert not await job.cancel()
        after = await jobs.enqueue("endless", run_at=datetime.now(UTC) + timedelta(hours=1))
        assert await after.cancel()
        await eventually(lambda: sql.fetchval("select count(*) = 0 from pipeline.lease"), why="no lease")
    assert worker.status().failed_total == 0


async def test_a_task_goes_on_after_its_own_transaction_has_ended_the_job(
    store: JobStore, jobs: Jobs, registry: Registry, sql: asyncpg.Connection
) -> None:
    committed, go, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def pay(job: Job) -> None:
        async with job.transaction():
            pass
        committed.set()
        await go.wait()
        done.set()

    registry.add_task(pay, name="pay")
    async with running(store, registry) as worker:
        await jobs.enqueue("pay")
        await committed.wait()
        assert worker._shift is not None
        await worker._chores._look_for_cancelled()
        await asyncio.sleep(0)
        go.set()
        await asyncio.wait_for(done.wait(), 10)


async def test_a_job_that_was_cancelled_and_let_run_again_runs(
    store: JobStore, jobs: Jobs, registry: Registry, sql: asyncpg.Connection
) -> None:
    async def noop(job: Job) -> int:
        return 7

    registry.add_task(noop, name="noop")
    async with running(store, registry) as worker:
        job = await jobs.enqueue("noop", run_at=datetime.now(UTC) + timedelta(hours=1))
        assert await job.cancel()
        worker.cancel([job.id])
        assert await jobs.admin.retry([job.id]) == [job.id]
        assert await job.result(timeout=10) == 7


async def test_a_job_that_has_not_begun_in_time_expires(
    store: JobStore, jobs: Jobs, registry: Registry, sql: asyncpg.Connection
) -> None:
    async def noop(job: Job) -> None: ...

    registry.add_task(noop, name="noop")
    late = await jobs.enqueue("noop", expires_at=datetime.now(UTC) - timedelta(seconds=1))
    waiting = await jobs.enqueue(
        "noop", run_at=datetime.now(UTC) + timedelta(hours=1), expires_at=datetime.now(UTC) - timedelta(seconds=1)
    )
    paused = await jobs.enqueue("noop", queue="paused", expires_at=datetime.now(UTC) - timedelta(seconds=1))
    await sql.execute("select pipeline.pause_queue('paused')")
    good = await jobs.enqueue("noop", expires_at=datetime.now(UTC) + timedelta(hours=1))
    async with running(store, registry, {"default": 1, "paused": 1}):
        for job in (late, waiting, paused):
            assert (await ended(sql, job.id))["state"] == "expired"
        assert (await ended(sql, good.id))["state"] == "finished"


async def test_a_queue_runs_more_or_fewer_at_once_as_soon_as_that_is_set(
    store: JobStore, jobs: Jobs, registry: Registry, sql: asyncpg.Connection
) -> None:
    now, most, go = 0, 0, asyncio.Event()

    async def wait(job: Job) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await go.wait()
        now -= 1

    registry.add_task(wait, name="wait")
    await jobs.enqueue_many("wait", [{}] * 6)
    async with running(store, registry, {"default": 1}) as worker:
        await eventually(lambda: now == 1)
        await sql.execute("select pipeline.set_queue('default', slots => 3)")
        await eventually(lambda: now == 3, why="three at once")
        await sql.execute("select pipeline.set_queue('default', slots => 2)")
        await eventually(lambda: worker._shift is not None and worker._shift.queues["default"].concurrency == 2)
        go.set()
        await eventually(lambda: sql.fetchval("select count(*) = 6 from pipeline.job_archive"))
        await eventually(lambda: worker._shift is not None and worker._shift.queues["default"].slots == 2)
    assert most == 3


async def test_queues_that_share_places_never_run_more_than_there_are(
    store: JobStore, jobs: Jobs, registry: Registry, sql: asyncpg.Connection
) -> None:
    now, most = 0, 0

    async def work(job: Job) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.002)
        now -= 1

    registry.add_task(work, name="work")
    for queue in ("a", "b"):
        await store.enqueue_many("work", [{}] * 40, queue=queue)
    async with running(store, registry, {"a": 5, "b": 5}, total=3):
        await eventually(lambda: sql.fetchval("select count(*) = 80 from pipeline.job_archive"))
    assert most == 3


async def test_a_poison_job_is_dead_after_three_workers_and_its_neighbours_live(
    store: JobStore, jobs: Jobs, registry: Registry, sql: asyncpg.Connection
) -> None:
    poison = (await jobs.enqueue("bomb")).id
    others = [(await jobs.enqueue("good")).id for _ in range(5)]
    for _ in range(3):  # each of these workers takes all, begins the bomb, and is gone
        worker = await store.register("w", ["default"])
        await store.adopt()
        taken = (await store.claim("default", 10, worker)).jobs
        for job in taken:
            if job.lost and job.id == poison:
                assert await store.begin(job, worker)
        await lose(sql, worker)
        await store.rescue(10)
    row = await ended(sql, poison)
    assert (row["state"], row["lost"]) == ("failed", 3)
    assert "three workers vanished" in row["error"]
    rows = await sql.fetch("select attempt, lost from pipeline.job where id = any($1::bigint[])", others)
    assert [tuple(row) for row in rows] == [(2, 1)] * 5


async def test_a_job_once_lost_is_run_alone_and_noted_first(
    store: JobStore, jobs: Jobs, registry: Registry, sql: asyncpg.Connection, dsn: str
) -> None:
    now, most, noted = 0, 0, []
    own = await asyncpg.connect(dsn)

    async def work(job: Job) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        noted.append(await own.fetchval(STARTED, job.id, job.lease))
        now -= 1

    registry.add_task(work, name="work")
    await jobs.enqueue_many("work", [{}] * 4)
    gone = await store.register("gone", ["default"])
    await store.adopt()
    assert len((await store.claim("default", 10, gone)).jobs) == 4
    await lose(sql, gone)
    await store.rescue(10)
    async with running(store, registry):
        await eventually(lambda: sql.fetchval("select count(*) = 4 from pipeline.job_archive"))
    await own.close()
    assert (most, noted) == (1, [True] * 4)


async def test_jobs_of_a_task_with_batch_are_run_together(
    store: JobStore, jobs: Jobs, registry: Registry, sql: asyncpg.Connection
) -> None:
    sizes: list[int] = []

    async def send(jobs: list[Job]) -> dict[int, Any]:
        sizes.append(len(jobs))
        return {job.id: job.args["n"] for job in jobs}

    registry.add_task(send, name="send", batch=10, batch_wait=0.2)
    ids = await jobs.enqueue_many("send", [{"n": n} for n in range(25)])
    async with running(store, registry, {"default": 4}):
        assert [await jobs.get(id_).result(timeout=10) for id_ in ids] == list(range(25))
    assert sum(sizes) == 25
    assert max(sizes) == 10
    assert len(sizes) <= 6
