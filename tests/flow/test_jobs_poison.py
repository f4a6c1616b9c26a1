"""Jobs that must not harm others, though anybody may add them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from pipeline.core.job import Job, Outcome
from pipeline.db.job_view import JobViews
from pipeline.db.jobs import JobStore
from pipeline.errors import TaskError
from pipeline.registry import Registry
from tests.conftest import eventually
from tests.flow.test_jobs_worker import archived, running
from tests.jobs_kit import claim, ids, job_store


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[JobStore]:
    async with job_store(dsn) as store:
        yield store


@pytest.fixture
def registry() -> Registry:
    return Registry()


DEEP = "[" * 3_000 + "1" + "]" * 3_000
UNREADABLE = ['{"n": 1e5000}', f'{{"n": 1{"0" * 400}.5}}', f'{{"deep": {DEEP}}}']


@pytest.mark.parametrize("batch", [None, 2])
async def test_arguments_that_only_postgres_can_read_fail_their_own_job_alone(
    store: JobStore, registry: Registry, sql: asyncpg.Connection, batch: int | None
) -> None:
    async def alone(job: Job, n: int = 0) -> None: ...
    async def together(jobs: list[Job]) -> None: ...

    registry.add_task(together if batch else alone, name="quick", batch=batch)
    bad = [await sql.fetchval("select pipeline.enqueue('quick', $1)", args) for args in UNREADABLE]
    await store.enqueue("quick")
    async with running(store, registry):
        rows = await eventually(archived(sql, 4))
    assert [row["state"] for row in rows] == ["failed"] * 3 + ["finished"]
    assert [row["id"] for row in rows][:3] == bad
    assert all(row["error"].startswith("its arguments cannot be read") for row in rows[:3])
    views = JobViews(store.database)
    assert [(await views.show(id_)).args for id_ in bad] == ["[unreadable]"] * 3


@pytest.mark.parametrize("key", ["\x0199999999:1:a", "\x01-99999:0:", "\x010:99999:x", "\x0132767:1:zz"])
async def test_a_key_that_looks_like_our_own_note_of_where_turns_go_on_is_a_key_like_others(
    store: JobStore, key: str
) -> None:
    worker = await store.register("w", ["default"])
    first = await store.enqueue("t", key=key)
    await store.adopt()
    took = await store.claim("default", 1, worker)
    assert ids(took.jobs) == [first]
    second = await store.enqueue("t", key=key)
    third = await store.enqueue("t", key="other")
    await store.adopt()
    got: set[int] = set()
    after = key
    for _ in range(5):
        more = await store.claim("default", 10, worker, after=after)
        got, after = got | set(ids(more.jobs)), more.after
    assert got == {second, third}


async def test_no_way_of_adding_jobs_takes_a_key_or_name_that_no_lane_can_have(sql: asyncpg.Connection) -> None:
    await sql.execute("insert into pipeline.task (name, key) values ('t', 'who:{who}')")
    long = "x" * 201
    for call, args in (
        ("pipeline.enqueue_many('t', array['{}']::jsonb[], keys => array[$1])", long),
        ("pipeline.enqueue_many('t', array[jsonb_build_object('who', $1::text)])", long),
        ("pipeline.enqueue_many('other', array['{}']::jsonb[], $1)", long),
        (
            "pipeline.start_workflow('w', jsonb_build_array(jsonb_build_object("
            "'task', 't', 'args', jsonb_build_object('who', $1::text))))",
            long,
        ),
    ):
        with pytest.raises(asyncpg.InvalidParameterValueError):
            await sql.fetchval(f"select {call}", args)
    assert await sql.fetchval("select count(*) from pipeline.job") == 0


async def test_a_request_for_a_lane_that_cannot_be_keeps_no_other_from_being_made(
    store: JobStore, sql: asyncpg.Connection
) -> None:
    await sql.execute(
        "insert into pipeline.lane_request select 'default', 0, string_agg(md5(i::text), '')"
        " from generate_series(1, 300) i"
    )
    id_ = await store.enqueue("t")
    worker = await store.register("w", ["default"])
    assert ids(await claim(store, worker)) == [id_]
    assert await sql.fetchval("select count(*) from pipeline.lane_request") == 0


async def test_a_line_of_a_log_that_cannot_be_is_its_writers_error_alone(
    store: JobStore, registry: Registry, sql: asyncpg.Connection
) -> None:
    async def wrong(job: Job) -> None:
        job.log("before")
        job.log("x", "fatal")  # type: ignore[arg-type]

    async def right(job: Job) -> None:
        job.log("fine")

    registry.add_task(wrong, name="wrong")
    registry.add_task(right, name="right")
    await store.enqueue("wrong", max_attempts=1)
    await store.enqueue("right")
    async with running(store, registry):
        rows = await eventually(archived(sql, 2))
    assert [row["state"] for row in rows] == ["failed", "finished"]
    assert TaskError.__name__ in rows[0]["error"]
    lines = await sql.fetch("select message from pipeline.job_log order by job")
    assert [line["message"] for line in lines] == ["before", "fine"]


async def test_a_cancelled_job_gives_its_place_in_a_limit_back_though_others_of_its_lease_run_on(
    store: JobStore, sql: asyncpg.Connection
) -> None:
    await sql.execute("select pipeline.set_queue('default', concurrency => 2)")
    worker = await store.register("w", ["default"])
    first, second, third = [await store.enqueue("t") for _ in range(3)]
    held = await claim(store, worker, 3)
    assert ids(held) == [first, second]
    await sql.execute("select pipeline.cancel_jobs($1)", [first])
    written = await store.write(worker, [Outcome(held[0], "ended")])
    assert written.refused == 0
    assert ids(await claim(store, worker, 3)) == [third]


async def test_a_job_taken_for_cancelled_that_was_put_back_under_the_same_lease_is_not_lost(
    store: JobStore, sql: asyncpg.Connection
) -> None:
    worker = await store.register("w", ["default"])
    id_ = await store.enqueue("t")
    [job] = await claim(store, worker)
    await store.write(worker, [Outcome(job, "ended")], [job.lease])
    assert ids(await claim(store, worker)) == [id_]
