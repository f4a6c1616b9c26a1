"""The archive: a partition a day, dropped when its time has come."""

from __future__ import annotations

import asyncpg

PARTITIONS = """
    select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'pipeline.job_archive'::regclass order by 1
"""


async def partitions(sql: asyncpg.Connection) -> list[str]:
    return [row["relname"] for row in await sql.fetch(PARTITIONS)]


async def at(sql: asyncpg.Connection, time: str) -> None:
    await sql.execute("select set_config('pipeline.fake_now', $1, false)", time)


async def archive(sql: asyncpg.Connection, id_: int, time: str) -> None:
    await sql.execute(
        f"""
        insert into pipeline.job_archive (id, queue, priority, task, args, state, attempt, max_attempts,
                                          created_at, run_at, finished_at)
        values ({id_}, 'q', 0, 't', '{{}}', 'finished', 1, 5, '{time}', '{time}', '{time}')
        """
    )


async def test_partitions_are_made_ahead_and_only_once(sql: asyncpg.Connection) -> None:
    await at(sql, "2031-03-30 23:30:00+00")
    await sql.execute("set timezone = 'America/New_York'")
    assert await sql.fetchrow("select * from pipeline.maintain_archive()") == (
        8,
        0,
    )  # days of two tables
    assert await sql.fetchrow("select * from pipeline.maintain_archive()") == (0, 0)
    assert await partitions(sql) == [
        "job_archive_20310330",
        "job_archive_20310331",
        "job_archive_20310401",
        "job_archive_20310402",
        "job_archive_default",
    ]
    await archive(sql, 1, "2031-03-30 23:59:59.9+00")
    await archive(sql, 2, "2031-03-31 00:00:00+00")
    assert await sql.fetchval("select id from pipeline.job_archive_20310330") == 1
    assert await sql.fetchval("select id from pipeline.job_archive_20310331") == 2


async def test_rows_that_the_default_partition_caught_move_to_their_day(sql: asyncpg.Connection) -> None:
    await archive(sql, 1, "2031-01-02 10:00:00+00")
    await archive(sql, 2, "2031-01-09 10:00:00+00")
    assert await sql.fetchval("select count(*) from pipeline.job_archive_default") == 2
    await at(sql, "2031-01-02 12:00:00+00")
    await sql.execute("select pipeline.maintain_archive()")
    assert await sql.fetchval("select count(*) from pipeline.job_archive_default") == 1
    assert await sql.fetchval("select id from pipeline.job_archive_20310102") == 1
    assert await sql.fetchval("select count(*) from pipeline.job_archive") == 2


async def test_days_past_their_time_are_dropped(sql: asyncpg.Connection) -> None:
    await at(sql, "2031-01-01 12:00:00+00")
    await sql.execute("select pipeline.maintain_archive()")
    await archive(sql, 1, "2031-01-01 12:00:00+00")
    await archive(sql, 2, "2031-01-02 12:00:00+00")
    await archive(sql, 3, "2030-12-01 12:00:00+00")
    await at(sql, "2031-01-09 12:00:00+00")
    assert (await sql.fetchrow("select * from pipeline.maintain_archive()"))["dropped"] == 2  # of two tables
    assert [r["id"] for r in await sql.fetch("select id from pipeline.job_archive")] == [2]


async def test_upkeep_never_waits_long_for_a_reader(dsn: str, sql: asyncpg.Connection) -> None:
    await at(sql, "2031-01-01 12:00:00+00")
    await sql.execute("select pipeline.maintain_archive()")
    await archive(sql, 1, "2031-06-01 12:00:00+00")
    reader = await asyncpg.connect(dsn)
    try:
        async with reader.transaction():
            await reader.execute("select count(*) from pipeline.job_archive")
            await at(sql, "2031-02-01 12:00:00+00")
            row = await sql.fetchrow("select * from pipeline.maintain_archive()", timeout=10)
            assert row == (4, 4)  # of the log alone
    finally:
        await reader.close()
    assert await sql.fetchrow("select * from pipeline.maintain_archive()") == (4, 4)
