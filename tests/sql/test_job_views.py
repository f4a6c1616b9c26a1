"""How jobs are found among many, and what is done about a search that takes too long."""

from __future__ import annotations

import asyncpg
import pytest

from pipeline.core.job_filter import parse_filter
from pipeline.db.connection import Database
from pipeline.db.job_view import VIEW_SETTINGS, JobViews, view_database
from pipeline.errors import Busy, TaskError
from tests.statements_kit import plan_of

ARCHIVED = """
    insert into pipeline.job_archive (
        id, queue, priority, task, args, state, attempt, max_attempts, created_at, run_at, finished_at, error
    )
    select n, 'mail', 0, 't', '{}', case when n % 1000 = 3 then 'failed' else 'finished' end, 1, 5, now(), now(),
        now(), case when n % 1000 = 3 then 'boom' end
    from generate_series(1, 30000) n
"""
MANY = """
    insert into pipeline.job (queue, task) select 'mail', 't' from generate_series(1, 30000);
    insert into pipeline.lease (worker, queue, priority, made_at, ids)
        values (1, 'mail', 0, now(), '{30005,30009}')
"""


async def fill(sql: asyncpg.Connection) -> None:
    await sql.execute("select pipeline.maintain_archive()")
    await sql.execute(ARCHIVED)
    await sql.execute("alter sequence pipeline.job_id_seq restart with 30001")
    await sql.execute(MANY)
    await sql.execute("analyze")


@pytest.mark.parametrize(
    ("name", "arguments", "index"),
    [
        ("jobs/list_live", "9e18::bigint, null, null, null, null, null, null, 50, false", "job_pkey"),
        ("jobs/list_live", "9e18::bigint, '{running}', null, null, null, null, null, 50, false", "job_pkey"),
        ("jobs/list_live", "9e18::bigint, '{delayed}', null, null, null, null, null, 50, false", "job_delayed"),
        ("jobs/list_ended", "30001, '{failed}', null, null, null, null, null, 50, false, 0", "_finished_at_idx"),
    ],
)
async def test_a_list_of_what_has_an_index_reads_little_else(
    sql: asyncpg.Connection, dsn: str, name: str, arguments: str, index: str
) -> None:
    await fill(sql)
    settings = {key: value for key, value in VIEW_SETTINGS.items() if key != "statement_timeout"}
    connection = await asyncpg.connect(dsn, server_settings=settings)
    try:
        plan = await plan_of(connection, name, arguments)
    finally:
        await connection.close()
    assert any(index in node.get("Index Name", "") for node in plan)
    full = await sql.fetchval("select tableoid::regclass::text from pipeline.job_archive limit 1")
    full = full.removeprefix("pipeline.")
    read = {node["Relation Name"] for node in plan if node["Node Type"] == "Seq Scan"}
    assert read & {"job", full} == set()


async def test_everything_is_found_whatever_the_pages(sql: asyncpg.Connection, dsn: str) -> None:
    await fill(sql)
    async with view_database(dsn, purpose="test") as db:
        views = JobViews(db)
        found = [id_ async for some in views.walk(parse_filter("")) for id_ in some]
        assert found == list(range(60_000, 0, -1))
        failed = [id_ async for some in views.walk(parse_filter("state:failed error:BOOM")) for id_ in some]
        assert failed == list(range(29_003, 0, -1000))
        assert [job.id for job in await views.page(parse_filter("state:running"), 50)] == [30_009, 30_005]
        page = await views.page(parse_filter("queue:mail"), 5, after=30_003)
        assert [job.id for job in page] == [30_002, 30_001, 30_000, 29_999, 29_998]


async def test_a_search_that_takes_too_long_is_given_up_with_advice(sql: asyncpg.Connection, dsn: str) -> None:
    async with (
        sql.transaction(),
        Database(dsn, settings={**VIEW_SETTINGS, "statement_timeout": "50ms"}) as db,
    ):
        await sql.execute("lock table pipeline.job in access exclusive mode")
        with pytest.raises(Busy, match="could not be found within 20 s") as refused:
            await JobViews(db).page(parse_filter("queue:x"), 50)
        assert "since:1h" in refused.value.hint


async def test_a_job_that_is_not_there_is_a_clear_error(dsn: str) -> None:
    async with view_database(dsn, purpose="test") as db:
        for id_ in (0, -1, 999, 2**80):
            with pytest.raises(TaskError, match=f"there is no job {id_}"):
                await JobViews(db).show(id_)
