"""Each scheduled time makes one run, whoever looks, whatever the clock does, whenever somebody is killed."""

from __future__ import annotations

import asyncio
import json
import random

import asyncpg
import pytest

from pipeline.core.cron import parse
from pipeline.errors import DatabaseUnavailable, TaskError, UsageError
from tests.conftest import eventually
from tests.schedule_kit import DAY, NOON, daemon, runs, schedule, unix

BERLIN = "Europe/Berlin"


async def test_a_run_is_made_when_it_is_due_and_once(dsn: str, sql: asyncpg.Connection) -> None:
    await schedule(sql, "nightly", "0 3 * * *", timezone=BERLIN)
    async with daemon(dsn) as one:
        due = unix("2026-05-05 03:00", BERLIN)
        assert [await one.tick(at) for at in (NOON, due - 1, due, due + 1, due + 3600)] == [0, 0, 1, 0, 0]
        row = await one.store.get("nightly")
    assert (row.last_at, row.next_at, row.skipped, row.problem) == (due, due + DAY, 0, None)
    assert await runs(sql, "nightly") == [due]


async def test_several_daemons_at_once_make_each_run_once(dsn: str, sql: asyncpg.Connection) -> None:
    rng = random.Random(7)
    crons = {"a": "every 7s", "b": "* * * * *", "c": "*/3 * * * *", "d": "every 10s", "e": "1,2,40 * * * *"}
    for name, cron in crons.items():
        await schedule(sql, name, cron, missed="all", max_missed=1000)
    async with daemon(dsn) as one, daemon(dsn) as two, daemon(dsn) as three:
        now, made = NOON, 0
        for _ in range(60):
            now += rng.choice([0, 0.5, 3, 10, 61])
            # their clocks differ too, as those of no one server do
            made += sum(
                await asyncio.gather(*(d.tick(now - rng.choice([0, 0, 1, 30])) for d in (one, two, three)))
            )
        made += await one.tick(now)
    for name, cron in crons.items():
        assert await runs(sql, name) == [float(at) for at in parse(cron).between(NOON, now)]
    assert made == await sql.fetchval("select count(*) from pipeline.job")


async def test_a_schedule_that_is_locked_holds_up_no_other(dsn: str, sql: asyncpg.Connection) -> None:
    for name in ("held", "free"):
        await schedule(sql, name, "every 1m")
    async with daemon(dsn) as one, sql.transaction():
        await sql.execute("select from pipeline.schedule where name = 'held' for update")
        assert await one.tick(NOON + 60) == 1
    assert await runs(sql, "free") == [NOON + 60]


async def test_a_daemon_killed_between_insert_and_commit_leaves_no_run_and_no_gap(
    dsn: str, sql: asyncpg.Connection
) -> None:
    await schedule(sql, "s", "every 1h", missed="all")
    blocker = await asyncpg.connect(dsn)
    due = [NOON + hour * 3600 for hour in (1, 2, 3)]
    async with daemon(dsn) as doomed, daemon(dsn) as other:
        pid = await doomed.pid()
        held = blocker.transaction()
        await held.start()
        await blocker.execute("insert into pipeline.schedule_run values ('s', to_timestamp($1), 0, now())", due[2])
        ticking = asyncio.create_task(doomed.tick(due[2]))
        waits = "select wait_event_type = 'Lock' from pg_stat_activity where pid = $1"
        await eventually(lambda: sql.fetchval(waits, pid), why="the daemon has made two runs of three")
        assert await other.tick(due[2]) == 0  # the row is locked
        await sql.execute("select pg_terminate_backend($1)", pid)
        with pytest.raises(DatabaseUnavailable):
            await ticking
        await held.rollback()
        assert await sql.fetchval("select count(*) from pipeline.job") == 0
        assert await eventually(lambda: other.tick(due[2])) == 3
    await blocker.close()
    assert await runs(sql, "s") == due


async def test_a_clock_that_jumps_back_and_forth_makes_no_run_twice(dsn: str, sql: asyncpg.Connection) -> None:
    rng = random.Random(11)
    await schedule(sql, "s", "*/5 * * * *", missed="all", max_missed=10_000)
    marks, furthest, made = [], NOON, 0
    async with daemon(dsn) as one, daemon(dsn) as two:
        for _ in range(80):
            now = NOON + rng.uniform(-2 * DAY, 2 * DAY) * rng.random()
            furthest = max(furthest, now)
            made += sum(await asyncio.gather(one.tick(now), two.tick(now - rng.choice([0, 400]))))
            marks.append(await sql.fetchval("select until from pipeline.schedule"))
        made += await one.tick(furthest)  # where the other one was just at it
        expected = [float(at) for at in parse("*/5 * * * *").between(NOON, furthest)]
    assert marks == sorted(marks)
    assert made == len(expected)  # not one that only the guard has refused
    assert await runs(sql, "s") == expected


async def test_the_mark_does_not_go_back_even_when_somebody_asks_a_daemon_to_look_early(
    dsn: str, sql: asyncpg.Connection
) -> None:
    await schedule(sql, "s", "every 1h", missed="all")
    async with daemon(dsn) as one:
        assert await one.tick(NOON + 7200) == 2
        await sql.execute("update pipeline.schedule set next_at = '-infinity'")
        assert await one.tick(NOON + 3600) == 0
        assert await sql.fetchval("select extract(epoch from until)::float8 from pipeline.schedule") == NOON + 7200
        assert [await one.tick(NOON + at) for at in (7200, 10_800)] == [0, 1]
    assert await runs(sql, "s") == [NOON + 3600, NOON + 7200, NOON + 10_800]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("2026-03-29", ["28T01:30", "29T01:00", "30T00:30"]),  # 02:30 +01, 03:00 +02 after the gap, 02:30 +02
        ("2026-10-25", ["24T00:30", "25T00:30", "26T01:30"]),  # 02:30 +02, the first of two, 02:30 +01
    ],
)
async def test_a_change_of_the_clocks_neither_skips_nor_doubles_a_daily_job(
    dsn: str, sql: asyncpg.Connection, change: str, expected: list[str]
) -> None:
    start = unix(change) - DAY
    await schedule(sql, "s", "30 2 * * *", start, timezone=BERLIN, args='{"scheduled_for": null, "x": 1}')
    async with daemon(dsn, start) as one:
        for half_hour in range(3 * 48):
            await one.tick(start + half_hour * 1800)
    args = [json.loads(row["args"]) for row in await sql.fetch("select args from pipeline.job order by id")]
    assert [one["scheduled_for"] for one in args] == [f"{change[:7]}-{day}:00Z" for day in expected]
    assert {one["x"] for one in args} == {1}


@pytest.mark.parametrize(
    ("missed", "late", "expected", "skipped"),
    [
        ("skip", 30, [3], 2),
        ("skip", 3600, [], 3),
        ("one", 3600, [3], 2),
        ("all", 3600, [1, 2, 3], 0),
    ],
)
async def test_what_becomes_of_runs_missed_in_an_outage_of_three_days(
    dsn: str, sql: asyncpg.Connection, missed: str, late: float, expected: list[int], skipped: int
) -> None:
    await schedule(sql, "s", "0 12 * * *", missed=missed)
    async with daemon(dsn) as one:
        assert await one.tick(NOON + 3 * DAY + late) == len(expected)
        assert await one.tick(NOON + 3 * DAY + late + 1) == 0
        assert (await one.store.get("s")).skipped == skipped
        assert await one.tick(NOON + 4 * DAY) == 1
    assert await runs(sql, "s") == [NOON + day * DAY for day in [*expected, 4]]


async def test_more_missed_runs_than_are_to_be_made_up_are_cut_and_counted(
    dsn: str, sql: asyncpg.Connection
) -> None:
    await schedule(sql, "s", "every 1m", missed="all", max_missed=5)
    await schedule(sql, "often", "every 1s")
    async with daemon(dsn) as one:
        await one.at(NOON + 30 * DAY)
        assert await one.store.tick(["s", "often"]) is None
        ticks = {tick.name: tick for tick in [await one.store.tick(), await one.store.tick(["s"])] if tick}
        assert await one.tick(NOON + 30 * DAY) == 0
    assert (ticks["s"].made, ticks["s"].skipped, ticks["s"].more) == (5, 9_995, True)
    assert (ticks["often"].made, ticks["often"].more) == (1, True)
    assert await runs(sql, "s") == [NOON + 30 * DAY - minute * 60 for minute in (4, 3, 2, 1, 0)]


async def test_a_backfill_makes_what_is_missing_and_nothing_twice(dsn: str, sql: asyncpg.Connection) -> None:
    await schedule(sql, "s", "0 12 * * *", missed="one")
    async with daemon(dsn) as one, daemon(dsn) as two:
        await one.tick(NOON + 3 * DAY)
        await two.at(NOON + 3 * DAY)
        both = await asyncio.gather(*(d.store.backfill("s", NOON, NOON + 3 * DAY) for d in (one, two)))
        assert sorted(filled.made for filled in both) == [0, 3]
        whole = await one.store.backfill("s", NOON - DAY, NOON + 3 * DAY)
        assert (whole.made, whole.known) == (1, 3)
        assert (await one.store.backfill("s", NOON)).known == 3  # up to now, which does not count itself
        assert (await one.store.get("s")).last_at == NOON + 3 * DAY
        assert await one.tick(NOON + 4 * DAY) == 1
    assert await runs(sql, "s") == [NOON + day * DAY for day in (-1, 0, 1, 2, 3, 4)]


async def test_a_backfill_that_cannot_be_meant_is_refused(dsn: str, sql: asyncpg.Connection) -> None:
    await schedule(sql, "s", "every 1m")
    await sql.execute(
        """insert into pipeline.schedule_run (name, at, job, made_at)
           values ('s', to_timestamp($1), 1, pipeline.now() - interval '401 days'),
                  ('s', to_timestamp($1) + interval '1 day', 2, pipeline.now() - interval '399 days')""",
        NOON - 500 * DAY,
    )
    async with daemon(dsn) as one:
        for start, end, words in [
            (NOON, NOON + 60, "beyond now"),
            (NOON - 60, NOON - 120, "to a later one"),
            (NOON - 30 * DAY, NOON, "more than 10000"),
        ]:
            with pytest.raises(UsageError, match=words):
                await one.store.backfill("s", start, end)
        await one.store.prune()
        assert await sql.fetchval("select count(*) from pipeline.schedule_run") == 1
        with pytest.raises(UsageError, match="no longer known"):
            await one.store.backfill("s", NOON - 500 * DAY, NOON - 499 * DAY)
        filled = await one.store.backfill("s", NOON - 499 * DAY - 60, NOON - 499 * DAY + 60)
        assert (filled.made, filled.known) == (1, 1)
        with pytest.raises(TaskError, match="no schedule"):
            await one.store.backfill("other", NOON)


async def test_a_paused_schedule_makes_no_run_and_none_of_the_pause_afterwards(
    dsn: str, sql: asyncpg.Connection
) -> None:
    await schedule(sql, "s", "0 12 * * *", missed="all")
    async with daemon(dsn) as one:
        await one.store.pause("s")
        assert await one.store.next_in() is None
        assert await one.tick(NOON + 3 * DAY) == 0
        assert (await one.store.get("s")).next_at is None
        await one.store.resume("s")
        assert await one.tick(NOON + 3 * DAY + 1) == 0
        assert await one.tick(NOON + 4 * DAY) == 1
        with pytest.raises(TaskError, match="no schedule"):
            await one.store.pause("other")


async def test_a_run_by_hand_leaves_the_schedule_as_it_is(dsn: str, sql: asyncpg.Connection) -> None:
    await schedule(sql, "s", "0 12 * * *", queue="mail", priority=3)
    async with daemon(dsn) as one:
        await one.at(NOON + 60)
        before = await one.store.get("s")
        job = await one.store.run_now("s")
        assert await one.store.get("s") == before
        row = await sql.fetchrow("select queue, priority, task from pipeline.job where id = $1", job)
        assert tuple(row or ()) == ("mail", 3, "t")
        assert await one.tick(NOON + DAY) == 1
        assert [run.state for run in await one.store.runs("s")] == ["waiting or running"] * 2


@pytest.mark.parametrize(
    ("cron", "zone", "words"),
    [
        ("0 0 30 2 *", "UTC", "bad day-of-month"),
        ("99 * * * *", "UTC", "bad minute"),
        ("0 0 * * *", "Foo5", "no time zone"),
    ],
)
async def test_what_only_a_daemon_can_tell_it_tells_and_the_others_run(
    dsn: str, sql: asyncpg.Connection, cron: str, zone: str, words: str
) -> None:
    await schedule(sql, "bad", cron, timezone=zone)
    await schedule(sql, "good", "every 1m")
    async with daemon(dsn) as one:
        assert await one.tick(NOON + 60) == 1
        row = await one.store.get("bad")
        assert words in (row.problem or "")
        assert row.next_at is None
        assert await one.store.next_in() == 10  # tried again, but not all the time
        await schedule(sql, "bad", "every 1m", NOON + 70)
        assert await one.tick(NOON + 120) == 2
        assert (await one.store.get("bad")).problem is None


async def test_a_run_that_cannot_be_added_is_tried_again_and_not_lost(dsn: str, sql: asyncpg.Connection) -> None:
    await schedule(sql, "s", "every 1m")
    await sql.execute("alter table pipeline.job add constraint no_t check (task <> 't')")
    async with daemon(dsn) as one:
        assert await one.tick(NOON + 60) == 0
        assert "no_t" in ((await one.store.get("s")).problem or "")
        await sql.execute("alter table pipeline.job drop constraint no_t")
        assert await one.tick(NOON + 69) == 0
        assert await one.tick(NOON + 70) == 1
    assert await runs(sql, "s") == [NOON + 60]


@pytest.mark.parametrize(
    "call",
    [
        "'', '@daily', 't'",
        "'s', '@daily', ''",
        "'s', '* * * *', 't'",
        "'s', '@reboot', 't'",
        "'s', 'every 0s', 't'",
        "'s', '0 3 * * * ; drop', 't'",
        "'s', null, 't'",
        "'s', '@daily', 't', timezone => 'Mars/Olympus'",
        "'s', '@daily', 't', timezone => '../x'",
        "'s', '@daily', 't', missed => 'some'",
        "'s', '@daily', 't', args => '[]'",
        "'s', '@daily', 't', max_missed => 0",
        "'s', '@daily', 't', queue => ''",
        "'s', '@daily', 't', priority => 40000",
    ],
)
async def test_sql_refuses_what_it_can_tell_to_be_wrong(sql: asyncpg.Connection, call: str) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError):
        await sql.execute(f"select pipeline.schedule({call})")


@pytest.mark.parametrize(
    "cron",
    [
        "@daily",
        "@HOURLY",
        "every 30s",
        " 0  3 * * mon-fri ",
        "*/5 8-18 L,15 JAN,7 *",
        "0 0 * * 5#2",
        "0 0 LW * 5L",
    ],
)
async def test_sql_takes_whatever_a_daemon_can_read(sql: asyncpg.Connection, cron: str) -> None:
    parse(cron)
    await schedule(sql, "s", cron)


async def test_another_cron_counts_from_now_and_other_options_change_nothing_that_is_due(
    dsn: str, sql: asyncpg.Connection
) -> None:
    await schedule(sql, "same", "0 12 * * *", missed="all")
    await schedule(sql, "other", "0 12 * * *", missed="all")
    await schedule(sql, "same", "0 12 * * *", NOON + 2 * DAY + 1, missed="all", queue="mail")
    await schedule(sql, "other", "0 13 * * *", NOON + 2 * DAY + 1, missed="all")
    async with daemon(dsn) as one:
        assert await one.tick(NOON + 2 * DAY + 3600) == 3
    assert await sql.fetchval("select count(*) from pipeline.job where queue = 'mail'") == 2


async def test_a_schedule_made_anew_makes_no_run_that_the_one_before_has_made(
    dsn: str, sql: asyncpg.Connection
) -> None:
    await schedule(sql, "s", "0 12 * * *")
    async with daemon(dsn) as one:
        assert await one.tick(NOON + DAY) == 1
        assert await sql.fetchval("select pipeline.unschedule('s')")
        assert not await sql.fetchval("select pipeline.unschedule('s')")
        assert await one.store.next_in() is None
        await schedule(sql, "s", "0 12 * * *", NOON + DAY - 1)  # the clock went back
        assert await one.tick(NOON + DAY) == 0


async def test_only_the_owner_changes_schedules(sql: asyncpg.Connection) -> None:
    role = f"app_{await sql.fetchval('select current_database()')}"
    await sql.execute(f"create role {role}; grant usage on schema pipeline to {role}; set role {role}")
    try:
        for refused in (
            "select pipeline.schedule('s', '@daily', 't')",
            "select pipeline.pause_schedule('s')",
            "select pipeline.resume_schedule('s')",
            "select pipeline.run_schedule('s')",
            "select pipeline.unschedule('s')",
            "select pipeline.make_runs('s', '{}')",
            "select pipeline.enqueue_run('s', now())",
            "update pipeline.schedule set cron = '@hourly'",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await sql.execute(refused)
    finally:
        await sql.execute(f"reset role; drop owned by {role}; drop role {role}")
