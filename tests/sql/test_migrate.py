"""Installing and upgrading the schema."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from pipeline.db import migrate as migrations
from pipeline.db.migrate import migrate, status
from pipeline.errors import Busy, NotInstalled


async def test_several_daemons_that_start_at_once_install_everything_exactly_once(empty_dsn: str) -> None:
    ran = await asyncio.gather(*(migrate(empty_dsn) for _ in range(4)))
    assert sorted(map(len, ran))[:3] == [0, 0, 0]
    assert max(ran, key=len) == [file.name for file in migrations.files()]
    assert (await status(empty_dsn)).pending == ()


async def test_a_second_run_changes_nothing(dsn: str) -> None:
    assert await migrate(dsn) == []


async def test_an_applied_file_that_was_changed_is_refused(dsn: str, sql: asyncpg.Connection) -> None:
    await sql.execute("update pipeline.migration set checksum = 'x' where name = 'migrations/0001_base.sql'")
    with pytest.raises(NotInstalled, match="0001_base.sql was changed"):
        await migrate(dsn)


async def test_a_database_of_a_newer_program_is_refused(dsn: str, sql: asyncpg.Connection) -> None:
    await sql.execute("insert into pipeline.migration values ('migrations/9999_future.sql', 'x', now(), 0)")
    with pytest.raises(NotInstalled, match="newer pgreflex"):
        await migrate(dsn)


async def test_a_changed_function_is_installed_again(dsn: str, sql: asyncpg.Connection) -> None:
    await sql.execute("update pipeline.migration set checksum = 'old' where name = 'functions/110_watch.sql'")
    assert await migrate(dsn) == ["functions/110_watch.sql"]


async def test_a_file_that_fails_leaves_nothing_of_the_upgrade(
    empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = migrations.File("migrations/0001_x.sql", 1, "create table public.half()")
    broken = migrations.File("functions/100_x.sql", None, "select 1/0")
    monkeypatch.setattr(migrations, "files", lambda: [whole, broken])
    with pytest.raises(Exception, match="division by zero"):
        await migrate(empty_dsn)
    connection = await asyncpg.connect(empty_dsn)
    try:
        assert await connection.fetchval("select to_regclass('public.half')") is None
        assert await connection.fetchval("select count(*) from pipeline.migration") == 0
    finally:
        await connection.close()


async def test_waiting_for_another_process_ends_with_a_clear_error(dsn: str, sql: asyncpg.Connection) -> None:
    await sql.execute("select pg_advisory_lock(1885697639, 1)")
    with pytest.raises(Busy, match="another process has been migrating"):
        await migrate(dsn, patience=0.2)


async def test_a_task_that_was_unique_until_it_begins_and_for_a_time_can_still_be_added(
    dsn: str, sql: asyncpg.Connection
) -> None:
    await sql.execute(
        """insert into pipeline.task (name, unique_by, unique_for, unique_states, on_clash) values
               ('both', '*', '1 h', '{blocked,delayed,ready}', 'skip'),
               ('begins', '*', null, '{blocked,delayed,ready}', 'skip'), ('ends', '*', '1 h', null, 'skip');
           delete from pipeline.migration where name = 'migrations/0021_unique_windows.sql'"""
    )
    await migrate(dsn)
    for task in ("both", "begins", "ends"):
        first = await sql.fetchval("select pipeline.enqueue($1)", task)
        assert await sql.fetchval("select pipeline.enqueue($1)", task) == first
