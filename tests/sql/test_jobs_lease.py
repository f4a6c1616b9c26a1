"""Ending, retrying, releasing and rescuing jobs: all of it goes through the lease."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from pipeline.core.job import Outcome
from pipeline.db.jobs import JobStore, Written
from tests.conftest import eventually
from tests.jobs_kit import claim, finished, ids, job_store, leases, lose, sweep


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[JobStore]:
    async with job_store(dsn) as store:
        yield store


@pytest.fixture
async def worker(store: JobStore) -> int:
    return await store.register("one", ["default"])


@pytest.fixture
async def second(store: JobStore) -> int:
    return await store.register("two", ["default"])


async def count(sql: asyncpg.Connection, table: str) -> int:
    return await sql.fetchval(f"select count(*) from pipeline.{table}")


async def test_a_finished_job_is_in_the_archive_with_its_result_and_nowhere_else(
    store: JobStore, worker: int, sql: asyncpg.Connection
) -> None:
    id_ = await store.enqueue("t", {"n": 1})
    [job] = await claim(store, worker)
    written = await store.write(worker, [Outcome(job, "finish", result='{"sum": 3}', ms=12.5)], [job.lease])
    assert written == Written(finished=1)
    assert await count(sql, "job") == 0
    assert await count(sql, "lease") == 0
    row = await sql.fetchrow("select * from pipeline.job_archive")
    assert (row["id"], row["state"], row["attempt"], row["ms"], row["worker"]) == (
        id_,
        "finished",
        1,
        12.5,
        worker,
    )
    assert (row["args"], row["result"], row["error"]) == ('{"n": 1}', '{"sum": 3}', None)


async def test_a_lease_stays_until_its_last_job_has_ended(
    store: JobStore, worker: int, sql: asyncpg.Connection
) -> None:
    await store.enqueue_many("t", [{}] * 3)
    jobs = await claim(store, worker)
    assert await store.write(worker, finished(jobs[:2])) == Written(finished=2)
    assert await count(sql, "lease") == 1
    assert await store.write(worker, finished(jobs[2:]), leases(jobs)) == Written(finished=1)
    assert await count(sql, "lease") == 0


async def test_writing_an_outcome_twice_changes_nothing(
    store: JobStore, worker: int, second: int, sql: asyncpg.Connection
) -> None:
    await store.enqueue_many("t", [{}] * 3)
    done, again, rest = await claim(store, worker)
    outcomes = [Outcome(done, "finish"), Outcome(again, "retry", error="x", delay=0)]
    assert await store.write(worker, outcomes) == Written(finished=1, retried=1)
    await store.promote(["default"])
    [retried] = await claim(store, second)
    assert (retried.id, retried.attempt) == (again.id, 2)
    assert await store.write(worker, outcomes) == Written(refused=2)
    assert await sql.fetchval("select attempt from pipeline.job where id = $1", again.id) == 2
    assert await store.write(second, finished([retried]), leases([retried])) == Written(finished=1)
    assert await store.write(worker, finished([rest]), leases([rest])) == Written(finished=1)


async def test_a_worker_cannot_end_what_another_holds(store: JobStore, worker: int, second: int) -> None:
    await store.enqueue("t")
    [job] = await claim(store, worker)
    for step in ("finish", "fail", "retry", "release"):
        assert await store.write(second, [Outcome(job, step, error="x")], [job.lease]) == Written(refused=1)
    assert await store.write(worker, finished([job]), [job.lease]) == Written(finished=1)


async def test_nothing_that_a_worker_reports_after_its_rescue_changes_anything(
    store: JobStore, worker: int, second: int, sql: asyncpg.Connection
) -> None:
    await store.enqueue_many("t", [{}] * 4)
    jobs = await claim(store, worker)
    await lose(sql, worker)
    assert await store.rescue() == (4, 0)
    before = await sql.fetch("select * from pipeline.job order by id")
    steps = ("finish", "fail", "retry", "release")
    outcomes = [Outcome(job, step, error="late") for job, step in zip(jobs, steps, strict=True)]
    assert await store.write(worker, outcomes, leases(jobs)) == Written(refused=4)
    assert await sql.fetch("select * from pipeline.job order by id") == before
    assert await count(sql, "job_archive") == 0
    assert ids(await claim(store, second)) == ids(jobs)


async def test_a_rescued_job_comes_back_with_the_next_attempt(
    store: JobStore, worker: int, second: int, sql: asyncpg.Connection
) -> None:
    id_ = await store.enqueue("t")
    await claim(store, worker)
    assert await store.rescue() == (0, 0)  # it was seen a moment ago
    await lose(sql, worker)
    assert await store.rescue() == (1, 0)
    assert await store.rescue() == (0, 0)
    [job] = await claim(store, second)
    assert (job.id, job.attempt) == (id_, 2)
    assert await sweep(store, second) == []
    assert f"worker {worker} was not seen" in await sql.fetchval("select error from pipeline.job")


async def test_a_job_lost_in_its_last_attempt_fails_once_it_is_known_to_have_begun(
    store: JobStore, worker: int, second: int, sql: asyncpg.Connection
) -> None:
    await store.enqueue("t", max_attempts=1)
    await claim(store, worker)
    await lose(sql, worker)
    assert await store.rescue() == (1, 0)  # it may have been one that only waited its turn there
    [job] = await claim(store, second)
    assert await store.begin(job, second)
    await lose(sql, second)
    assert await store.rescue() == (0, 1)
    row = await sql.fetchrow("select state, lost, error from pipeline.job_archive")
    assert (row["state"], row["lost"]) == ("failed", 2)
    assert "not seen any more" in row["error"]
    assert await count(sql, "job") == 0


async def test_a_rescue_leaves_alone_what_was_retried_or_ended_before(
    store: JobStore, worker: int, second: int, sql: asyncpg.Connection
) -> None:
    await store.enqueue_many("t", [{}] * 3)
    done, again, lost = await claim(store, worker)
    await store.write(worker, [Outcome(done, "finish"), Outcome(again, "retry", error="x", delay=0)])
    await store.promote(["default"])
    assert ids(await claim(store, second)) == [again.id]
    await lose(sql, worker)
    assert await store.rescue() == (1, 0)
    assert ids(await claim(store, second)) == [lost.id]
    assert await sql.fetchval("select attempt from pipeline.job where id = $1", again.id) == 2


async def test_a_rescue_leaves_alone_a_dead_letter_that_runs_again_elsewhere(
    store: JobStore, worker: int, second: int, sql: asyncpg.Connection
) -> None:
    await store.enqueue_many("t", [{}] * 2)
    letter, other = await claim(store, worker)
    await store.write(worker, [Outcome(letter, "fail", error="x")])
    assert await sql.fetchval("select pipeline.retry_jobs($1)", [letter.id]) == [letter.id]
    [again] = await claim(store, second)
    assert (again.id, again.attempt) == (letter.id, 1)
    await lose(sql, worker)
    assert await store.rescue() == (1, 0)
    assert ids(await claim(store, second)) == [other.id]
    assert await sql.fetchval("select attempt from pipeline.job where id = $1", letter.id) == 1


@pytest.mark.parametrize("step", ["finish", "fail", "retry", "release"])
async def test_a_worker_cannot_end_a_job_that_was_cancelled_and_runs_again_elsewhere(
    store: JobStore, worker: int, second: int, sql: asyncpg.Connection, step: Any
) -> None:
    await store.enqueue_many("t", [{}] * 2)
    late, other = await claim(store, worker)
    await sql.execute("select pipeline.cancel_jobs($1)", [late.id])
    await sql.execute("select pipeline.retry_jobs($1)", [late.id])
    [again] = await claim(store, second)
    assert again.id == late.id
    written = await store.write(worker, [Outcome(late, step), Outcome(other, "finish")], leases([late]))
    assert written == Written(finished=1, refused=1)
    assert await store.write(second, [Outcome(again, "finish")], leases([again])) == Written(finished=1)
    assert await count(sql, "lease") == 0


async def test_a_finish_that_waits_for_a_rescue_finishes_nothing(
    store: JobStore, worker: int, sql: asyncpg.Connection
) -> None:
    await store.enqueue("t")
    jobs = await claim(store, worker)
    rescue = sql.transaction()
    await rescue.start()
    await sql.execute("delete from pipeline.lease")
    await sql.execute("update pipeline.job set attempt = 2, pos = nextval('pipeline.job_pos')")
    late = asyncio.ensure_future(store.write(worker, finished(jobs), leases(jobs)))
    await eventually(
        lambda: sql.fetchval("select count(*) > 0 from pg_stat_activity where wait_event_type = 'Lock'")
    )
    await rescue.commit()
    assert await late == Written(refused=1)
    assert await count(sql, "job") == 1


async def test_a_rescue_passes_over_a_lease_that_is_being_finished(
    store: JobStore, worker: int, sql: asyncpg.Connection
) -> None:
    await store.enqueue("t")
    await claim(store, worker)
    await lose(sql, worker)
    async with sql.transaction():
        await sql.execute("select from pipeline.lease for key share")
        assert await asyncio.wait_for(store.rescue(), 5) == (0, 0)
    assert await store.rescue() == (1, 0)


async def test_a_retry_waits_and_counts_an_attempt(store: JobStore, worker: int, sql: asyncpg.Connection) -> None:
    await store.enqueue("t")
    [job] = await claim(store, worker)
    assert await store.write(worker, [Outcome(job, "retry", error="boom", delay=3600)], [job.lease]) == Written(
        retried=1
    )
    row = await sql.fetchrow("select *, extract(epoch from run_at - now())::float8 as left from pipeline.job")
    assert (row["attempt"], row["pos"], row["error"]) == (2, None, "boom")
    assert 3500 < row["left"] <= 3600
    assert await count(sql, "lease") == 0
    assert await claim(store, worker) == []
    assert await sweep(store, worker) == []


async def test_a_release_burns_no_attempt(store: JobStore, worker: int, sql: asyncpg.Connection) -> None:
    await store.enqueue_many("t", [{}] * 2)
    jobs = await claim(store, worker)
    assert await store.write(worker, [Outcome(jobs[0], "release")]) == Written(released=1)
    [again] = await claim(store, worker)
    assert (again.id, again.attempt) == (jobs[0].id, 1)
    assert await store.write(worker, finished([again, jobs[1]]), leases([again, jobs[1]])) == Written(finished=2)
    assert await count(sql, "lease") == 0


async def test_a_released_job_is_no_longer_the_worker_s_to_lose(
    store: JobStore, worker: int, second: int, sql: asyncpg.Connection
) -> None:
    await store.enqueue_many("t", [{}] * 2)
    released, kept = await claim(store, worker)
    await store.write(worker, [Outcome(released, "release")])
    assert ids(await claim(store, second)) == [released.id]
    await lose(sql, worker)
    assert await store.rescue() == (1, 0)
    assert [(job.id, job.attempt) for job in await claim(store, second)] == [(kept.id, 2)]


async def test_jobs_whose_claim_got_lost_go_back_without_burning_an_attempt(store: JobStore, worker: int) -> None:
    await store.enqueue_many("t", [{}] * 2)
    [known] = await claim(store, worker, 1)
    [lost] = await claim(store, worker, 1)
    assert await store.give_back(worker, [known.lease], 60) == 0  # perhaps its answer is still on the way
    assert await store.give_back(worker, [known.lease], 0) == 1
    [again] = await claim(store, worker)
    assert (again.id, again.attempt) == (lost.id, 1)


async def test_the_status_counts_exactly(store: JobStore, worker: int, sql: asyncpg.Connection) -> None:
    await store.enqueue_many("t", [{}] * 5)
    await store.enqueue("t", queue="mail")
    await sql.execute("select pipeline.enqueue('t', run_at => now() + interval '1 h')")
    await claim(store, worker, 2)
    counted = {q.queue: (q.ready, q.delayed, q.running) for q in await store.status()}
    assert counted == {"default": (3, 1, 2), "mail": (1, 0, 0)}
    assert all(q.oldest_ready_seconds is not None for q in await store.status())
    assert [queue.queue for queue in await store.queues()] == ["default", "mail"]
