"""The statements of the queue use their indexes, whatever the statistics say, and never slow down."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from pipeline.db.jobs import JOB_SETTINGS
from pipeline.db.statements import statements
from tests.jobs_kit import finished, job_store, leases
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


CAUGHT = """
load 'auto_explain';
set auto_explain.log_min_duration = 0;
set auto_explain.log_nested_statements = on;
set auto_explain.log_format = json;
set client_min_messages = log;
"""
TURNS = """
insert into pipeline.job (task, queue, key) select 't', 'turns', 'k:' || n % 100 from generate_series(1, 5000) n;
insert into pipeline.job (task) select 't' from generate_series(1, 50);
insert into pipeline.lane_request select distinct queue, priority, key from pipeline.job;
select pipeline.adopt_lanes();
select pipeline.set_key_rule('k', 3);
insert into pipeline.limiter (name) select 'key:k:' || n from generate_series(0, 99) n;
"""
CALLS = {
    "claim": "select * from pipeline.claim('default', 100, 100, 1)",
    "claim in turn": "select * from pipeline.claim('turns', 50, 50, 1)",
    "sweep": "select * from pipeline.sweep('default', 100, 1, 0, 1e9)",
    "sweep of everything": "select * from pipeline.sweep('default', 100, 1, 0, 0)",
    "sweep of limited lanes": "select * from pipeline.sweep('turns', 100, 1, 0, 0)",
}
BELOW = "insert into pipeline.job (task, pos) values ('straggler', 1)"


def taken_whole(node: dict[str, Any], above: str = "") -> list[str]:
    """What reads all the jobs in line, with nothing that would stop it early: sorts, hashes and their like."""
    kind = node["Node Type"]
    if kind == "Limit":
        above = ""
    elif kind in ("Sort", "Hash", "Hash Join", "Merge Join", "Aggregate", "Materialize"):
        above = kind
    found = [above] if above and node.get("Index Name") == "job_ready" else []
    for child in node.get("Plans", ()):
        apart = child.get("Parent Relationship") in ("InitPlan", "SubPlan")
        found += taken_whole(child, "" if apart else above)
    return found


async def plans_of(connection: asyncpg.Connection, call: str) -> list[dict[str, Any]]:
    """The plans of all statements that a call runs, also inside of functions."""
    heard: list[str] = []
    connection.add_log_listener(lambda _, message: heard.append(message.message))
    await connection.execute(CAUGHT)
    heard.clear()
    await connection.fetch(call)
    await connection.reset()
    found = [text.partition("plan:\n")[2] for text in heard]
    return [json.loads(text)["Plan"] for text in found if text]


@pytest.mark.parametrize("state", FILLED)
@pytest.mark.parametrize("call", CALLS)
async def test_handing_out_reads_jobs_by_their_index_and_sorts_none(
    jobs_sql: asyncpg.Connection, sql: asyncpg.Connection, call: str, state: str
) -> None:
    await sql.execute(FILLED[state])
    await sql.execute(TURNS)
    for _ in range(3):
        await sql.fetch("select * from pipeline.claim('default', 500, 500, 1)")
        await sql.fetch("select * from pipeline.claim('turns', 50, 50, 1)")
    await sql.execute(BELOW)
    plans = await plans_of(jobs_sql, CALLS[call])
    read = [node for plan in plans for node in nodes(plan) if node.get("Relation Name") == "job"]
    assert {node.get("Index Name") for node in read if node["Node Type"] != "ModifyTable"} <= {
        "job_ready",
        "job_pkey",
    }
    assert "job_ready" in {node.get("Index Name") for node in read}
    assert [taken_whole(plan) for plan in plans if taken_whole(plan)] == []
    leased = [node["Filter"] for node in read if "SubPlan" in node.get("Filter", "")]
    assert all("hashed SubPlan" in condition for condition in leased)
    if call.startswith("sweep"):
        assert leased


async def pages(connection: asyncpg.Connection, call: str) -> int:
    """How many pages a call visits."""
    text = await connection.fetchval(f"explain (analyze, buffers, format json) {call}")
    plan = json.loads(text)[0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


async def test_a_snapshot_held_open_makes_no_claim_visit_more_pages(
    jobs_sql: asyncpg.Connection, sql: asyncpg.Connection, dsn: str
) -> None:
    await sql.execute(f"{FILL}; insert into pipeline.lane_request values ('default', 0, '')")
    old = await asyncpg.connect(dsn)
    transaction = old.transaction(isolation="repeatable_read")
    await transaction.start()
    await old.fetchval("select count(*) from pipeline.job")
    call = "select * from pipeline.claim('default', 10, 10, 1, '')"
    async with job_store(dsn) as store:
        worker = await store.register("w", ["default"])
        await store.adopt()
        await store.claim("default", 10, worker)
        before = [await pages(jobs_sql, call) for _ in range(3)]
        for _ in range(300):
            jobs = (await store.claim("default", 10, worker)).jobs
            assert len(jobs) == 10
            await store.write(worker, finished(jobs), leases(jobs))
        after = [await pages(jobs_sql, call) for _ in range(3)]
    await transaction.rollback()
    await old.close()
    assert min(after) <= min(before) + 10, (before, after)
