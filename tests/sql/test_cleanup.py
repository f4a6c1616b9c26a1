"""The cleanup: what is past its time goes, what somebody still needs stays, whoever is at work meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from handlers.cleanup import Cleaner
from pipeline.db.cleanup import CleanupStore
from pipeline.db.connection import Database
from pipeline.db.jobs import JobStore
from pipeline.errors import LeaseLost, PgreflexError, TaskError
from tests.conftest import eventually
from tests.host_kit import MemoryHost, job
from tests.jobs_kit import claim, ids, job_store

NOTHING = {"partitions": 0, "job_state": 0, "job_unique": 0, "limiter": 0, "lane": 0, "lanes_missing": 0}
IDLE_LANE = """
    with made as (insert into pipeline.lane (queue, priority, key) values ('default', 0, 'k') returning *)
    insert into pipeline.lane_state (queue, priority, key, n) select queue, priority, key, 0 from made
"""
TAKEN_UP = """
    select pipeline.enqueue_unique('t', '{}', 'default', 0, null, 5, null, '', null, 'u', null, null, 'skip')
"""
WAITING = "select count(*) from pg_locks where locktype = 'advisory' and objid = 77 and not granted"
PAUSE_AFTER_INSERT = """
    create function pause() returns trigger language plpgsql as
        'begin perform pg_advisory_lock(77), pg_advisory_unlock(77); return null; end';
    create trigger pause after insert on pipeline.job_unique for each statement execute function pause();
"""
PAUSE_IN_NOW = """
    create or replace function pipeline.now() returns timestamptz language plpgsql volatile as
        'begin perform pg_advisory_lock(77), pg_advisory_unlock(77); return clock_timestamp(); end';
"""


@pytest.fixture
def cleaner(db: Database) -> Cleaner:
    return Cleaner(CleanupStore(db))


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[JobStore]:
    async with job_store(dsn) as opened:
        yield opened


async def clean(cleaner: Cleaner, **more: Any) -> dict[str, int]:
    return await cleaner.cleanup(job(MemoryHost()), **more)


async def test_a_fresh_database_has_nothing_to_clean(cleaner: Cleaner) -> None:
    assert await clean(cleaner) == NOTHING


async def test_days_of_the_archive_go_as_a_whole(sql: asyncpg.Connection, cleaner: Cleaner) -> None:
    days = "select count(*) from pg_inherits where inhparent = 'pipeline.job_archive'::regclass"
    await sql.execute("select set_config('pipeline.fake_now', (now() - interval '9 days')::text, false)")
    await sql.execute("select pipeline.maintain_archive()")
    assert await sql.fetchval(days) == 1 + 4
    assert (await clean(cleaner))["partitions"] >= 2
    assert await sql.fetchval(days) == 1 + 2 + 4  # nine and eight days old ones went, four were made ahead
    await clean(cleaner, archive_days=6)
    assert await sql.fetchval(days) == 1 + 1 + 4


async def test_progress_of_jobs_that_ended_goes_with_the_archive(
    sql: asyncpg.Connection, cleaner: Cleaner
) -> None:
    await sql.execute("insert into pipeline.job (task) values ('live')")
    await sql.execute(
        """
        insert into pipeline.job_state (job, saved, at) values
            (1, '1', now() - interval '30 days'), (7, '1', now() - interval '6 days'),
            (8, '1', now() - interval '8 days')
        """
    )
    assert (await clean(cleaner))["job_state"] == 1
    assert await sql.fetchval("select array_agg(job order by job) from pipeline.job_state") == [1, 7]


async def test_unique_keys_go_once_their_job_and_their_window_are_over(
    sql: asyncpg.Connection, cleaner: Cleaner
) -> None:
    await sql.execute("insert into pipeline.job (task) values ('live')")
    await sql.execute(
        """
        insert into pipeline.job_unique (key, job, kept_until) values
            ('live', 1, null), ('ended', 7, null), ('window', 8, now() - interval '1 hour'),
            ('over', 9, now() - interval '2 days'), ('live and over', 1, now() - interval '2 days')
        """
    )
    assert (await clean(cleaner))["job_unique"] == 2
    left = await sql.fetchval("select array_agg(key order by key) from pipeline.job_unique")
    assert left == ["live", "live and over", "window"]
    assert (await clean(cleaner, unique_days=0))["job_unique"] == 1


async def test_a_unique_key_that_is_taken_up_again_meanwhile_stays(
    sql: asyncpg.Connection, dsn: str, cleaner: Cleaner
) -> None:
    await sql.execute("insert into pipeline.job_unique (key, job) values ('u', 7)")
    other = await asyncpg.connect(dsn)
    async with sql.transaction():
        first = await sql.fetchval(TAKEN_UP)
        assert (await clean(cleaner, unique_days=0))["job_unique"] == 0
    assert await other.fetchval(TAKEN_UP) == first
    await other.close()


async def test_a_unique_key_that_goes_between_being_found_and_being_locked_is_made_again(
    sql: asyncpg.Connection, dsn: str, cleaner: Cleaner
) -> None:
    await sql.execute("insert into pipeline.job_unique (key, job) values ('u', 7)")
    await sql.execute(PAUSE_AFTER_INSERT)
    await sql.execute("select pg_advisory_lock(77)")
    other = await asyncpg.connect(dsn)
    calling = asyncio.ensure_future(other.fetchval(TAKEN_UP))
    await eventually(lambda: sql.fetchval(WAITING), why="the pause after the insert")
    assert (await clean(cleaner, unique_days=0))["job_unique"] == 1
    await sql.execute("select pg_advisory_unlock(77)")
    assert await sql.fetchval(TAKEN_UP) == await calling
    await other.close()


async def test_a_unique_key_that_got_another_job_after_the_cleanup_looked_stays(
    sql: asyncpg.Connection, dsn: str, db: Database
) -> None:
    await sql.execute("insert into pipeline.job_unique values ('u', 7, now() - interval '9 days')")
    other = await asyncpg.connect(dsn)
    async with other.transaction():
        first = await other.fetchval(TAKEN_UP)
        await sql.execute(PAUSE_IN_NOW)
        await sql.execute("select pg_advisory_lock(77)")
        cleaning = asyncio.ensure_future(CleanupStore(db).prune("job_unique", 0, 10))
        await eventually(lambda: sql.fetchval(WAITING), why="the pause in the cleanup")
    await sql.execute("select pg_advisory_unlock(77)")
    assert await cleaning == 0
    assert await other.fetchval(TAKEN_UP) == first
    await other.close()


async def test_limiters_go_once_their_window_is_long_over(sql: asyncpg.Connection, cleaner: Cleaner) -> None:
    assert await sql.fetchval("select pipeline.rate_limit('now', 1, '1 minute')")
    assert await sql.fetchval("select pipeline.rate_limit('year', 1, '1 year')")
    await sql.execute("select set_config('pipeline.fake_now', (now() - interval '3 days')::text, false)")
    assert await sql.fetchval("select pipeline.rate_limit('past', 1, '1 minute')")
    assert await sql.fetchval("select pipeline.rate_limit('week', 1, '7 days')")
    assert (await clean(cleaner))["limiter"] == 1
    left = await sql.fetchval("select array_agg(name order by name) from pipeline.limiter")
    assert left == ["user:now", "user:week", "user:year"]


async def test_idle_lanes_go_and_a_job_that_was_on_its_way_into_one_is_found(
    sql: asyncpg.Connection, cleaner: Cleaner, store: JobStore
) -> None:
    worker = await store.register("w", ["default"])
    await sql.execute(IDLE_LANE)
    producer = sql.transaction()
    await producer.start()
    late = await sql.fetchval("select pipeline.enqueue('t', key => 'k')")
    host = MemoryHost()
    cleaning = asyncio.ensure_future(cleaner.cleanup(job(host)))
    await eventually(lambda: any("transactions" in note for *_, note in host.reports), why="the wait")
    await producer.commit()
    gone = await cleaning
    assert (gone["lane"], gone["lanes_missing"]) == (1, 1)
    assert ids(await claim(store, worker)) == [late]


IN_USE = {
    "swept lately": "update pipeline.lane_state set swept_at = now()",
    "not settled": "update pipeline.lane_state set mark = 1",
    "delayed jobs": "insert into pipeline.job (task, key, pos) select 't', key, null from pipeline.lane",
    "leases": "insert into pipeline.lease (worker, queue, priority, key, made_at, ids) "
    "select 1, queue, priority, key, now(), '{}' from pipeline.lane",
}


@pytest.mark.parametrize("why", IN_USE)
async def test_lanes_in_use_do_not_hide_an_idle_one(sql: asyncpg.Connection, cleaner: Cleaner, why: str) -> None:
    await sql.execute(
        """insert into pipeline.lane (queue, priority, key)
           select 'default', 0, 'a' || n from generate_series(1, 5001) n;
           insert into pipeline.lane_state (queue, priority, key, n)
           select queue, priority, key, 0 from pipeline.lane"""
    )
    await sql.execute(IN_USE[why])
    await sql.execute(IDLE_LANE)
    assert (await clean(cleaner))["lane"] == 1
    assert await sql.fetchval("select count(*) from pipeline.lane where key <> ''") == 5001


async def test_a_transaction_that_does_not_end_is_left_to_the_next_cleanup(
    sql: asyncpg.Connection, db: Database
) -> None:
    hasty = Cleaner(CleanupStore(db), producers_seconds=0.1)
    await sql.execute(IDLE_LANE)
    host = MemoryHost()
    async with sql.transaction():
        await sql.fetchval("select pipeline.enqueue('t', key => 'k')")
        assert (await hasty.cleanup(job(host)))["lanes_missing"] == 0
    assert [level for level, _ in host.lines] == ["warning"]
    assert (await clean(hasty))["lanes_missing"] == 1


async def test_a_cancelled_cleanup_ends_between_two_batches(sql: asyncpg.Connection, cleaner: Cleaner) -> None:
    await sql.execute("insert into pipeline.job_unique select 'k' || i, 7 from generate_series(1, 25) i")
    await sql.execute("insert into pipeline.limiter (name) values ('user:old')")
    host = MemoryHost()

    def cancel(done: float) -> None:
        if done >= 10:
            raise LeaseLost("the job was cancelled")

    host.on_progress = cancel
    with pytest.raises(LeaseLost):
        await cleaner.cleanup(job(host), batch=10)
    assert await sql.fetchval("select count(*) from pipeline.job_unique") == 15
    assert await sql.fetchval("select count(*) from pipeline.limiter") == 1
    assert (await clean(cleaner, batch=10))["job_unique"] == 15


async def test_a_table_that_cannot_be_pruned_does_not_stop_the_others(
    sql: asyncpg.Connection, cleaner: Cleaner
) -> None:
    await sql.execute("alter table pipeline.job_unique rename to job_unique_")
    await sql.execute("insert into pipeline.limiter (name) values ('user:old')")
    host = MemoryHost()
    with pytest.raises(PgreflexError, match="job_unique"):
        await cleaner.cleanup(job(host))
    assert await sql.fetchval("select count(*) from pipeline.limiter") == 0
    assert [level for level, _ in host.lines] == ["warning"]


@pytest.mark.parametrize("wrong", [{"archive_days": 8}, {"archive_days": 0}, {"unique_days": -1}, {"batch": 0}])
async def test_a_retention_that_cannot_be_meant_is_refused(cleaner: Cleaner, wrong: dict[str, Any]) -> None:
    with pytest.raises(TaskError):
        await clean(cleaner, **wrong)
