"""The races of the job queue, each in the one order that would go wrong: a function is stopped midway, or a
transaction stays open, while the other side does all of its work.

`make check-jobs-bugs` takes each guard out and sees the test here fail.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from pipeline.core.job import Outcome
from pipeline.db.jobs import JOB_SETTINGS, JobStore, Written
from pipeline.db.statements import folder, statement
from tests.conftest import eventually
from tests.jobs_kit import claim, finished, ids, job_store, leases, lose, sweep

STOP = "perform pg_advisory_xact_lock_shared(4711, 1);\n"
LOCK = "select pg_advisory_lock(4711, 1)"
UNLOCK = "select pg_advisory_unlock(4711, 1)"
CLAIM_BEFORE_LOCK = ("230_claim", "        -- The lock in one statement, and all")
CLAIM_AFTER_LOCK = ("230_claim", "        select s.* into v_state\n")
SWEEP_BEFORE_LOCK = ("235_sweep", "        -- The lock in one statement and the look")
DELAYED = """
select pipeline.enqueue('t', '{"n": [1]}', unique_key => 'u', run_at => pipeline.now() + interval '1 h')
"""
UNIQUE_AFTER_LOCK = ("202_enqueue_unique", "    select * into v_job from pipeline.job j")
SWEEP_SECOND_LANE = ("235_sweep", "        exit when v_room <= 0;\n        -- A hint")


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[JobStore]:
    async with job_store(dsn) as store:
        yield store


@pytest.fixture
async def worker(store: JobStore) -> int:
    return await store.register("one", ["default"])


@pytest.fixture
async def other(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A second client, set up as the queue's own sessions."""
    connection = await asyncpg.connect(dsn, server_settings=JOB_SETTINGS)
    yield connection
    await connection.close()


async def stop_before(sql: asyncpg.Connection, place: tuple[str, str], only: str = "true") -> None:
    """From now on the function waits at a place in its text while `sql` holds LOCK. only: a condition there."""
    file, mark = place
    text = (folder("sql") / f"functions/{file}.sql").read_text()
    assert mark in text
    await sql.execute(text.replace(mark, f"if {only} then {STOP} end if;\n{mark}"))


async def waiting(sql: asyncpg.Connection, kind: str = "%") -> bool:
    """Whether some session waits for a lock."""
    await sql.execute("select pg_stat_clear_snapshot()")  # a transaction would go on seeing its first look
    found: bool = await sql.fetchval(
        """select count(*) > 0 from pg_stat_activity
           where wait_event_type = 'Lock' and wait_event like $1 and datname = current_database()""",
        kind,
    )
    return found


async def waits(sql: asyncpg.Connection, kind: str = "%") -> None:
    """Until some session waits for a lock."""
    await eventually(lambda: waiting(sql, kind), why="a session that waits")


async def can_settle(sql: asyncpg.Connection) -> None:
    """Until whatever was open when a sweep last looked has ended, in other databases of the server, too."""

    async def found() -> bool:
        ended: bool = await sql.fetchval(
            "select bool_and(settling_xid < pg_snapshot_xmin(pg_current_snapshot())) from pipeline.lane_state"
        )
        return ended

    await eventually(found, why="the end of older transactions")


async def test_a_claim_that_began_before_a_pause_hands_out_nothing_after_it(
    store: JobStore, worker: int, sql: asyncpg.Connection
) -> None:
    await store.enqueue_many("t", [{}] * 3)
    await store.adopt()
    await stop_before(sql, CLAIM_BEFORE_LOCK)
    await sql.execute(LOCK)
    late = asyncio.ensure_future(store.claim("default", 10, worker))
    await waits(sql, "advisory")
    await sql.execute("select pipeline.pause_queue('default')", timeout=5)
    await sql.execute(UNLOCK)
    assert (await late).jobs == []
    await sql.execute("select pipeline.resume_queue('default')")
    assert len(await claim(store, worker)) == 3


async def test_a_pause_waits_for_a_claim_that_has_its_lane(
    store: JobStore, worker: int, sql: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    await store.enqueue_many("t", [{}] * 3)
    await store.adopt()
    await stop_before(sql, CLAIM_AFTER_LOCK)
    await sql.execute(LOCK)
    claimed = asyncio.ensure_future(store.claim("default", 2, worker))
    await waits(sql, "advisory")
    pause = asyncio.ensure_future(other.execute("select pipeline.pause_queue('default')"))
    await waits(sql, "transactionid")
    assert not pause.done()
    await sql.execute(UNLOCK)
    assert len((await claimed).jobs) == 2
    await pause
    assert await claim(store, worker) == []


async def test_a_sweep_that_began_before_a_pause_hands_out_nothing_after_it(
    store: JobStore, worker: int, sql: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    async with other.transaction():
        straggler = await other.fetchval("select pipeline.enqueue('late')")
        await store.enqueue("t")
        await claim(store, worker)
    await stop_before(sql, SWEEP_BEFORE_LOCK)
    await sql.execute(LOCK)
    late = asyncio.ensure_future(sweep(store, worker))
    await waits(sql, "advisory")
    await sql.execute("select pipeline.pause_queue('default')", timeout=5)
    await sql.execute(UNLOCK)
    assert await late == []
    await sql.execute("select pipeline.resume_queue('default')")
    assert ids(await sweep(store, worker)) == [straggler]


async def test_two_sweeps_at_once_hand_out_a_straggler_once(
    store: JobStore, worker: int, sql: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    async with other.transaction():
        straggler = await other.fetchval("select pipeline.enqueue('late')")
        await store.enqueue("t")
        await claim(store, worker)
    await stop_before(sql, SWEEP_BEFORE_LOCK, f"p_worker = {worker}")
    await sql.execute(LOCK)
    first = asyncio.ensure_future(sweep(store, worker))
    await waits(sql, "advisory")
    second = await store.register("two", ["default"])
    assert ids(await sweep(store, second)) == [straggler]
    await sql.execute(UNLOCK)
    assert await first == []


async def test_a_sweep_with_little_room_leaves_the_rest_to_the_next(
    store: JobStore, worker: int, sql: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    async with other.transaction():
        late = [await other.fetchval("select pipeline.enqueue('late')") for _ in range(3)]
        await store.enqueue("t")
        await claim(store, worker)
        await sweep(store, worker)
    for straggler in late:
        await can_settle(sql)
        assert ids(await sweep(store, worker, limit=1)) == [straggler]


@pytest.mark.parametrize("key", ["", "k:1"])
async def test_a_straggler_of_another_lane_is_found_when_it_was_drawn_during_a_sweep(
    store: JobStore, worker: int, sql: asyncpg.Connection, other: asyncpg.Connection, dsn: str, key: str
) -> None:
    """A sweep has its id from its first lane; what is drawn after that is older than nothing it knows."""
    for priority in (1, 2):
        await store.enqueue("t", priority=priority, key=key)
        await claim(store, worker)
    await claim(store, worker)
    await sweep(store, worker)
    await store.enqueue("t", priority=1, key=key)
    await claim(store, worker)
    await store.enqueue("t", priority=2, key=key)
    await claim(store, worker)
    await stop_before(
        sql, SWEEP_SECOND_LANE, "v_lane.priority = 2 and pg_current_xact_id_if_assigned() is not null"
    )
    await sql.execute(LOCK)
    swept = asyncio.ensure_future(sweep(store, worker))
    await waits(sql, "advisory")
    open_ = other.transaction()
    await open_.start()
    straggler = await other.fetchval("select pipeline.enqueue('late', priority => 2, key => $1)", key)
    newest = await store.enqueue("t", priority=2, key=key)
    second = await store.register("two", ["default"])
    assert ids(await claim(store, second)) == [newest]
    await sql.execute(UNLOCK)
    assert await swept == []
    await can_settle(sql)
    for _ in range(4):  # nothing else is open: whatever may settle does
        assert await sweep(store, worker) == []
    await open_.commit()
    assert ids(await sweep(store, worker) + await claim(store, worker)) == [straggler]


@pytest.mark.parametrize("limit", ["concurrency => 1", "rate => 1, per => '1 hour'"])
async def test_a_claim_that_began_before_a_limit_was_set_keeps_to_it(
    store: JobStore, worker: int, sql: asyncpg.Connection, limit: str
) -> None:
    await store.enqueue_many("t", [{}] * 5)
    await store.adopt()
    await stop_before(sql, CLAIM_BEFORE_LOCK)
    await sql.execute(LOCK)
    late = asyncio.ensure_future(store.claim("default", 10, worker))
    await waits(sql, "advisory")
    await sql.execute(f"select pipeline.set_queue('default', {limit})", timeout=5)
    await sql.execute(UNLOCK)
    early = (await late).jobs
    assert len(early) <= 1
    assert len(early) + len(await claim(store, worker)) == 1


async def test_a_sweep_that_began_before_a_limit_was_set_keeps_to_it(
    store: JobStore, worker: int, sql: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    async with other.transaction():
        await other.execute("select pipeline.enqueue('late') from generate_series(1, 5)")
        await store.enqueue("t")
        await claim(store, worker)
    await stop_before(sql, SWEEP_BEFORE_LOCK)
    await sql.execute(LOCK)
    late = asyncio.ensure_future(sweep(store, worker))
    await waits(sql, "advisory")
    await sql.execute("select pipeline.set_queue('default', concurrency => 2)", timeout=5)
    await sql.execute(UNLOCK)
    assert await late == []
    assert await sweep(store, worker) == []  # they go back in line, where the limit is checked
    assert len(await claim(store, worker)) == 1


async def test_a_late_finish_that_waits_for_a_rescue_finishes_nothing(
    store: JobStore, worker: int, sql: asyncpg.Connection
) -> None:
    await store.enqueue_many("t", [{}] * 2)
    jobs = await claim(store, worker)
    await lose(sql, worker)
    async with sql.transaction():
        assert tuple(await sql.fetchrow(statement("jobs/rescue"), 15.0, 10)) == (2, 0)
        late = asyncio.ensure_future(store.write(worker, finished(jobs), leases(jobs)))
        await waits(sql, "transactionid")
    assert await late == Written(refused=2)
    second = await store.register("two", ["default"])
    assert [(job.id, job.attempt) for job in await claim(store, second)] == [(job.id, 2) for job in jobs]
    assert await sql.fetchval("select count(*) from pipeline.job_archive") == 0


async def test_a_rescue_leaves_alone_what_is_being_finished(
    store: JobStore, worker: int, sql: asyncpg.Connection
) -> None:
    await store.enqueue_many("t", [{}] * 2)
    jobs = await claim(store, worker)
    await lose(sql, worker)
    async with sql.transaction():
        row = await sql.fetchrow(
            statement("jobs/finish"), ids(jobs), [job.lease for job in jobs], worker, ["finished"] * 2,
            [None] * 2, [None] * 2, [0.0] * 2, [0.0] * 2, [],
        )  # fmt: skip
        assert row["finished"] == 2
        assert await asyncio.wait_for(store.rescue(), 5) == (0, 0)
    assert await store.rescue() == (0, 0)
    assert await sql.fetchval("select count(*) from pipeline.job") == 0


async def test_a_merge_that_waits_for_a_promotion_adds_its_job_anew(
    store: JobStore, sql: asyncpg.Connection, worker: int
) -> None:
    first = await sql.fetchval(DELAYED)
    await sql.execute("update pipeline.job set run_at = pipeline.now()")
    async with sql.transaction():
        assert (await sql.fetchrow(statement("jobs/promote"), ["default"], 10))["promoted"] == 1
        merged = asyncio.ensure_future(store.enqueue("t", {"n": [2]}, unique_key="u", on_clash="merge"))
        await waits(sql, "transactionid")
    second = await merged
    assert second != first
    assert {job.id: job.args for job in await claim(store, worker)} == {first: {"n": [1]}, second: {"n": [2]}}


async def test_a_promotion_leaves_alone_what_is_being_merged(
    store: JobStore, sql: asyncpg.Connection, worker: int
) -> None:
    first = await sql.fetchval(DELAYED)
    await sql.execute("update pipeline.job set run_at = pipeline.now()")
    async with sql.transaction():
        merged = await sql.fetchval(
            """select pipeline.enqueue('t', '{"n": [2]}', unique_key => 'u', on_clash => 'merge')"""
        )
        assert merged == first
        assert await asyncio.wait_for(store.promote(["default"]), 5) == (0, None)
    assert await store.promote(["default"]) == (1, None)
    assert [job.args for job in await claim(store, worker)] == [{"n": [1, 2]}]


async def test_of_two_that_add_the_same_unique_job_the_second_waits_and_adds_none(
    store: JobStore, sql: asyncpg.Connection
) -> None:
    async with sql.transaction():
        first = await sql.fetchval("select pipeline.enqueue('t', unique_key => 'u')")
        second = asyncio.ensure_future(store.enqueue("t", unique_key="u"))
        await waits(sql, "transactionid")
    assert await second == first
    assert await sql.fetchval("select count(*) from pipeline.job") == 1


async def test_of_two_that_find_a_unique_key_of_old_one_waits_and_adds_none(
    store: JobStore, sql: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    """Neither makes its row, and the first has not yet changed it."""
    old = await store.enqueue("t", unique_key="u")
    await sql.execute("select pipeline.cancel_jobs(array[$1::bigint])", old)
    await stop_before(sql, UNIQUE_AFTER_LOCK, "p_args ? 'first'")
    await sql.execute(LOCK)
    first = asyncio.ensure_future(store.enqueue("t", {"first": 1}, unique_key="u"))
    await waits(sql, "advisory")
    second = asyncio.ensure_future(other.fetchval("select pipeline.enqueue('t', unique_key => 'u')"))
    await eventually(lambda: second.done() or waiting(sql, "transactionid"), why="the second's wait or its end")
    await sql.execute(UNLOCK)
    assert await second == await first
    assert await sql.fetchval("select count(*) from pipeline.job") == 1


async def test_when_the_first_of_two_unique_jobs_rolls_back_the_second_is_added(
    store: JobStore, sql: asyncpg.Connection
) -> None:
    transaction = sql.transaction()
    await transaction.start()
    await sql.execute("select pipeline.enqueue('t', unique_key => 'u')")
    second = asyncio.ensure_future(store.enqueue("t", unique_key="u"))
    await waits(sql, "transactionid")
    await transaction.rollback()
    added = await second
    assert [row["id"] for row in await sql.fetch("select id from pipeline.job")] == [added]


async def test_a_promotion_passes_over_a_job_that_waits_for_others(
    store: JobStore, sql: asyncpg.Connection, worker: int
) -> None:
    await sql.execute("insert into pipeline.job (task, pos, needs) values ('t', null, 1)")
    assert await store.promote(["default"]) == (0, None)
    await sql.execute("update pipeline.job set needs = 0")
    assert await store.promote(["default"]) == (1, None)


async def test_two_claims_of_one_limited_key_at_once_keep_to_the_limit(
    store: JobStore, worker: int, sql: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    """In two lanes, each of which has a lock of its own."""
    await sql.execute("select pipeline.set_key_rule('k', 1)")
    for queue, priority in (("default", 1), ("default", 2), ("more", 1)):
        await store.enqueue("t", queue=queue, priority=priority, key="k:1")
        await store.adopt()
    await store.claim("default", 1, worker)  # the first look makes the limiter
    async with other.transaction():
        rows = await other.fetch(statement("jobs/claim"), "default", 9, 9, worker, "")
        assert [row["key"] for row in rows if row["id"]] == ["k:1"]
        for queue in ("default", "more"):
            assert await claim(store, worker, queue=queue) == []
    for queue in ("default", "more"):
        assert await claim(store, worker, queue=queue) == []


async def test_a_lane_made_during_a_pause_is_paused(
    store: JobStore, worker: int, sql: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    await store.enqueue("t")
    async with sql.transaction():
        await sql.execute("select pipeline.pause_queue('default')")
        adopted = asyncio.ensure_future(store.adopt())
        done: Any = asyncio.ensure_future(waits(other, "advisory"))
        await asyncio.wait([adopted, done], return_when=asyncio.FIRST_COMPLETED)
        done.cancel()
        await asyncio.wait([done])
    assert await adopted == 1
    assert await claim(store, worker) == []
    await sql.execute("select pipeline.resume_queue('default')")
    assert len(await claim(store, worker)) == 1


MIXED = ["finish", "retry", "release", "fail", "snooze", "ended"]


@pytest.mark.parametrize("steps", [["finish"], MIXED], ids=["one", "mixed"])
@pytest.mark.parametrize("number", [6, 600])
async def test_a_worker_writes_its_jobs_in_the_order_in_which_a_cancel_locks_them(
    store: JobStore, worker: int, sql: asyncpg.Connection, other: asyncpg.Connection, steps: list[Any], number: int
) -> None:
    """Else each could have one job that the other waits for."""
    await store.enqueue_many("t", [{}] * number)
    jobs = await claim(store, worker, 2) + await claim(store, worker, number)
    batch = [Outcome(job, steps[n % len(steps)]) for n, job in enumerate(jobs)][::-1]
    async with sql.transaction():
        await sql.execute("select from pipeline.job where id = $1 for update", jobs[0].id)
        written = asyncio.ensure_future(store.write(worker, batch, leases(jobs)))
        await waits(sql, "transactionid")
        free = "select count(*) from (select from pipeline.job for update skip locked) j"
        assert await other.fetchval(free) == number - 1
    assert (await written).refused == 0


@pytest.mark.parametrize("table", ["job_archive", "lease"])
async def test_two_retries_lock_what_they_change_in_one_order(
    store: JobStore, worker: int, sql: asyncpg.Connection, other: asyncpg.Connection, table: str
) -> None:
    """Whatever the order in which their rows lie."""
    jobs = []
    for _ in range(4):
        await store.enqueue("t")
        jobs += await claim(store, worker)
    await sql.execute("select pipeline.cancel_jobs($1)", ids(jobs))
    for lease in leases(jobs)[:2]:
        await sql.execute("update pipeline.lease set worker = worker where id = $1", lease)
    for job in jobs[:2]:
        await sql.execute("update pipeline.job_archive set attempt = attempt where id = $1", job.id)
    rows = leases(jobs) if table == "lease" else ids(jobs)
    async with sql.transaction():
        await sql.execute(f"select from pipeline.{table} where id = $1 for update", rows[0])
        retried = asyncio.ensure_future(other.fetchval("select pipeline.retry_jobs($1)", ids(jobs)[::-1]))
        await waits(sql, "transactionid")
        last = f"select from pipeline.{table} where id = $1 for update skip locked"
        assert await sql.fetchrow(last, rows[-1]) is not None
    assert sorted(await retried) == ids(jobs)
    assert await sql.fetchval("select count(*) from pipeline.lease where ids <> '{}'") == 0


async def test_a_retry_that_waits_for_a_lease_has_not_locked_what_its_worker_may_wait_for(
    store: JobStore, worker: int, sql: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    await store.enqueue_many("t", [{}] * 2)
    [ended, _] = await claim(store, worker)
    await sql.execute("select pipeline.cancel_jobs($1)", [ended.id])
    delayed = await sql.fetchval("select pipeline.enqueue('t', run_at => now() + interval '1 h')")
    async with sql.transaction():
        await sql.execute("select from pipeline.lease for no key update")
        retried = asyncio.ensure_future(other.fetchval("select pipeline.retry_jobs($1)", [ended.id, delayed]))
        await waits(sql, "transactionid")
        for table, id_ in (("job", delayed), ("job_archive", ended.id)):
            free = f"select id from pipeline.{table} where id = $1 for update skip locked"
            assert await sql.fetchval(free, id_) == id_
    assert sorted(await retried) == [ended.id, delayed]


@pytest.mark.parametrize("how", ["rescue", "give back"])
async def test_jobs_are_taken_from_a_worker_in_the_order_in_which_a_cancel_locks_them(
    store: JobStore, worker: int, sql: asyncpg.Connection, other: asyncpg.Connection, how: str
) -> None:
    await store.enqueue_many("t", [{}] * 4)
    jobs = ids(await claim(store, worker))
    await sql.execute("update pipeline.lease set ids = $1", jobs[::-1])
    await lose(sql, worker)
    async with sql.transaction():
        await sql.execute("select from pipeline.job where id = $1 for update", jobs[0])
        taken = asyncio.ensure_future(store.rescue() if how == "rescue" else store.give_back(worker, [], 0.0))
        await waits(sql, "transactionid")
        free = "select count(*) from (select from pipeline.job for update skip locked) j"
        assert await other.fetchval(free) == 3
    assert await taken in (4, (4, 0))
