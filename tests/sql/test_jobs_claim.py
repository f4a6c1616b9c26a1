"""Handing jobs out: lanes, order, stragglers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from pipeline.db.jobs import JobStore
from tests.conftest import eventually
from tests.jobs_kit import claim, finished, ids, job_store, leases, sweep


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[JobStore]:
    async with job_store(dsn) as store:
        yield store


@pytest.fixture
async def worker(store: JobStore) -> int:
    return await store.register("one", ["default"])


@pytest.fixture
async def other(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A second client."""
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()


async def settled(store: JobStore, worker: int) -> None:
    """Sweep until it is known that nothing can appear; transactions of other databases count, too."""

    async def quiet() -> bool:
        return not (await store.sweep("default", 10, worker, every=0)).unsettled

    await eventually(quiet, why="the end of sweeping")


async def test_claims_of_several_workers_never_overlap(store: JobStore) -> None:
    made = await store.enqueue_many("t", [{}] * 500)
    workers = [await store.register(f"w{n}", ["default"]) for n in range(4)]
    await store.adopt()

    async def take(worker: int) -> list[int]:
        got: list[int] = []
        for _ in range(200):
            got += ids((await store.claim("default", 7, worker)).jobs)
        return got

    taken = await asyncio.gather(*map(take, workers))
    assert sorted(job for got in taken for job in got) == sorted(made)
    assert sum(bool(got) for got in taken) > 1


async def test_the_lower_priority_number_runs_first_and_within_it_the_older_job(
    store: JobStore, worker: int
) -> None:
    made = [await store.enqueue("t", priority=p) for p in (5, 0, -3, 0, 5)]
    await store.adopt()
    order: list[int] = []
    while jobs := (await store.claim("default", 1, worker)).jobs:
        order += ids(jobs)
    assert order == [made[2], made[1], made[3], made[0], made[4]]


async def test_a_claim_takes_from_one_lane_and_no_more_than_asked(store: JobStore, worker: int) -> None:
    await store.enqueue_many("t", [{}] * 5, priority=1)
    await store.enqueue_many("t", [{}] * 5, priority=2)
    assert [job.priority for job in await claim(store, worker, 3)] == [1, 1, 1]
    assert [job.priority for job in await claim(store, worker, 3)] == [1, 1]
    assert [job.priority for job in await claim(store, worker, 30)] == [2] * 5
    assert await claim(store, worker) == []


async def test_a_claim_writes_no_job_row(store: JobStore, worker: int, sql: asyncpg.Connection) -> None:
    await store.enqueue_many("t", [{}] * 10)
    rows = "select ctid::text, xmin::text, xmax::text from pipeline.job order by id"
    before = await sql.fetch(rows)
    assert len(await claim(store, worker)) == 10
    assert await sql.fetch(rows) == before


async def test_a_lane_that_another_claim_holds_is_passed_over(
    store: JobStore, worker: int, sql: asyncpg.Connection
) -> None:
    await store.enqueue("t", priority=1)
    late = await store.enqueue("t", priority=2)
    await store.adopt()
    async with sql.transaction():
        await sql.execute("select from pipeline.lane where priority = 1 for update")
        assert ids(await claim(store, worker)) == [late]
        assert await claim(store, worker) == []
    assert len(await claim(store, worker)) == 1


async def test_a_delayed_job_waits_until_it_is_due(store: JobStore, worker: int, sql: asyncpg.Connection) -> None:
    id_ = await sql.fetchval("select pipeline.enqueue('t', run_at => pipeline.now() + interval '1 hour')")
    promoted, next_in = await store.promote(["default"])
    assert promoted == 0
    assert next_in is not None
    assert 3500 < next_in <= 3600
    assert await claim(store, worker) == []
    await sql.execute("update pipeline.job set run_at = pipeline.now() - interval '1 s'")
    assert await store.promote(["other"]) == (0, None)
    assert await store.promote(["default"]) == (1, None)
    assert await store.promote(["default"]) == (0, None)
    [job] = await claim(store, worker)
    assert (job.id, job.attempt) == (id_, 1)
    assert job.waited >= 1


async def test_two_promotions_at_once_promote_each_job_once(store: JobStore, sql: asyncpg.Connection) -> None:
    await sql.execute(
        """
        insert into pipeline.job (task, pos, run_at)
        select 't', null, now() - interval '1 s' from generate_series(1, 300)
        """
    )
    counts = await asyncio.gather(*(store.promote(["default"]) for _ in range(4)))
    assert sum(promoted for promoted, _ in counts) == 300
    assert await sql.fetchval("select count(distinct pos) from pipeline.job") == 300


async def test_a_promotion_passes_over_a_job_that_somebody_holds(store: JobStore, sql: asyncpg.Connection) -> None:
    await sql.execute(
        "insert into pipeline.job (task, pos, run_at) select 't', null, now() from generate_series(1, 2)"
    )
    async with sql.transaction():
        await sql.execute("select from pipeline.job order by id limit 1 for update")
        assert await asyncio.wait_for(store.promote(["default"]), 5) == (1, None)
    assert await store.promote(["default"]) == (1, None)


async def test_a_transaction_has_its_id_before_it_draws_a_position(sql: asyncpg.Connection) -> None:
    await sql.execute(
        """
        create function public.look() returns trigger language plpgsql as $$
        begin
            assert new.pos > 0 and pg_current_xact_id_if_assigned() is not null, 'drawn too early';
            return new;
        end $$;
        create trigger look before insert on pipeline.job for each row execute function public.look();
        """
    )
    # the first number of a sequence is logged, which takes an id anyway
    await sql.execute("select nextval('pipeline.job_pos'), nextval('pipeline.job_id_seq')")
    await sql.execute("insert into pipeline.job (task) values ('t')")


async def test_a_straggler_is_found_after_its_commit_and_only_once(
    store: JobStore, worker: int, sql: asyncpg.Connection
) -> None:
    second = await store.register("two", ["default"])
    open_ = sql.transaction()
    await open_.start()
    straggler = await sql.fetchval("select pipeline.enqueue('late')")
    await store.enqueue_many("t", [{}] * 3)
    await claim(store, worker)
    for _ in range(3):
        assert await sweep(store, worker) == []
    await open_.commit()
    assert await claim(store, worker) == []  # it lies below the mark
    found = await sweep(store, worker)
    assert [(job.id, job.task) for job in found] == [(straggler, "late")]
    assert await sweep(store, second) == []
    assert await claim(store, second) == []


async def test_a_straggler_is_swept_for_even_when_its_transaction_is_the_newest_of_all(
    store: JobStore, worker: int, sql: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    """pg_snapshot_xmax would say here that nothing is in progress: it ends after the newest that has ended."""
    await store.enqueue("t")
    await claim(store, worker)
    early = other.transaction()
    await early.start()
    await other.execute("select pg_current_xact_id()")
    open_ = sql.transaction()
    await open_.start()
    straggler = await sql.fetchval("select pipeline.enqueue('late')")
    await other.execute("select pipeline.enqueue('t')")
    await early.commit()
    assert len(await claim(store, worker)) == 1
    for _ in range(5):
        assert (await store.sweep("default", 10, worker, every=0)).unsettled
    await open_.commit()
    assert ids(await sweep(store, worker)) == [straggler]


async def test_sweeping_ends_when_no_straggler_can_appear_any_more(
    store: JobStore, worker: int, sql: asyncpg.Connection
) -> None:
    open_ = sql.transaction()
    await open_.start()
    await sql.execute("select pg_current_xact_id()")  # it may yet draw nothing, but nobody can know
    await store.enqueue("t")
    await claim(store, worker)
    await sweep(store, worker)
    for _ in range(3):
        assert (await store.sweep("default", 10, worker, every=0)).unsettled
    await open_.rollback()
    await settled(store, worker)


async def test_sweeps_of_all_workers_together_keep_their_distance(
    store: JobStore, worker: int, sql: asyncpg.Connection
) -> None:
    open_ = sql.transaction()
    await open_.start()
    await sql.execute("select pipeline.enqueue('late')")
    await store.enqueue("t")
    await claim(store, worker)
    await sweep(store, worker)
    await open_.commit()
    assert (await store.sweep("default", 10, worker, every=3600)).jobs == []
    assert len(await sweep(store, worker)) == 1


async def test_a_search_of_everything_finds_a_job_whose_lease_was_lost(
    store: JobStore, worker: int, sql: asyncpg.Connection
) -> None:
    id_ = await store.enqueue("t")
    await claim(store, worker)
    await settled(store, worker)
    await sql.execute("delete from pipeline.lease")
    assert await sweep(store, worker) == []
    found = await store.sweep("default", 10, worker, every=0, search_every=0)
    assert ids(found.jobs) == [id_]


async def test_the_first_job_of_a_new_queue_blocks_nobody_while_it_is_uncommitted(
    store: JobStore, worker: int, sql: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    open_ = sql.transaction()
    await open_.start()
    await sql.execute("select pipeline.enqueue('t', queue => 'new')")
    id_ = await other.fetchval("select pipeline.enqueue('t', queue => 'new')", timeout=5)
    assert ids(await claim(store, worker, queue="new")) == [id_]
    await open_.rollback()
    assert await sweep(store, worker, queue="new") == []


async def test_a_job_carries_what_it_was_enqueued_with(
    store: JobStore, worker: int, sql: asyncpg.Connection
) -> None:
    await sql.execute(
        """select pipeline.enqueue('t', '{"n": 1, "s": "ä"}', priority => 3, max_attempts => 2,
                                   timeout => interval '1.5 s')"""
    )
    [job] = await claim(store, worker)
    assert (job.task, job.args, job.priority) == ("t", {"n": 1, "s": "ä"}, 3)
    assert (job.max_attempts, job.timeout, job.attempt) == (2, 1.5, 1)
    await store.write(worker, finished([job]), leases([job]))
    assert await sql.fetchval("select count(*) from pipeline.lease") == 0
