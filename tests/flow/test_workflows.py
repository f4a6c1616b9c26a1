"""Workflows as an application starts them and a daemon runs them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from handlers.jobs import JobWorker
from handlers.workflows import WorkflowResolver
from pipeline.core.job import Job
from pipeline.core.retry import Backoff
from pipeline.core.seal import Sealer
from pipeline.core.workflow import Batch, Workflow, chunks
from pipeline.db.jobs import JobStore, job_database
from pipeline.db.workflows import WorkflowStore
from pipeline.errors import TaskError, UsageError
from pipeline.registry import Registry
from pipeline.testing import jobs
from tests.conftest import eventually

AT_ONCE = Backoff(first=0.01, factor=1, jitter=0)


@pytest.fixture
def registry() -> Registry:
    """Tasks that add, that fail as often as they are told, and that gather."""
    registry = Registry()

    async def add(job: Job, n: int = 0, times: int = 0) -> int:
        if job.attempt <= times:
            raise RuntimeError("not yet")
        return n + sum((await job.results()).values())

    async def gather(job: Job) -> dict[str, Any]:
        results = await job.results()
        return {"results": results, "failed": sorted(results.failed)}

    async def count(job: Job, items: list[int]) -> int:
        return sum(items)

    registry.add_task(add, name="add", backoff=AT_ONCE)
    registry.add_task(gather, name="gather")
    registry.add_task(count, name="count")
    return registry


@pytest.fixture
async def flows(dsn: str, registry: Registry) -> AsyncIterator[WorkflowStore]:
    """A daemon's worker and resolver, and what an application uses. No feed: the worker polls once an hour, so
    whatever runs later was woken."""
    async with job_database(dsn) as database, daemon(database, registry):
        yield WorkflowStore(database, registry=registry)


@asynccontextmanager
async def daemon(database: Any, registry: Registry, poll: float = 3600.0) -> AsyncIterator[WorkflowResolver]:
    store = JobStore(database, registry=registry)
    worker = JobWorker(store, registry, {"default": 10}, poll_seconds=0.05)
    resolver = WorkflowResolver(WorkflowStore(database), worker.wake, poll_seconds=poll)
    store.when_ended = resolver.wake
    await worker.start()
    await resolver.start()
    running = [asyncio.create_task(service.run()) for service in (worker, resolver)]
    try:
        yield resolver
    finally:
        await resolver.stop()
        await worker.stop()
        await asyncio.wait_for(asyncio.gather(*running), 30)


async def result(sql: asyncpg.Connection, task: str) -> Any:
    import json

    return json.loads(
        await sql.fetchval(
            "select result from pipeline.job_archive where task = $1 order by id desc limit 1", task
        )
    )


async def test_results_go_from_job_to_job_and_retries_are_waited_for(
    flows: WorkflowStore, sql: asyncpg.Connection
) -> None:
    flow = Workflow("sum")
    one = flow.add("add", n=1)
    two = flow.add("add", n=2, times=2, after=one)
    three = flow.add("add", n=3, after=one)
    flow.add("add", n=4, after=[two, three])
    run = await flows.start(flow)
    status = await run.wait(20)
    assert (status.state, status.total, status.failed) == ("finished", 4, 0)
    assert await result(sql, "add") == (1 + 2) + (1 + 3) + 4


async def test_a_batch_calls_back_with_results_and_failures(flows: WorkflowStore, sql: asyncpg.Connection) -> None:
    jobs = [("add", {"n": 1}), ("add", {"n": 2, "times": 9}), ("add", {"n": 3})]
    status = await (await flows.start(Batch(jobs, then="gather"))).wait(20)
    assert (status.state, status.failed) == ("failed", 1)
    assert await result(sql, "gather") == {"results": {"1": 1, "3": 3}, "failed": ["2"]}


async def test_chunks_are_gathered(flows: WorkflowStore, sql: asyncpg.Connection) -> None:
    status = await (await flows.start(chunks("count", range(10), size=3, then="gather"))).wait(20)
    assert status.total == 5
    assert (await result(sql, "gather"))["results"] == {"1": 3, "2": 12, "3": 21, "4": 9}


async def test_a_workflow_of_the_callers_transaction_runs_once_it_commits(
    flows: WorkflowStore, sql: asyncpg.Connection
) -> None:
    flow = Workflow("later")
    flow.add("add", after=flow.add("add"))
    async with sql.transaction():
        run = await flows.start(flow, conn=sql)
        with pytest.raises(UsageError, match="there is no workflow"):
            await run.status()
    assert (await run.wait(20)).state == "finished"


async def test_a_wait_has_an_end(flows: WorkflowStore) -> None:
    flow = Workflow("never")
    flow.add("add", queue="nobody")
    with pytest.raises(TimeoutError):
        await (await flows.start(flow)).wait(0.05)


async def test_two_resolvers_share_the_work(dsn: str, registry: Registry, sql: asyncpg.Connection) -> None:
    async with job_database(dsn) as one, job_database(dsn) as two:
        flows = WorkflowStore(one, registry=registry)
        async with daemon(one, registry), daemon(two, registry):
            runs = []
            for _ in range(5):
                flow = Workflow("chain")
                before: Any = ()
                for _ in range(20):
                    before = flow.add("add", n=1, after=before)
                runs.append(await flows.start(flow))
            states = [(await run.wait(30)).state for run in runs]
    assert states == ["finished"] * 5
    assert await sql.fetchval("select count(*) from pipeline.job_archive") == 100


async def test_a_resolver_that_finds_another_at_work_looks_again(
    flows: WorkflowStore, sql: asyncpg.Connection
) -> None:
    flow = Workflow("two")
    flow.add("add", after=flow.add("add"))
    async with sql.transaction():
        await sql.execute("select pg_advisory_xact_lock(1885697639, 14)")
        run = await flows.start(flow)
        other = "select count(*) = 1 from pipeline.job_ended"
        await eventually(lambda: sql.fetchval(other), why="the end of the first job")
        await asyncio.sleep(0.1)  # it was woken for this, and has found the other one
    assert (await run.wait(20)).state == "finished"


async def test_an_end_that_nobody_tells_of_is_found_by_polling(
    dsn: str, registry: Registry, sql: asyncpg.Connection
) -> None:
    async with job_database(dsn) as database:
        flows = WorkflowStore(database)
        flow = Workflow("cancelled elsewhere", on_failure="ignore")
        flow.add("add", n=1, after=flow.add("add", queue="nobody"))
        run = await flows.start(flow)
        async with daemon(database, registry, poll=0.1) as resolver:
            [first] = [job.id for job in await flows.jobs(run.id) if job.name == "add"]
            await sql.fetchval("select pipeline.cancel_jobs($1)", [first])
            assert (await run.wait(20)).failed == 1
            assert resolver.released_total == 1


@pytest.mark.parametrize("woken", [True, False])
async def test_a_note_that_becomes_visible_late_is_found(dsn: str, registry: Registry, woken: bool) -> None:
    async with job_database(dsn) as database:
        flows = WorkflowStore(database)
        runs = []
        for name in ("late", "early"):
            flow = Workflow(name, on_failure="ignore")
            flow.add("add", n=1, after=flow.add("add", queue="nobody"))
            runs.append(await flows.start(flow))
        late, early = [(await flows.jobs(run.id))[0].id for run in runs]
        async with daemon(database, registry, poll=3600 if woken else 0.3) as resolver:
            slow = await asyncpg.connect(dsn)
            transaction = slow.transaction()
            await transaction.start()
            await slow.fetchval("select pipeline.cancel_jobs($1)", [late])
            other = await asyncpg.connect(dsn)
            await other.fetchval("select pipeline.cancel_jobs($1)", [early])
            resolver.wake()
            await eventually(lambda: resolver.released_total == 1)
            assert (await runs[1].wait(20)).failed == 1  # so that nothing but the late note is left to look for
            await transaction.commit()
            if woken:
                resolver.wake()
            assert (await runs[0].wait(20)).failed == 1
            await slow.close()
            await other.close()


async def test_what_a_known_task_does_not_take_is_refused_before_anything_is_sent(
    flows: WorkflowStore, sql: asyncpg.Connection
) -> None:
    flow = Workflow("wrong")
    flow.add("add", n=1)
    flow.add("add", m=1)
    with pytest.raises(TaskError, match="add"):
        await flows.start(flow)
    cycle = Workflow("cycle")
    cycle.add("add", name="a", after="b")
    cycle.add("add", name="b", after="a")
    with pytest.raises(TaskError, match="cycle"):
        await flows.start(cycle)
    assert await sql.fetchval("select count(*) from pipeline.workflow") == 0


async def test_the_arguments_of_a_task_that_wants_it_are_sealed(dsn: str, sql: asyncpg.Connection) -> None:
    registry = Registry()

    async def pay(job: Job, card: str) -> None: ...

    registry.add_task(pay, name="pay", encrypt=True, tenant="customer:{card}")
    flow = Workflow("secret")
    flow.add("pay", card="4711")
    async with job_database(dsn) as database:
        with pytest.raises(TaskError, match="no key"):
            await WorkflowStore(database, registry=registry).start(flow)
        sealer = Sealer([b"k" * 32], lambda size: b"n" * size)
        await WorkflowStore(database, registry=registry, sealer=sealer).start(flow)
    row = await sql.fetchrow("select args, key from pipeline.job")
    assert "4711" not in row["args"]
    assert row["key"] == "customer:4711"


async def test_a_drained_queue_follows_workflows_also_in_one_transaction(
    registry: Registry, sql: asyncpg.Connection
) -> None:
    transaction = sql.transaction()
    await transaction.start()
    async with jobs(conn=sql, registry=registry) as queue:
        flow = Workflow("sum")
        one = flow.add("add", n=1)
        flow.add("add", n=4, after=[flow.add("add", n=2, after=one), one])
        run = await queue.start(flow)
        assert await queue.drain() == {"finished": 3}
        assert (await run.status()).state == "finished"
        assert await result(sql, "add") == 4 + (2 + 1) + 1
    await transaction.rollback()
