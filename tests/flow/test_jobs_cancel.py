"""The worker and jobs that somebody cancels."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import asyncpg
import pytest

from pipeline.core.job import Job
from pipeline.db.jobs import JobStore
from pipeline.registry import Registry
from tests.conftest import eventually
from tests.flow.test_jobs_worker import archived, running
from tests.jobs_kit import job_store


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[JobStore]:
    async with job_store(dsn) as store:
        yield store


@pytest.fixture
def registry() -> Registry:
    return Registry()


async def cancel(sql: asyncpg.Connection, *ids: int) -> None:
    assert len(await sql.fetchval("select pipeline.cancel_jobs($1)", list(ids))) == len(ids)


async def test_a_job_that_takes_its_time_to_end_does_not_take_its_slot_along(
    store: JobStore, registry: Registry, sql: asyncpg.Connection
) -> None:
    tidied: list[bool] = []
    began = asyncio.Event()

    async def slow(job: Job) -> None:
        began.set()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.3)  # several looks for cancelled jobs
            tidied.append(True)

    async def quick(job: Job) -> None: ...

    registry.add_task(slow, name="slow")
    registry.add_task(quick, name="quick")
    id_ = await store.enqueue("slow")
    async with running(store, registry, {"default": 1}) as worker:
        await began.wait()
        await cancel(sql, id_)
        worker.cancel([id_])
        await store.enqueue("quick")
        await eventually(archived(sql, 2))
    assert tidied == [True]


async def test_a_job_that_was_cancelled_and_is_let_run_again_runs_on_the_same_worker(
    store: JobStore, registry: Registry, sql: asyncpg.Connection
) -> None:
    runs: list[int] = []

    async def slow(job: Job) -> None:
        runs.append(job.id)
        if len(runs) == 1:
            await asyncio.sleep(60)

    registry.add_task(slow, name="slow")
    id_ = await store.enqueue("slow")
    async with running(store, registry, {"default": 1}) as worker:
        await eventually(lambda: runs == [id_])
        await cancel(sql, id_)
        worker.cancel([id_])
        await sql.fetchval("select pipeline.retry_jobs($1)", [id_])
        await eventually(lambda: runs == [id_, id_])
        [row] = await eventually(archived(sql, 1))
        assert row["state"] == "finished"


async def test_a_job_cancelled_before_it_begins_never_does_and_one_put_back_does(
    store: JobStore, registry: Registry, sql: asyncpg.Connection
) -> None:
    """Both are told of by the feed while the worker holds them, and may have been put back since."""
    runs: list[int] = []
    go = asyncio.Event()

    async def hold(job: Job) -> None:
        runs.append(job.id)
        await go.wait()

    registry.add_task(hold, name="hold")
    first = await store.enqueue("hold")
    async with running(store, registry, {"default": 1}) as worker:
        await eventually(lambda: runs == [first])
        gone, back = await store.enqueue("hold"), await store.enqueue("hold")
        await cancel(sql, gone, back)
        worker.cancel([gone, back])
        await sql.fetchval("select pipeline.retry_jobs($1)", [back])
        go.set()
        await eventually(archived(sql, 3))
    assert runs == [first, back]


async def test_a_task_that_swallows_its_cancellation_neither_holds_up_the_end_nor_ends_the_slot(
    store: JobStore, registry: Registry, sql: asyncpg.Connection
) -> None:
    began: list[int] = []

    async def stubborn(job: Job) -> None:
        began.append(job.id)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0)

    async def late(job: Job) -> None:
        await asyncio.sleep(60)

    registry.add_task(stubborn, name="stubborn")
    registry.add_task(late, name="late", timeout=1.0, max_attempts=1)
    id_ = await store.enqueue("stubborn")
    async with running(store, registry, {"default": 1}, drain_seconds=0.1) as worker:
        await eventually(lambda: began == [id_])
        await cancel(sql, id_)
        worker.cancel([id_])
        await store.enqueue("late")
        [*_, row] = await eventually(archived(sql, 2))
        assert row["state"] == "failed"
        assert "timeout" in row["error"]
        await store.enqueue("stubborn")
        await eventually(lambda: len(began) == 2)


@pytest.mark.parametrize("timeout", [None, 60.0])
@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize("then", ["waits", "returns", "goes on"])
async def test_a_task_that_cancels_whoever_runs_it_has_failed_and_its_slot_goes_on(
    store: JobStore,
    registry: Registry,
    sql: asyncpg.Connection,
    then: str,
    batch: int | None,
    timeout: float | None,
) -> None:
    async def alone(job: Job) -> None:
        current = asyncio.current_task()
        assert current is not None
        current.cancel()
        if then == "waits":
            await asyncio.sleep(60)
        elif then == "goes on":
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
            await asyncio.sleep(0)

    async def together(jobs: list[Job]) -> None:
        await alone(jobs[0])

    async def quick(job: Job) -> None: ...

    wait = 0.01 if batch else None
    registry.add_task(
        together if batch else alone, name="own", batch=batch, batch_wait=wait, timeout=timeout, max_attempts=1
    )
    registry.add_task(quick, name="quick", timeout=1.0)
    async with running(store, registry, {"default": 1}):
        await store.enqueue("own")
        [row] = await eventually(archived(sql, 1))
        assert row["state"] == ("failed" if then == "waits" else "finished")
        for _ in range(2):
            await store.enqueue("quick")
        rows = await eventually(archived(sql, 3))
    assert [row["state"] for row in rows[1:]] == ["finished"] * 2
    assert (row["error"] or "").startswith("CancelledError") == (then == "waits")


@pytest.mark.parametrize("meanwhile", ["nothing", "gathers"])
async def test_a_slot_that_is_cancelled_by_what_a_job_has_left_behind_goes_on(
    store: JobStore, registry: Registry, sql: asyncpg.Connection, meanwhile: str
) -> None:
    slots: list[asyncio.Task[None] | None] = []

    async def own(job: Job) -> None:
        slots.append(asyncio.current_task())

    async def together(jobs: list[Job]) -> None: ...

    registry.add_task(own, name="own")
    registry.add_task(together, name="together", batch=2, batch_wait=0.3)
    async with running(store, registry, {"default": 1}) as worker:
        await store.enqueue("own")
        await eventually(archived(sql, 1))
        [slot] = slots
        assert slot is not None
        if meanwhile == "gathers":
            await store.enqueue("together")
            await eventually(lambda: worker._slots["default"]._gathering)
        slot.cancel()
        await asyncio.sleep(0)
        await store.enqueue("together")
        rows = await eventually(archived(sql, 3 if meanwhile == "gathers" else 2))
    assert {(row["state"], row["attempt"]) for row in rows} == {("finished", 1)}
