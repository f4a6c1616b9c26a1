"""The statements of the queue use their indexes, whatever the statistics say, and never slow down."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from pipeline.db.jobs import JOB_SETTINGS
from pipeline.db.statements import statements
from tests.statements_kit import named_indexes, nodes, plan_of

INDEXED = [name for name in statements() if name.startswith("jobs/") and named_indexes(name)]
BY_ID = ["jobs/finish", "jobs/give_back", "jobs/release", "jobs/rescue", "jobs/retry"]
FILL = "insert into pipeline.job (task) select 't' from generate_series(1, 20000)"
FILLED = {
    "an empty table": "select 1",
    "a table analyzed while it was small": f"insert into pipeline.job (task) values ('t'); analyze; {FILL}",
    "a table never analyzed": FILL,
    "a table analyzed": f"{FILL}; analyze",
}


@pytest.fixture
async def jobs_sql(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection set up as the queue's own."""
    connection = await asyncpg.connect(dsn, server_settings=JOB_SETTINGS)
    yield connection
    await connection.close()


def scans(plan: list[dict[str, Any]]) -> list[tuple[str, str | None]]:
    """How the plan reads pipeline.job."""
    return [
        (node["Node Type"], node.get("Index Name"))
        for node in plan
        if node.get("Relation Name") == "job" and node["Node Type"].endswith("Scan")
    ]


def test_statements_that_need_an_index_name_it() -> None:
    assert {"jobs/promote"} <= set(INDEXED)


@pytest.mark.parametrize("state", FILLED)
@pytest.mark.parametrize("name", INDEXED)
async def test_a_statement_uses_the_index_that_it_names(
    jobs_sql: asyncpg.Connection, name: str, state: str
) -> None:
    await jobs_sql.execute(FILLED[state])
    wanted = named_indexes(name)
    plan = await plan_of(jobs_sql, name)
    ordered = [node for node in plan if node["Node Type"] == "Limit"]
    assert ordered
    used = {index for _, index in scans(plan)}
    assert used <= wanted | {"job_pkey"}
    assert wanted <= used
    below = [node for limit in ordered for node in nodes(limit) if node.get("Relation Name") == "job"]
    assert all(node["Node Type"] in ("Index Scan", "Index Only Scan") for node in below)
    assert not [node for limit in ordered for node in nodes(limit) if "Sort" in node["Node Type"]]


@pytest.mark.parametrize("state", FILLED)
@pytest.mark.parametrize("name", BY_ID)
async def test_jobs_that_are_named_are_found_by_their_key(
    jobs_sql: asyncpg.Connection, name: str, state: str
) -> None:
    await jobs_sql.execute(FILLED[state])
    assert set(scans(await plan_of(jobs_sql, name))) == {("Index Scan", "job_pkey")}
