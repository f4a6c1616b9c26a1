"""The resolver goes from row to row by keys, whatever the statistics say of its tables."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from pipeline.core.workflow import Workflow
from pipeline.db.jobs import JOB_SETTINGS
from pipeline.db.statements import statement
from tests.workflow_kit import by_hand

READ = """
select relname, seq_tup_read + idx_tup_fetch as rows from pg_stat_xact_user_tables
where schemaname = 'pipeline' and relname in ('job', 'job_need', 'workflow_job', 'job_ended', 'workflow')
"""
MOST = {"job": 60, "job_need": 60, "workflow_job": 60, "job_ended": 60, "workflow": 30}


@pytest.fixture(params=["analyzed while empty", "analyzed while full"])
async def full_dsn(request: pytest.FixtureRequest, dsn: str, sql: asyncpg.Connection) -> AsyncIterator[str]:
    """Thousands of jobs that wait, and one of ten dependents that has ended."""
    if request.param == "analyzed while empty":
        await sql.execute("vacuum analyze")
    async with by_hand(dsn) as hand:
        for width in (10, 3_000):
            flow = Workflow("fan")
            first = flow.add("t", n=width, name="first", priority=-1 if width == 10 else 0)
            for n in range(width):
                flow.add("t", name=str(n), after=first)
            await hand.flows.start(flow)
        [job] = await hand.take(1)
        assert job.args == {"n": 10}
        await hand.end([job])
    if request.param == "analyzed while full":
        await sql.execute("vacuum analyze")
    return dsn


async def test_a_step_reads_only_what_it_is_about(full_dsn: str) -> None:
    connection = await asyncpg.connect(full_dsn, server_settings=JOB_SETTINGS)
    async with connection.transaction():
        row = await connection.fetchrow(statement("workflows/resolve"), 0, 1000, 5000)
        read = {found["relname"]: found["rows"] for found in await connection.fetch(READ)}
    await connection.close()
    assert row is not None
    assert (row["notes"], row["released"]) == (1, 10)
    assert {table: rows for table, rows in read.items() if rows > MOST[table]} == {}, read
