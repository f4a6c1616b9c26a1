"""The worker: running, failing, timing out, stopping, dying."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from handlers.jobs import JobWorker
from pipeline.core.job import Job
from pipeline.core.retry import Backoff
from pipeline.core.window import Windows
from pipeline.db.heartbeat import Heartbeat
from pipeline.db.jobs import JobStore
from pipeline.registry import Registry
from tests.conftest import eventually
from tests.jobs_kit import claim, job_store, lose

AT_ONCE = Backoff(first=0.01, factor=1, jitter=0)


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[JobStore]:
    async with job_store(dsn) as store:
        yield store


@pytest.fixture
def registry() -> Registry:
    return Registry()


@asynccontextmanager
async def running(
    store: JobStore, registry: Registry, queues: dict[str, int] | None = None, **options: Any
) -> AsyncIterator[JobWorker]:
    """A worker that runs during the block and is stopped in good order after it."""
    worker = JobWorker(store, registry, queues or {"default": 4}, **{"poll_seconds": 0.05, **options})
    await worker.start()
    task = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        await worker.stop()
        await asyncio.wait_for(task, 30)


def archived(sql: asyncpg.Connection, n: int) -> Callable[[], Coroutine[Any, Any, Any]]:
    """Whether n jobs have ended; their rows."""

    async def rows() -> Any:
        found = await sql.fetch("select * from pipeline.job_archive order by id")
        return found if len(found) >= n else None

    return rows


def timed(windows: Windows) -> dict[str, tuple[int, int]]:
    """Count and errors of each series, over all windows."""
    found: dict[str, tuple[int, int]] = {}
    for part in windows.take(None):
        count, errors = found.get(part.series.text, (0, 0))
        found[part.series.text] = count + part.digest.count, errors + part.errors
    return found


async def test_async_and_plain_functions_run_and_their_results_are_kept(
    store: JobStore, registry: Registry, sql: asyncpg.Connection
) -> None:
    threads: list[int] = []

    async def add(job: Job, a: int, b: int = 1) -> dict[str, int]:
        return {"sum": a + b}

    def plain(job: Job) -> str:
        threads.append(threading.get_ident())
        return job.task

    registry.add_task(add, name="add")
    registry.add_task(plain, name="plain")
    await store.enqueue("add", {"a": 2})
    await store.enqueue("plain")
    windows = Windows(time.time)
    async with running(store, registry, timings=windows) as worker:
        rows = await eventually(archived(sql, 2))
    assert [(r["state"], r["result"]) for r in rows] == [("finished", '{"sum": 3}'), ("finished", '"plain"')]
    assert threads != [threading.get_ident()]
    assert all(r["started_at"] <= r["finished_at"] and r["ms"] >= 0 for r in rows)
    assert worker.status().finished_total == 2
    assert worker.status().run.count == 2
    assert timed(windows) == {
        'job.run{task="add"}': (1, 0), 'job.run{task="plain"}': (1, 0), 'job.wait{queue="default"}': (2, 0),
    }  # fmt: skip


async def test_a_job_that_fails_is_retried_with_backoff_and_ends_in_the_archive(
    store: JobStore, registry: Registry, sql: asyncpg.Connection
) -> None:
    seen: list[tuple[int, float]] = []

    async def boom(job: Job) -> None:
        seen.append((job.attempt, time.monotonic()))
        raise ValueError("no such\x00 order")

    registry.add_task(boom, name="boom", backoff=Backoff(first=0.1, factor=3, jitter=0))
    await store.enqueue("boom", max_attempts=3)
    windows = Windows(time.time)
    async with running(store, registry, timings=windows) as worker:
        [row] = await eventually(archived(sql, 1))
        await eventually(lambda: worker.status().failed_total == 1)
    assert [attempt for attempt, _ in seen] == [1, 2, 3]
    assert timed(windows) == {'job.run{task="boom"}': (3, 3), 'job.wait{queue="default"}': (3, 0)}
    assert seen[1][1] - seen[0][1] >= 0.1
    assert seen[2][1] - seen[1][1] >= 0.3
    assert (row["state"], row["attempt"], row["result"]) == ("failed", 3, None)
    assert row["error"].startswith("ValueError: no such\\x00 order\n\n")
    assert 'raise ValueError("no such' in row["error"]
    assert "handlers/running.py" not in row["error"]
    assert worker.status().retried_total == 2


async def test_a_run_that_takes_too_long_is_stopped(
    store: JobStore, registry: Registry, sql: asyncpg.Connection
) -> None:
    stopped = asyncio.Event()

    async def slow(job: Job) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            stopped.set()

    async def own(job: Job) -> None:
        raise TimeoutError("the shop did not answer")

    registry.add_task(slow, name="slow", timeout=30)
    registry.add_task(own, name="own", timeout=30)
    await store.enqueue("slow", timeout=0.1, max_attempts=1)
    await store.enqueue("own", max_attempts=1)
    async with running(store, registry):
        slow_row, own_row = await eventually(archived(sql, 2))
    assert stopped.is_set()
    assert "took longer than its timeout of 0.1 s" in slow_row["error"]
    assert own_row["error"].startswith("TimeoutError: the shop did not answer")


async def test_a_plain_function_that_takes_too_long_does_not_hold_up_the_queue(
    store: JobStore, registry: Registry, sql: asyncpg.Connection
) -> None:
    release = threading.Event()

    def stuck(job: Job) -> None:
        release.wait(30)

    def quick(job: Job) -> None: ...

    registry.add_task(stuck, name="stuck", timeout=0.1)
    registry.add_task(quick, name="quick")
    for _ in range(3):
        await store.enqueue("stuck", max_attempts=1)
    await store.enqueue("quick")
    async with running(store, registry, {"default": 1}):
        rows = await eventually(archived(sql, 4))
    release.set()
    assert [row["state"] for row in rows] == ["failed"] * 3 + ["finished"]


async def test_whatever_a_task_raises_is_its_own_failure(
    store: JobStore, registry: Registry, sql: asyncpg.Connection
) -> None:
    async def leave(job: Job) -> None:
        sys.exit("bye")

    async def cancel(job: Job) -> None:
        raise asyncio.CancelledError

    def stop(job: Job) -> None:
        raise StopIteration

    async def group(job: Job) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.wait_for(asyncio.sleep(9), 0))

    names = [function.__name__ for function in (leave, cancel, stop, group)]
    for function in (leave, cancel, stop, group):
        registry.add_task(function, name=function.__name__)
        await store.enqueue(function.__name__, max_attempts=1)
    async with running(store, registry, {"default": 1}) as worker:
        rows = await eventually(archived(sql, len(names)))
        assert worker.healthy().ok
    assert [(row["task"], row["state"]) for row in rows] == [(name, "failed") for name in names]


async def test_a_result_that_cannot_be_kept_fails_the_job_once_and_the_worker_goes_on(
    store: JobStore, registry: Registry, sql: asyncpg.Connection
) -> None:
    async def zero(job: Job) -> str:
        return "a\x00b"

    async def thing(job: Job) -> object:
        return object()

    async def huge(job: Job) -> list[str]:
        return ["x" * 1_000_000] * 300

    async def small(job: Job) -> int:
        return 1

    for function in (zero, thing, huge, small):
        registry.add_task(function, name=function.__name__)
        await store.enqueue(function.__name__)
    async with running(store, registry) as worker:
        rows = await eventually(archived(sql, 4))
        assert worker.healthy().ok
    told = {row["task"]: (row["state"], row["attempt"], row["result"]) for row in rows}
    assert told.pop("small") == ("finished", 1, "1")
    assert told == dict.fromkeys(("zero", "thing", "huge"), ("failed", 1, None))
    assert all(row["error"].startswith("the result cannot be kept: ") for row in rows if row["task"] in told)


async def test_an_unknown_task_is_put_off_so_that_another_worker_can_run_it(
    store: JobStore, registry: Registry, sql: asyncpg.Connection
) -> None:
    id_ = await store.enqueue("elsewhere")
    async with running(store, registry):
        await eventually(lambda: sql.fetchval("select error is not null from pipeline.job"))
    row = await sql.fetchrow(
        "select *, extract(epoch from run_at - now()) as seconds from pipeline.job where id = $1", id_
    )
    assert (row["attempt"], row["pos"]) == (1, None)
    assert 25 < row["seconds"] <= 60
    assert "no task is named elsewhere in this process" in row["error"]
    assert "--import" in row["error"]


async def test_a_wake_makes_a_worker_look_at_once(
    store: JobStore, registry: Registry, sql: asyncpg.Connection
) -> None:
    async def noop(job: Job) -> None: ...

    registry.add_task(noop, name="noop")
    async with running(store, registry, poll_seconds=3600) as worker:
        await eventually(lambda: worker._shift.queues and worker._shift.queues["default"].changed._waiters)
        await sql.execute("select pipeline.enqueue('noop')")
        worker.wake("somewhere else")
        worker.wake("default")
        await eventually(archived(sql, 1))


@pytest.mark.parametrize("told", [True, False], ids=["woken", "polling"])
async def test_a_job_that_commits_after_younger_ones_is_run(
    store: JobStore, registry: Registry, sql: asyncpg.Connection, told: bool
) -> None:
    async def noop(job: Job) -> None: ...

    registry.add_task(noop, name="noop")
    async with running(store, registry, poll_seconds=3600 if told else 0.05) as worker:
        open_ = sql.transaction()
        await open_.start()
        late = await sql.fetchval("select pipeline.enqueue('noop')")
        await store.enqueue_many("noop", [{}] * 5)
        worker.wake("default")
        await eventually(lambda: worker.status().finished_total == 5)
        await open_.commit()
        if told:
            worker.wake("default")
        rows = await eventually(archived(sql, 6))
    assert rows[0]["id"] == late


async def test_a_star_stands_for_every_queue_not_named(
    store: JobStore, registry: Registry, sql: asyncpg.Connection
) -> None:
    async def noop(job: Job) -> None: ...

    registry.add_task(noop, name="noop")
    async with running(store, registry, {"default": 1, "*": 2}):
        await store.enqueue("noop", queue="new")
        await store.enqueue("noop", queue="newer")
        await store.enqueue("noop")
        await eventually(archived(sql, 3))


async def test_no_more_jobs_run_at_once_than_asked_and_slow_ones_are_not_hoarded(
    store: JobStore, registry: Registry, sql: asyncpg.Connection
) -> None:
    now = most = 0
    release = asyncio.Event()

    async def count(job: Job) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await release.wait()
        now -= 1

    registry.add_task(count, name="count")
    await store.enqueue_many("count", [{}] * 20)
    async with running(store, registry, {"default": 3}):
        await eventually(lambda: now == 3)
        assert await sql.fetchval("select sum(cardinality(ids)) from pipeline.lease") == 3
        release.set()
        await eventually(archived(sql, 20))
    assert most == 3


async def test_stopping_lets_running_jobs_end_and_gives_the_others_back_unburnt(
    store: JobStore, registry: Registry, sql: asyncpg.Connection
) -> None:
    started, release = asyncio.Event(), asyncio.Event()

    async def wait(job: Job) -> None:
        started.set()
        await release.wait()

    registry.add_task(wait, name="wait")
    made = await store.enqueue_many("wait", [{}] * 5)
    worker = JobWorker(store, registry, {"default": 1}, poll_seconds=0.05)
    await worker.start()
    task = asyncio.create_task(worker.run())
    await eventually(lambda: worker._shift.queues)
    worker._shift.queues["default"].per_second = 50.0  # as if it had been fast: it takes five more ahead
    await started.wait()
    await eventually(lambda: sql.fetchval("select sum(cardinality(ids)) = 5 from pipeline.lease"))
    await worker.stop()
    await eventually(lambda: sql.fetchval("select cardinality(ids) = 1 from pipeline.lease"))
    assert not task.done()
    release.set()
    await asyncio.wait_for(task, 10)
    [row] = await sql.fetch("select id, state from pipeline.job_archive")
    assert (row["id"], row["state"]) == (made[0], "finished")
    rows = await sql.fetch("select attempt, pos is not null as ready, error from pipeline.job")
    assert [tuple(row) for row in rows] == [(1, True, None)] * 4
    assert await sql.fetchval("select count(*) from pipeline.lease") == 0
    assert await sql.fetchval("select count(*) from pipeline.worker") == 0


async def test_jobs_that_outlast_the_drain_go_back_unburnt(
    store: JobStore, registry: Registry, sql: asyncpg.Connection
) -> None:
    started = asyncio.Event()

    async def endless(job: Job) -> None:
        started.set()
        await asyncio.sleep(3600)

    registry.add_task(endless, name="endless")
    id_ = await store.enqueue("endless")
    async with running(store, registry, drain_seconds=0.1):
        await started.wait()
    other = await store.register("other", ["default"])
    assert [(job.id, job.attempt) for job in await claim(store, other)] == [(id_, 1)]


async def test_a_worker_that_is_cancelled_gives_its_jobs_back_too(
    store: JobStore, registry: Registry, sql: asyncpg.Connection
) -> None:
    started = asyncio.Event()

    async def endless(job: Job) -> None:
        started.set()
        await asyncio.sleep(3600)

    registry.add_task(endless, name="endless")
    await store.enqueue("endless")
    worker = JobWorker(store, registry, {"default": 1}, poll_seconds=0.05)
    await worker.start()
    task = asyncio.create_task(worker.run())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    [row] = await sql.fetch("select attempt, pos is not null as ready from pipeline.job")
    assert tuple(row) == (1, True)
    assert await sql.fetchval("select count(*) from pipeline.lease") == 0


async def test_a_worker_that_ends_gives_back_what_it_holds_without_knowing(
    store: JobStore, registry: Registry, sql: asyncpg.Connection
) -> None:
    async with running(store, registry, {"elsewhere": 1}) as worker:
        await store.enqueue_many("t", [{}] * 2)
        assert len(await claim(store, worker._shift.worker)) == 2  # as if the answer had never arrived
    rows = await sql.fetch("select attempt, error from pipeline.job")
    assert [tuple(row) for row in rows] == [(1, None)] * 2
    assert await sql.fetchval("select count(*) from pipeline.lease") == 0


async def test_a_worker_goes_on_after_its_connections_were_cut(
    store: JobStore, registry: Registry, sql: asyncpg.Connection
) -> None:
    async def noop(job: Job) -> None: ...

    registry.add_task(noop, name="noop")
    async with running(store, registry):
        for _ in range(3):
            await sql.execute("select pipeline.enqueue('noop') from generate_series(1, 50)")
            await sql.execute(
                """
                select pg_terminate_backend(pid) from pg_stat_activity
                where datname = current_database() and pid <> pg_backend_pid()
                """
            )
        rows = await eventually(archived(sql, 150), within=30)
    assert len({row["id"] for row in rows}) == 150


async def test_one_outcome_that_cannot_be_stored_does_not_hold_up_the_others(
    store: JobStore, registry: Registry, sql: asyncpg.Connection
) -> None:
    async def echo(job: Job, n: int) -> int:
        return n

    registry.add_task(echo, name="echo")
    await sql.execute("alter table pipeline.job_archive add check (result is distinct from '7')")
    await store.enqueue_many("echo", [{"n": n} for n in range(10)])
    async with running(store, registry):
        rows = await eventually(archived(sql, 10))
    assert [row["args"] for row in rows if row["state"] == "failed"] == ['{"n": 7}']
    assert "could not be stored" in next(row["error"] for row in rows if row["state"] == "failed")


async def test_a_job_whose_end_meets_deadlocks_has_not_failed_by_that(
    store: JobStore, registry: Registry, sql: asyncpg.Connection
) -> None:
    async def echo(job: Job, n: int) -> int:
        return n

    registry.add_task(echo, name="echo")
    await sql.execute("""
        create sequence tries;
        create function meet() returns trigger language plpgsql as $$ begin
            if nextval('public.tries') <= 2 then raise exception 'met' using errcode = 'deadlock_detected'; end if;
            return new;
        end $$;
        create trigger meet before insert on pipeline.job_archive for each row
        when (new.args = '{"n": 7}') execute function meet()""")
    await store.enqueue_many("echo", [{"n": n} for n in range(10)])
    async with running(store, registry):
        rows = await eventually(archived(sql, 10))
    assert [row["state"] for row in rows] == ["finished"] * 10


async def test_a_job_whose_end_is_refused_twice_holds_up_nobody_and_is_not_lost(
    store: JobStore, registry: Registry, sql: asyncpg.Connection
) -> None:
    async def echo(job: Job, n: int) -> int:
        return n

    registry.add_task(echo, name="echo")
    await sql.execute("""alter table pipeline.job_archive add constraint broken check (args <> '{"n": 4}')""")
    made = await store.enqueue_many("echo", [{"n": n} for n in range(10)])
    async with running(store, registry) as worker:
        await eventually(archived(sql, 9))
        await store.enqueue("echo", {"n": 10})
        await eventually(archived(sql, 10))
        assert worker.healthy().ok
    await sql.execute("alter table pipeline.job_archive drop constraint broken")
    second = await store.register("two", ["default"])
    found = await claim(store, second)
    found += (await store.sweep("default", 10, second, every=0, search_every=0)).jobs
    assert [(job.id, job.attempt) for job in found] == [(made[4], 1)]


WORKER = """
import asyncio, sys
from handlers.jobs import JobWorker
from pipeline.db.jobs import JobStore, job_database
from pipeline.registry import Registry

async def main(dsn):
    registry = Registry()
    async def hang(job):
        await asyncio.sleep(3600)
    registry.add_task(hang, name="work")
    async with job_database(dsn) as database:
        worker = JobWorker(JobStore(database), registry, {"default": 3}, poll_seconds=0.05)
        await worker.start()
        await worker.run()

asyncio.run(main(sys.argv[1]))
"""


async def test_jobs_of_a_killed_worker_are_run_by_another(
    dsn: str, store: JobStore, registry: Registry, sql: asyncpg.Connection
) -> None:
    attempts: list[int] = []

    async def work(job: Job) -> None:
        attempts.append(job.attempt)

    registry.add_task(work, name="work")
    await store.enqueue_many("work", [{}] * 5)
    root = str(Path(__file__).resolve().parents[2])
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(WORKER), dsn, env={**os.environ, "PYTHONPATH": root}
    )
    try:
        await eventually(lambda: sql.fetchval("select sum(cardinality(ids)) = 3 from pipeline.lease"), within=30)
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()
    async with running(store, registry, dead_seconds=1.0) as worker:
        await eventually(archived(sql, 5), within=30)
        await eventually(lambda: worker.status().rescued_total == 3)
    assert sorted(attempts) == [1, 1, 2, 2, 2]


async def test_a_worker_that_others_give_up_soon_shows_itself_as_much_oftener(
    store: JobStore, registry: Registry, dsn: str, sql: asyncpg.Connection
) -> None:
    attempts: list[int] = []

    async def work(job: Job) -> None:
        attempts.append(job.attempt)
        await asyncio.sleep(2.5)

    registry.add_task(work, name="work")
    async with (
        job_store(dsn) as others,
        running(store, registry, dead_seconds=1.0),
        running(others, Registry(), {"elsewhere": 1}, dead_seconds=1.0),
    ):
        await store.enqueue("work")
        await eventually(archived(sql, 1), within=20)
    assert attempts == [1]


async def test_a_job_of_a_batch_that_was_lost_with_a_worker_runs_as_a_batch_of_one(
    store: JobStore, registry: Registry, sql: asyncpg.Connection
) -> None:
    sizes: list[int] = []

    async def together(jobs: list[Job]) -> None:
        sizes.append(len(jobs))

    registry.add_task(together, name="together", batch=3)
    await store.enqueue_many("together", [{}] * 3)
    lost = await store.register("lost", ["default"])
    assert len(await claim(store, lost)) == 3
    await lose(sql, lost)
    async with running(store, registry):
        rows = await eventually(archived(sql, 3))
    assert {(row["state"], row["attempt"], row["lost"]) for row in rows} == {("finished", 2, 1)}
    assert sizes == [1, 1, 1]


async def test_a_blocked_loop_does_not_silence_a_worker_that_lives(
    store: JobStore, registry: Registry, sql: asyncpg.Connection
) -> None:
    async def compute(job: Job) -> None:
        time.sleep(2.5)

    registry.add_task(compute, name="compute")
    await store.enqueue("compute")
    monitor: list[float] = []

    def watch(dsn: str) -> None:
        async def look() -> None:
            connection = await asyncpg.connect(dsn)
            try:
                while not done.is_set():
                    age = await connection.fetchval(
                        "select extract(epoch from now() - min(seen_at))::float8 from pipeline.worker"
                    )
                    monitor.append(age or 0.0)
                    await asyncio.sleep(0.1)
            finally:
                await connection.close()

        asyncio.run(look())

    done = threading.Event()
    dsn = store._db.dsn
    assert dsn is not None
    thread = threading.Thread(target=watch, args=(dsn,))
    original = store.heartbeat
    store.heartbeat = lambda *args: _faster(original(*args))  # type: ignore[method-assign]
    async with running(store, registry):
        thread.start()
        await eventually(archived(sql, 1))
    done.set()
    await asyncio.to_thread(thread.join)
    assert len(monitor) > 10
    assert max(monitor) < 1.5


def _faster(heartbeat: Heartbeat) -> Heartbeat:
    heartbeat._every = 0.2
    return heartbeat


async def test_a_loop_that_hangs_for_good_is_given_up(store: JobStore, sql: asyncpg.Connection) -> None:
    worker = await store.register("w", ["default"])
    turned = time.monotonic()
    heartbeat = Heartbeat(store._db.dsn, worker, "w", ["default"], lambda: turned, patience=0.5, every=0.02)
    heartbeat.start()
    await eventually(lambda: heartbeat.last is not None)
    await eventually(lambda: time.monotonic() - turned > 0.8)
    last = heartbeat.last
    await eventually(lambda: time.monotonic() - turned > 1.2)
    assert heartbeat.last == last
    turned = time.monotonic()
    await eventually(lambda: heartbeat.last != last)
    await heartbeat.stop()


async def test_after_an_outage_a_worker_does_not_take_everybody_for_dead(
    store: JobStore, registry: Registry, sql: asyncpg.Connection
) -> None:
    other = await store.register("other", ["default"])
    await store.enqueue("t")
    await claim(store, other)
    await lose(sql, other)
    async with running(store, registry, {"elsewhere": 1}, dead_seconds=0.4) as worker:
        heartbeat = worker._heartbeat
        assert heartbeat is not None
        heartbeat.steady_since = None  # its own beats fail at this moment
        await worker._chores._rescue()
        assert await sql.fetchval("select count(*) from pipeline.lease") == 1
        heartbeat.steady_since = time.monotonic()
        await worker._chores._rescue()
        assert await sql.fetchval("select count(*) from pipeline.lease") == 1
        await eventually(worker._may_judge)
        await worker._chores._rescue()
        assert await sql.fetchval("select count(*) from pipeline.lease") == 0


@pytest.mark.parametrize("long_up", [True, False])
async def test_a_worker_that_comes_right_after_the_server_waits_for_the_beats_of_others(
    store: JobStore, registry: Registry, sql: asyncpg.Connection, long_up: bool
) -> None:
    other = await store.register("other", ["default"])
    await store.enqueue("t")
    await claim(store, other)
    await lose(sql, other)
    up = await store.server_up()
    dead_seconds = up / 2 if long_up else up + 60
    async with running(store, registry, {"elsewhere": 1}, dead_seconds=dead_seconds) as worker:
        await worker._chores._rescue()
        assert await sql.fetchval("select count(*) from pipeline.lease") == (0 if long_up else 1)


async def test_a_worker_whose_row_was_pruned_comes_back(store: JobStore, sql: asyncpg.Connection) -> None:
    worker = await store.register("w", ["default"])
    await sql.execute("delete from pipeline.worker")
    heartbeat = store.heartbeat(worker, "w", ["default"], time.monotonic)
    heartbeat.start()
    await eventually(lambda: sql.fetchval("select id from pipeline.worker"))
    await heartbeat.stop()
    assert await sql.fetchval("select id from pipeline.worker") == worker
