"""`pgreflex schedules`: what it shows, does and refuses."""

from __future__ import annotations

import json

import asyncpg
import pytest

from pipeline.cli.schedules import schedules
from tests.cli.conftest import Cli, assert_explained
from tests.schedule_kit import DAY, NOON, daemon
from tests.schedule_kit import schedule as make


@pytest.mark.parametrize("verb", list(schedules.commands))
async def test_every_help_fits_80_columns_and_has_an_example(cli: Cli, verb: str) -> None:
    result = await cli("schedules", verb, "-h")
    assert result.status == 0
    assert max(map(len, result.out.splitlines())) <= 80
    assert f"Example: pgreflex schedules {verb}" in " ".join(result.out.split())


async def test_schedules_are_listed_with_what_is_amiss(cli: Cli, dsn: str, sql: asyncpg.Connection) -> None:
    assert "There is no schedule" in (await cli("schedules", "list", "-d", dsn)).err
    await make(sql, "nightly [eu]", "30 2 * * *", timezone="Europe/Berlin")
    await make(sql, "bad", "0 0 30 2 *")
    await make(sql, "idle", "@daily")
    await make(sql, "old", "@daily")
    await sql.execute("update pipeline.schedule set source = 'code', seen_at = '2020-01-01' where name = 'old'")
    assert (await cli("schedules", "pause", "idle", "-d", dsn)).out == "paused  idle\n"
    result = await cli("schedules", "list", "-d", dsn)
    assert [line.split() for line in result.out.splitlines()] == [
        ["name", "cron", "zone", "next", "run", "state"],
        ["bad", "0", "0", "30", "2", "*", "UTC", "-", "problem"],
        ["idle", "@daily", "UTC", "-", "paused"],
        ["nightly", "[eu]", "30", "2", "*", "*", "*", "Europe/Berlin", "2026-05-05", "00:30:00", "ok"],
        ["old", "@daily", "UTC", "-", "stale"],
    ]
    assert max(map(len, result.out.splitlines())) <= 80
    assert "bad: the cron expression" in result.err
    assert "old: no daemon has had it" in " ".join(result.err.split())
    told = json.loads((await cli("schedules", "--json", "list", "-d", dsn)).out)
    assert [one["next_at"] for one in told] == [None, None, NOON + 45_000, None]


async def test_a_schedule_is_shown_with_its_runs(cli: Cli, dsn: str, sql: asyncpg.Connection) -> None:
    await make(sql, "s", "0 12 * * *", missed="all", args='{"shop": 7}')
    async with daemon(dsn) as one:
        await one.tick(NOON + 2 * DAY)
    lines = [
        line.split() for line in (await cli("schedules", "show", "s", "--runs", "1", "-d", dsn)).out.splitlines()
    ]
    assert ["task", "t", '{"shop":7}'] in lines
    assert ["missed", "all,", "at", "most", "100"] in lines
    assert ["next", "run", "2026-05-07", "12:00:00"] in lines
    job = await sql.fetchval("select max(id) from pipeline.job")
    assert lines[-1] == ["2026-05-06", "12:00:00"] * 2 + [str(job), "waiting", "or", "running"]
    told = json.loads((await cli("schedules", "show", "s", "--json", "-d", dsn)).out)
    assert [run["at"] for run in told["runs"]] == [NOON + 2 * DAY, NOON + DAY]
    assert told["schedule"]["args"] == {"shop": 7}


async def test_redacted_arguments_of_a_schedule_are_not_shown(cli: Cli, dsn: str, sql: asyncpg.Connection) -> None:
    await make(sql, "s", "@daily", args='{"shop": 7, "code": 4711}')
    await sql.execute("insert into pipeline.task (name, redact) values ('t', '{code}')")
    for call in (["show", "s"], ["show", "s", "--json"], ["list", "--json"]):
        result = await cli("schedules", *call, "-d", dsn)
        assert result.status == 0
        assert "4711" not in result.out
    assert '{"code":"[redacted]","shop":7}' in (await cli("schedules", "show", "s", "-d", dsn)).out


async def test_a_run_by_hand_prints_its_job(cli: Cli, dsn: str, sql: asyncpg.Connection) -> None:
    await make(sql, "s", "@yearly")
    result = await cli("schedules", "run-now", "s", "-d", dsn)
    assert result.out == f"{await sql.fetchval('select id from pipeline.job')}\n"
    assert (await cli("schedules", "resume", "s", "--json", "-d", dsn)).out == '{"resumed":"s"}\n'


async def test_a_backfill_tells_what_it_made(cli: Cli, dsn: str, sql: asyncpg.Connection) -> None:
    await make(sql, "s", "30 2 * * *", timezone="Europe/Berlin")
    call = ["schedules", "backfill", "s", "--from", "2026-03-28", "--until", "2026-03-31T02:30+02:00", "-d", dsn]
    first = await cli(*call)
    assert (first.status, first.out, first.err) == (0, "made  3\n", "")
    again = await cli(*call)
    assert (again.out, again.err) == ("made  0\n", "3 more of these times have had their run already.\n")
    assert json.loads((await cli(*call, "--json")).out) == {"made": 0, "known": 3}


async def test_mistakes_are_explained(cli: Cli, dsn: str, sql: asyncpg.Connection) -> None:
    for verb in ("show", "pause", "resume", "run-now"):
        assert_explained(await cli("schedules", verb, "x", "-d", dsn), 1, "task", "there is no schedule x")
    await make(sql, "s", "every 1s")
    fill = ["schedules", "backfill", "s", "-d", dsn, "--from"]
    assert_explained(await cli(*fill, "yesterday"), 2, "usage", "is not a time")
    assert_explained(await cli(*fill, "2020-01-01", "--until", "2020-02-01"), 2, "usage", "more than 10000")
    assert_explained(await cli(*fill, "2999-01-01"), 2, "usage", "not beyond now")
    assert_explained(await cli("schedules", "lst"), 2, "usage", "there is no command lst", "schedules list")
