"""The statements of the queue use their indexes, whatever the statistics say, and never slow down."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from pipeline.db.jobs import JOB_SETTINGS, JobStore
from pipeline.db.statements import statement, statements
from tests.jobs_kit import claim, finished, job_store, leases
from tests.statements_kit import named_indexes, nodes, plan_of

INDEXED = [name for name in statements() if name.startswith("jobs/") and named_indexes(name)]
BY_ID = ["jobs/finish", "jobs/give_back", "jobs/release", "jobs/rescue", "jobs/retry", "jobs/take"]
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
    assert {"jobs/claim", "jobs/look", "jobs/promote"} <= set(INDEXED)


@pytest.mark.parametrize("state", FILLED)
@pytest.mark.parametrize("name", INDEXED)
async def test_a_statement_uses_the_index_that_it_names(
    jobs_sql: asyncpg.Connection, name: str, state: str
) -> None:
    await jobs_sql.execute(FILLED[state])
    wanted = named_indexes(name)
    plan = await plan_of(jobs_sql, name)
    ordered = [node for node in plan if node["Node Type"] == "Limit"]
    assert ordered or name in ("jobs/look", "jobs/take")
    used = {index for _, index in scans(plan)}
    assert used <= wanted | {"job_pkey"}
    assert wanted <= used
    below = [node for limit in ordered for node in nodes(limit) if node.get("Relation Name") == "job"]
    assert all(node["Node Type"] in ("Index Scan", "Index Only Scan") for node in below)
    assert not [node for limit in ordered for node in nodes(limit) if "Sort" in node["Node Type"]] or (
        name == "jobs/claim"  # sorts the lanes of a queue
    )


@pytest.mark.parametrize("state", FILLED)
@pytest.mark.parametrize("name", BY_ID)
async def test_jobs_that_are_named_are_found_by_their_key(
    jobs_sql: asyncpg.Connection, name: str, state: str
) -> None:
    await jobs_sql.execute(FILLED[state])
    assert set(scans(await plan_of(jobs_sql, name))) == {("Index Scan", "job_pkey")}


@pytest.mark.parametrize("state", FILLED)
@pytest.mark.parametrize("name", ["jobs/look", "jobs/take"])
async def test_leased_jobs_are_looked_up_in_a_hash(jobs_sql: asyncpg.Connection, name: str, state: str) -> None:
    await jobs_sql.execute(FILLED[state])
    filters = [node["Filter"] for node in await plan_of(jobs_sql, name) if "SubPlan" in node.get("Filter", "")]
    assert filters
    assert all("hashed SubPlan" in text for text in filters)


async def read(connection: asyncpg.Connection, worker: int) -> tuple[int, int]:
    """Pages that a claim of ten visits for jobs, and for everything; the claim itself is taken back."""
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(f"prepare explained (text, int, bigint) as {statement('jobs/claim')}")
    text = await connection.fetchval(
        f"explain (analyze, buffers, format json) execute explained('default', 10, {worker})"
    )
    await connection.execute("deallocate explained")
    await transaction.rollback()
    plan = list(nodes(json.loads(text)[0]["Plan"]))
    of_jobs = [node for node in plan if node.get("Relation Name") == "job"]
    assert sum(node["Actual Rows"] for node in of_jobs) >= 10
    return sum(node["Shared Hit Blocks"] + node["Shared Read Blocks"] for node in of_jobs), plan[0][
        "Shared Hit Blocks"
    ]


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[JobStore]:
    async with job_store(dsn) as store:
        yield store


@pytest.mark.parametrize("writes", [False, True], ids=["a snapshot", "a transaction that has written"])
async def test_a_transaction_held_open_does_not_make_claims_visit_more(
    store: JobStore, sql: asyncpg.Connection, jobs_sql: asyncpg.Connection, writes: bool
) -> None:
    await store.enqueue_many("t", [{}] * 5_000)
    worker = await store.register("w", ["default"])
    held = sql.transaction(isolation="repeatable_read")
    await held.start()
    await sql.execute("select pg_current_xact_id()" if writes else "select 1")
    await store.adopt()

    async def work(claims: int) -> None:
        for _ in range(claims):
            jobs = await claim(store, worker, 50)
            await store.write(worker, finished(jobs), leases(jobs))

    await work(4)
    before, first = await read(jobs_sql, worker)
    await work(90)
    after, everything = await read(jobs_sql, worker)
    await held.rollback()
    assert after <= before + 2  # the index may have become a level or a page deeper
    print("pages visited for jobs", before, "then", after, "for everything", first, "then", everything)
    assert everything < first + 100  # versions of the lane's row
