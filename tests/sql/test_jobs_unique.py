"""Unique jobs: in which states another one keeps a new one away, and what a clash does in each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, get_args

import asyncpg
import pytest

from handlers.declare import declarations
from pipeline.core.job import Job, Outcome
from pipeline.core.job_filter import ENDED, STATES
from pipeline.core.limits import OnClash, Unique
from pipeline.db.job_admin import JobAdmin
from pipeline.db.jobs import JobStore
from pipeline.registry import Registry
from tests.conftest import eventually
from tests.jobs_kit import claim, job_store

STEPS: dict[str, Any] = {"finished": "finish", "failed": "fail", "cancelled": "cancel", "expired": "expire"}


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[JobStore]:
    async with job_store(dsn) as store:
        yield store


async def job_in(state: str, store: JobStore, sql: asyncpg.Connection) -> int:
    """A job with the unique key u, an hour's window and one list as its argument, in that state."""
    later = ", run_at => pipeline.now() + interval '1 h'" if state in ("blocked", "delayed") else ""
    id_: int = await sql.fetchval(
        f"""select pipeline.enqueue('t', '{{"n": [1]}}', unique_key => 'u', unique_for => '1 h'{later})"""
    )
    if state == "blocked":
        await sql.execute("update pipeline.job set needs = 1")
    elif state not in ("delayed", "ready"):
        worker = await store.register("w", ["default"])
        [job] = await claim(store, worker)
        if state != "running":
            await store.write(worker, [Outcome(job, STEPS[state])], [job.lease])
    return id_


async def again(sql: asyncpg.Connection, states: list[str] | None, on_clash: str = "skip") -> int:
    """Add another job of that key."""
    window = None if states is not None and not set(states) & set(ENDED) else "1 h"
    id_: int = await sql.fetchval(
        """select pipeline.enqueue('t', '{"n": [2]}', unique_key => 'u', unique_for => $1::text::interval,
            unique_states => $2, on_clash => $3)""",
        window,
        states,
        on_clash,
    )
    return id_


@pytest.mark.parametrize("state", STATES)
async def test_a_job_keeps_another_away_in_the_states_that_are_named_and_in_no_other(
    store: JobStore, sql: asyncpg.Connection, state: str
) -> None:
    first = await job_in(state, store, sql)
    assert await again(sql, [state]) == first
    assert await again(sql, list(STATES)) == first
    assert await again(sql, None) == first
    second = await again(sql, [other for other in STATES if other != state])
    assert second > first
    assert await sql.fetchval("select job from pipeline.job_unique") == second


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("on_clash", get_args(OnClash))
async def test_a_clash_changes_what_waits_and_adds_beside_what_may_run(
    store: JobStore, sql: asyncpg.Connection, state: str, on_clash: str
) -> None:
    first = await job_in(state, store, sql)
    before = await sql.fetchval("select run_at from pipeline.job where id = $1", first)
    second = await again(sql, [state], on_clash)
    rows = {row["id"]: row for row in await sql.fetch("select * from pipeline.job")}
    if on_clash == "skip" or state in ENDED:
        assert second == first
        assert rows.keys() == (set() if state in ENDED else {first})
        changed = ("[1]", False)
    elif state in ("ready", "running"):
        assert rows.keys() == {first, second}
        assert rows[second]["args"] == '{"n": [2]}'
        changed = ("[1]", False)
    else:
        assert second == first
        changed = {"replace": ("[2]", True), "reschedule": ("[1]", True), "merge": ("[1, 2]", False)}[on_clash]
    if first in rows:
        assert (rows[first]["args"], rows[first]["run_at"] != before) == (f'{{"n": {changed[0]}}}', changed[1])


@pytest.mark.parametrize("on_clash", get_args(OnClash))
async def test_what_waits_in_a_state_that_is_not_named_is_left_as_it_is(
    store: JobStore, sql: asyncpg.Connection, on_clash: str
) -> None:
    first = await job_in("delayed", store, sql)
    second = await again(sql, ["ready", "running"], on_clash)
    rows = {row["id"]: row["args"] for row in await sql.fetch("select id, args from pipeline.job")}
    assert rows == {first: '{"n": [1]}', second: '{"n": [2]}'}


@pytest.mark.parametrize("state", ENDED)
@pytest.mark.parametrize("states", [None, list(ENDED)])
async def test_a_job_that_has_ended_counts_as_long_as_its_window(
    store: JobStore, sql: asyncpg.Connection, state: str, states: list[str] | None
) -> None:
    first = await job_in(state, store, sql)
    await sql.execute("set pipeline.fake_now = '2000-01-01'")
    await sql.execute("update pipeline.job_unique set kept_until = '2000-01-01 00:00:01'")
    assert await again(sql, states) == first
    await sql.execute("set pipeline.fake_now = '2000-01-01 00:00:01'")
    assert await again(sql, states) > first


async def test_a_job_that_the_archive_has_dropped_counts_only_where_its_state_does_not_matter(
    store: JobStore, sql: asyncpg.Connection
) -> None:
    first = await job_in("finished", store, sql)
    await sql.execute("delete from pipeline.job_archive")
    assert await again(sql, None) == first
    assert await again(sql, ["finished"]) > first


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("states", [["delayed", "ready"], ["running"], ["finished"]])
async def test_of_two_producers_at_once_the_second_waits_and_sees_the_state_of_the_first_ones_job(
    dsn: str, sql: asyncpg.Connection, states: list[str], known: bool
) -> None:
    if known:  # then the row is what they meet at, else the index
        await sql.execute("insert into pipeline.job_unique (key, job) values ('u', 0)")
    other = await asyncpg.connect(dsn)

    async def waits() -> bool:
        await sql.execute("select pg_stat_clear_snapshot()")
        return bool(
            await sql.fetchval("select count(*) from pg_stat_activity where wait_event = 'transactionid'"
                               " and datname = current_database()")
        )  # fmt: skip

    try:
        async with sql.transaction():
            first = await again(sql, states)
            second = asyncio.ensure_future(again(other, states))
            await eventually(waits)
        kept_away = "ready" in states
        assert (await second == first) is kept_away
        assert await sql.fetchval("select count(*) from pipeline.job") == (1 if kept_away else 2)
    finally:
        await other.close()


async def test_what_a_task_declares_holds_for_whoever_adds_its_jobs(dsn: str, sql: asyncpg.Connection) -> None:
    registry = Registry()

    async def send(job: Job, n: int) -> None: ...

    unique = Unique(by="{n}", window=60, states=("delayed", "ready", "failed"))
    registry.add_task(send, name="send", unique=unique)
    async with job_store(dsn, registry) as store:
        await JobAdmin(store.database).declare(declarations(list(registry.tasks.values())), [])
        call = """select pipeline.enqueue('send', '{"n": 1}')"""
        first = await sql.fetchval(call)
        assert await sql.fetchval(call) == first == await store.enqueue("send", {"n": 1})
        worker = await store.register("w", ["default"])
        await claim(store, worker)
        second = await sql.fetchval(call)
        await claim(store, worker)
        third = await store.enqueue("send", {"n": 1})
        assert first < second < third
        [job] = await claim(store, worker)
        await store.write(worker, [Outcome(job, "fail")], [job.lease])
        assert await sql.fetchval(call) == third == await store.enqueue("send", {"n": 1})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("unique_states => '{waiting}'", "not states of a job"),
        ("unique_states => '{}'", "not states of a job"),
        ("unique_states => '{failed}'", "there is no unique_for"),
        ("unique_states => '{ready}', unique_for => '1 h'", "unique_for of task t means nothing"),
        ("on_clash => 'fail'", "an option that is not known"),
    ],
)
async def test_states_that_cannot_be_meant_are_refused(
    sql: asyncpg.Connection, options: str, message: str
) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match=message) as refused:
        await sql.execute(f"select pipeline.enqueue('t', unique_key => 'u', {options})")
    assert refused.value.hint
