"""Arguments that are too large: refused wherever a job is added, and by whoever hears of them first."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import psycopg
import pytest

import pipeline
from pipeline.core.args import MOST_BYTES, printed_size, to_json
from pipeline.core.job import Job
from pipeline.core.seal import Sealer
from pipeline.core.workflow import Workflow
from pipeline.db.connection import Database
from pipeline.db.job_producer import JobProducer
from pipeline.db.jobs import JobStore
from pipeline.db.workflows import WorkflowStore
from pipeline.errors import TaskError
from pipeline.registry import Registry, filling
from pipeline.schedules import cron, declared
from tests.jobs_kit import claim, job_store

FRAME = len('{"text": ""}')
TOO_LARGE = "for task t are 1,048,577 bytes of JSON; a job takes 1,048,576"
OBJECT = "jsonb_build_object('text', repeat('x', $1::int))"


def args(size: int) -> dict[str, str]:
    """Arguments of so many bytes of JSON, as Postgres prints it."""
    return {"text": "x" * (size - FRAME)}


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[JobStore]:
    async with job_store(dsn) as store:
        yield store


async def count(sql: asyncpg.Connection) -> int:
    number: int = await sql.fetchval("select count(*) from pipeline.job")
    return number


@pytest.mark.parametrize(
    "call",
    [
        f"pipeline.enqueue('t', {OBJECT})",
        f"pipeline.enqueue('t', {OBJECT}, run_at => now() + interval '1 h')",
        f"pipeline.enqueue('t', {OBJECT}, unique_key => 'u')",
        "pipeline.enqueue('t', l.args) from large l where l.size = $1",
        f"pipeline.enqueue_many('t', array['{{}}', {OBJECT}])",
        f"pipeline.start_workflow('w', jsonb_build_array(jsonb_build_object('task', 't', 'args', {OBJECT})))",
        f"pipeline.schedule('s', '@daily', 't', {OBJECT})",
    ],
)
async def test_in_sql_args_of_1_mb_are_taken_and_of_a_byte_more_refused(
    sql: asyncpg.Connection, call: str
) -> None:
    await sql.execute("create table large (size int, args jsonb)")
    for size in (MOST_BYTES, MOST_BYTES + 1):  # in the table they are compressed, to some 12,000 bytes
        await sql.execute(f"insert into large values ($1, {OBJECT})", size - FRAME)
    await sql.execute(f"select {call}", MOST_BYTES - FRAME)
    before = await count(sql)
    with pytest.raises(asyncpg.InvalidParameterValueError) as refused:
        await sql.execute(f"select {call}", MOST_BYTES - FRAME + 1)
    assert "are 1048577 bytes of JSON; a job takes 1048576" in str(refused.value)
    assert refused.value.hint == "Put the data in a table and pass its id."
    assert await count(sql) == before


async def test_python_and_sql_have_one_limit(sql: asyncpg.Connection) -> None:
    assert await sql.fetchval("select pipeline.most_bytes()") == MOST_BYTES


@pytest.mark.parametrize(
    "value", [list(range(120_000)), {"a": ['x,:"\\', {"b": True}] * 30_000}, {"é,:": "ß" * 300_000}]
)
async def test_a_size_is_that_of_the_text_which_postgres_makes_of_it(sql: asyncpg.Connection, value: Any) -> None:
    text = to_json({"value": value})
    assert len(text) > MOST_BYTES // 2
    assert await sql.fetchval("select octet_length($1::jsonb::text)", text.decode()) == printed_size(text)


@pytest.fixture
def add(dsn: str, store: JobStore, sql: asyncpg.Connection) -> dict[str, Callable[[dict[str, str]], Any]]:
    """The ways to add a job of task t from Python."""
    flows = WorkflowStore(store.database)

    async def workflow(args: dict[str, str]) -> None:
        flow = Workflow("w")
        flow.add("t", args)
        await flows.start(flow)

    async def in_psycopg(args: dict[str, str]) -> None:
        with psycopg.connect(dsn) as conn:
            pipeline.enqueue_in(conn, "t", args)

    return {
        "enqueue": lambda args: store.enqueue("t", args),
        "conn": lambda args: store.enqueue("t", args, conn=sql),
        "enqueue_in": in_psycopg,
        "enqueue_many": lambda args: store.enqueue_many("t", [{}, args]),
        "copy": lambda args: store.copy("t", [{}, args]),
        "workflow": workflow,
    }


@pytest.mark.parametrize("way", ["enqueue", "conn", "enqueue_in", "enqueue_many", "copy", "workflow"])
async def test_in_python_args_of_1_mb_are_taken_and_of_a_byte_more_refused(
    sql: asyncpg.Connection, add: dict[str, Callable[[dict[str, str]], Any]], way: str
) -> None:
    await add[way](args(MOST_BYTES))
    before = await count(sql)
    with pytest.raises(TaskError, match=TOO_LARGE) as refused:
        await add[way](args(MOST_BYTES + 1))
    assert refused.value.hint == "Put the data in a table and pass its id."
    assert await count(sql) == before > 0


async def test_what_is_too_large_is_refused_before_anything_is_sent() -> None:
    nowhere = Database("postgresql://127.0.0.1:1/nowhere")  # it is not open, and could not be
    with pytest.raises(TaskError, match=TOO_LARGE):
        await JobProducer(nowhere).enqueue("t", args(MOST_BYTES + 1))
    with pytest.raises(TaskError, match=TOO_LARGE):
        await JobProducer(nowhere).enqueue_many("t", [args(MOST_BYTES + 1)])


async def test_sealed_args_are_measured_as_they_are_stored(dsn: str, sql: asyncpg.Connection) -> None:
    registry = Registry()

    async def t(job: Job, text: str) -> None: ...

    registry.add_task(t, name="t", encrypt=True)
    async with job_store(dsn) as plain:
        store = JobProducer(plain.database, registry=registry, sealer=Sealer([b"k" * 32], lambda n: b"n" * n))
        await store.enqueue("t", args(700_000))
        with pytest.raises(TaskError, match="for task t are 1,2.* bytes of JSON; a job takes 1,048,576"):
            await store.enqueue("t", args(900_000))
    assert await count(sql) == 1


async def test_a_schedule_with_args_that_are_too_large_is_refused_when_the_program_starts() -> None:
    registry = Registry()

    async def t(job: Job, text: str) -> None: ...

    registry.add_task(t, name="t")
    with filling(registry):
        cron("@daily", args=args(MOST_BYTES + 1))(t)
    with pytest.raises(TaskError, match="the arguments of the schedule in .* are 1,048,577 bytes"):
        declared(registry)


async def test_a_merge_that_would_be_too_large_adds_its_job_beside_the_full_one(
    store: JobStore, sql: asyncpg.Connection
) -> None:
    call = """select pipeline.enqueue('t',
        jsonb_build_object('n', jsonb_build_array(repeat('x', 600000), $1::int)),
        unique_key => 'u', run_at => pipeline.now() + interval '1 h', on_clash => 'merge')"""
    first, second = [await sql.fetchval(call, n) for n in range(2)]
    third = await store.enqueue("t", {"n": [2]}, unique_key="u", on_clash="merge")
    assert first != second == third  # what comes next is merged into the one that has room
    rows = await sql.fetch("select args #> '{n,1}', jsonb_array_length(args -> 'n') from pipeline.job")
    assert sorted(tuple(row) for row in rows) == [("0", 2), ("1", 3)]


async def test_a_trigger_measures_rows_as_text_too(store: JobStore, sql: asyncpg.Connection) -> None:
    """A list of small numbers takes four times as much room as a value than it does as text."""
    await sql.execute("create table orders (id int, lines int[])")
    await sql.execute("select pipeline.enqueue_on('orders', 'insert', 't')")
    await sql.execute("insert into orders select n, array_fill(1, array[n * 100000]) from generate_series(3, 4) n")
    worker = await store.register("w", ["default"])
    assert [job.args["id"] for job in await claim(store, worker)] == [3]
