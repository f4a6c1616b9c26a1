"""The scheduler of a daemon: what its code has, and when it looks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest

from handlers.schedule import Scheduler
from pipeline.app.daemon import Daemon
from pipeline.config import Config
from pipeline.config_sections import Http
from pipeline.core.job import Job
from pipeline.db.connection import Database
from pipeline.db.schedules import ScheduleStore
from pipeline.errors import TaskError
from pipeline.registry import Registry, filling, task
from pipeline.schedules import cron
from tests.conftest import eventually
from tests.schedule_kit import DAY, NOON, daemon, runs, schedule


def program(expression: str = "0 12 * * *", **options: Any) -> Registry:
    """What a program has that defines one task with one schedule."""
    registry = Registry()
    with filling(registry):

        @cron(expression, **options)
        @task(name="t", queue="mail")
        async def t(job: Job, scheduled_for: str) -> None:
            """Nothing."""

    return registry


@asynccontextmanager
async def running(dsn: str, registry: Registry, **options: Any) -> AsyncIterator[Scheduler]:
    async with Database(dsn, purpose="schedules", max_size=2) as database:
        service = Scheduler(ScheduleStore(database), registry, **options)
        await service.start()
        work = asyncio.create_task(service.run())
        try:
            yield service
        finally:
            await service.stop()
            await work


async def test_several_schedulers_make_each_run_once_by_the_real_clock(dsn: str, sql: asyncpg.Connection) -> None:
    await sql.execute(
        "select pipeline.schedule(n, 'every 1s', 't', missed => 'all') from unnest('{a,b,c}'::text[]) n"
    )
    async with (
        running(dsn, Registry()) as one,
        running(dsn, Registry(), poll_seconds=0.05) as two,
        running(dsn, Registry(), poll_seconds=0.3),
    ):
        await eventually(lambda: one.made_total and two.made_total and one.made_total + two.made_total > 6)
    for name in "abc":
        made = await runs(sql, name)
        assert made == [made[0] + second for second in range(len(made))]
    rows = await sql.fetch("select made_at - at as late from pipeline.schedule_run")
    assert all(0 <= row["late"].total_seconds() < 5 for row in rows)


async def test_a_run_comes_when_it_is_due_and_not_only_at_the_next_poll(dsn: str, sql: asyncpg.Connection) -> None:
    await sql.execute("select pipeline.schedule('s', 'every 2s', 't')")
    async with running(dsn, Registry(), poll_seconds=60) as service:
        await eventually(lambda: service.made_total == 1)


async def test_what_the_code_has_is_written_down_and_runs(dsn: str, sql: asyncpg.Connection) -> None:
    registry = program(missed="all", priority=2)
    async with daemon(dsn) as one:
        async with running(dsn, registry):
            pass
        row = await one.store.get("t")
        assert (row.task, row.source, row.missed, row.priority, row.queue) == ("t", "code", "all", 2, None)
        assert row.args == {"scheduled_for": None}


async def test_a_new_release_changes_its_schedule_and_keeps_the_pause_and_the_mark(
    dsn: str, sql: asyncpg.Connection
) -> None:
    async with daemon(dsn) as one:
        old, new = (
            Scheduler(one.store, program(missed="all")),
            Scheduler(one.store, program(max_missed=7, missed="all")),
        )
        await old.start()
        await one.store.pause("t")
        await one.at(NOON + DAY + 1)
        await new.start()
        row = await one.store.get("t")
        assert (row.paused, row.max_missed) == (True, 7)
        await sql.execute("update pipeline.schedule set paused = false")
        assert await one.tick(NOON + 2 * DAY) == 2
        moved = Scheduler(one.store, program("0 13 * * *", missed="all"))
        await one.at(NOON + 5 * DAY + 7200)
        await moved.start()
        assert await one.tick(NOON + 5 * DAY + 7200) == 0
        await old.start()  # an old daemon that is started again by its supervisor does not turn it back
        assert (await one.store.get("t")).cron == "0 13 * * *"


async def test_a_schedule_that_no_daemon_has_in_its_code_any_more_is_stale_and_waits(
    dsn: str, sql: asyncpg.Connection
) -> None:
    async with daemon(dsn) as one:
        service = Scheduler(one.store, program(missed="all"))
        await service.start()
        await one.at(NOON + 3 * DAY)
        assert await one.store.next_in() is None
        assert (await one.store.get("t")).stale
        assert await one.tick(NOON + 3 * DAY) == 0
        await Scheduler(one.store, program(missed="all")).start()
        assert not (await one.store.get("t")).stale
        assert await one.tick(NOON + 3 * DAY) == 3


async def test_a_daemon_says_every_hour_what_it_has_in_its_code(dsn: str, sql: asyncpg.Connection) -> None:
    async with running(dsn, program(), poll_seconds=0.01) as service:
        await sql.execute("update pipeline.schedule set seen_at = now() - interval '2 days'")
        service._due["seen"] = 0.0
        fresh = "select seen_at > now() - interval '1 day' from pipeline.schedule"
        await eventually(lambda: sql.fetchval(fresh))


async def test_code_and_sql_do_not_take_each_others_names(dsn: str, sql: asyncpg.Connection) -> None:
    await schedule(sql, "t", "@hourly")
    async with daemon(dsn) as one:
        await Scheduler(one.store, program()).start()
        assert (await one.store.get("t")).cron == "@hourly"
        await sql.execute("select pipeline.unschedule('t')")
        await Scheduler(one.store, program()).start()
        assert (await one.store.get("t")).cron == "0 12 * * *"
    with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError, match="defined in code"):
        await schedule(sql, "t", "@hourly")


async def test_a_schedule_that_does_not_fit_its_task_ends_the_program_before_it_begins(dsn: str) -> None:
    async with Database(dsn, purpose="schedules") as database:
        with pytest.raises(TaskError, match="does not take"):
            Scheduler(ScheduleStore(database), program(args={"nonsense": 1}))


async def test_a_daemon_runs_what_its_code_schedules(dsn: str, sql: asyncpg.Connection) -> None:
    registry = Registry()
    given: list[datetime] = []
    with filling(registry):

        @cron("every 1s", args={"shop": 7}, missed="all")
        @task(name="tick")
        async def tick(job: Job, shop: int, scheduled_for: datetime) -> None:
            assert shop == 7
            given.append(scheduled_for)

    running = Daemon(Config(dsn=dsn, http=Http(port=0)), registry=registry)
    work = asyncio.create_task(running.run())
    try:
        await eventually(lambda: len(given) >= 3, within=20)
    finally:
        running.shutdown()
        await work
    first = min(given)
    assert {at - first for at in given} == {timedelta(seconds=n) for n in range(len(given))}
    assert first.tzinfo is not None
