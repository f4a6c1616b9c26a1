"""The tests' own server counts statements, so that what reads the counts can be tested."""

from __future__ import annotations

import asyncpg
import pytest


@pytest.mark.usefixtures("pg_stat_statements")
async def test_the_server_of_the_tests_counts_statements(sql: asyncpg.Connection) -> None:
    for _ in range(3):
        await sql.fetchval("select 417 as only_here")
    calls = await sql.fetchval("select calls from pg_stat_statements where query like '%as only_here%'")
    assert calls == 3
