"""`pgreflex queues`: how queues are shown, held and limited."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from pipeline.cli.queues import queues
from pipeline.core.job import Outcome
from tests.cli.conftest import Cli, assert_explained
from tests.jobs_kit import claim, job_store


async def queue(sql: asyncpg.Connection, name: str) -> asyncpg.Record:
    row = await sql.fetchrow("select * from pipeline.queue where name = $1", name)
    assert row is not None
    return row


@pytest.mark.parametrize("verb", list(queues.commands))
async def test_every_help_fits_80_columns_and_has_an_example(cli: Cli, verb: str) -> None:
    result = await cli("queues", verb, "-h")
    assert result.status == 0
    assert max(map(len, result.out.splitlines())) <= 80
    assert f"Example: pgreflex queues {verb}" in " ".join(result.out.split())


async def test_queues_are_listed_with_their_jobs_and_settings(cli: Cli, dsn: str, sql: asyncpg.Connection) -> None:
    assert "No queue has had a job" in (await cli("queues", "list", "-d", dsn)).err
    for name in ("mail", "mail", "mail", "mail", "plain"):
        await sql.execute("select pipeline.enqueue('t', queue => $1)", name)
    await sql.execute("select pipeline.enqueue('t', queue => 'mail', run_at => now() + interval '1 h')")
    async with job_store(dsn) as store:
        worker = await store.register("w", ["mail"])
        jobs = await claim(store, worker, 2, "mail")
        await store.write(worker, [Outcome(jobs[0], "fail", error="boom")])
    assert (await cli("queues", "pause", "mail", "-d", dsn)).out == "paused  mail\n"
    call = ["queues", "set", "mail", "--concurrency", "5", "--rate", "100/min", "--slots", "20", "--weight", "3"]
    assert (await cli(*call, "-d", dsn)).out == "set  mail\n"
    out = [line.split() for line in (await cli("queues", "list", "-d", dsn)).out.splitlines()]
    assert out[1][:6] == ["mail", "paused", "2", "1", "1", "1"]
    assert out[2][:6] == ["plain", "running", "1", "0", "0", "0"]
    assert out[-1] == ["mail", "5", "100/min", "20", "3"]
    told = json.loads((await cli("queues", "list", "--json", "-d", dsn)).out)
    assert [one["rate_seconds"] for one in told] == [60, None]


async def test_what_is_not_given_is_kept_and_none_takes_a_limit_away(
    cli: Cli, dsn: str, sql: asyncpg.Connection
) -> None:
    assert (await cli("queues", "set", "mail", "--rate", "5/s", "--concurrency", "2", "-d", dsn)).status == 0
    await cli("queues", "set", "mail", "--slots", "9", "--rate", "none", "-d", dsn)
    row = await queue(sql, "mail")
    assert (row["concurrency"], row["rate"], row["slots"], row["weight"]) == (2, None, 9, 1)
    await cli("queues", "set", "mail", "--slots", "none", "--concurrency", "0", "-d", dsn)
    row = await queue(sql, "mail")
    assert (row["concurrency"], row["slots"]) == (None, None)


async def test_a_queue_that_has_had_no_job_may_be_held_with_a_word(
    cli: Cli, dsn: str, sql: asyncpg.Connection
) -> None:
    result = await cli("queues", "pause", "mial", "-d", dsn)
    assert (result.status, result.out) == (0, "paused  mial\n")
    assert "No queue mial has had a job yet" in result.err
    again = await cli("queues", "resume", "mial", "--json", "-d", dsn)
    assert (again.out, again.err) == ('{"resumed":"mial"}\n', "")
    assert (await queue(sql, "mial"))["state"] == "running"


async def test_a_drain_waits_for_what_was_in_line(
    process: Callable[..., Awaitable[asyncio.subprocess.Process]], dsn: str, sql: asyncpg.Connection
) -> None:
    for _ in range(2):
        await sql.execute("select pipeline.enqueue('t')")
    async with job_store(dsn) as store:
        worker = await store.register("w", ["default"])
        [first] = await claim(store, worker, 1)
        child = await process("queues", "drain", "default", "--wait", "-d", dsn)
        assert child.stderr is not None
        assert await asyncio.wait_for(child.stderr.readline(), 20) == b"2 jobs left\n"
        await sql.execute("select pipeline.enqueue('t')")
        [second] = await claim(store, worker)
        assert child.returncode is None
        await store.write(worker, [Outcome(first, "finish"), Outcome(second, "finish")])
        out, err = await asyncio.wait_for(child.communicate(), 20)
    assert (child.returncode, out) == (0, b"drained  default\n"), err
    assert await sql.fetchval("select count(*) from pipeline.job") == 1


async def test_keys_are_limited_and_shown(cli: Cli, dsn: str, sql: asyncpg.Connection) -> None:
    assert "No key has a limit" in (await cli("queues", "limit-key", "-d", dsn)).err
    call = ["queues", "limit-key", "customer"]
    assert (await cli(*call, "--concurrency", "1", "--rate", "20/90s", "-d", dsn)).out == "limited  customer\n"
    assert (await cli(*call, "-d", dsn)).out.splitlines()[1].split() == ["customer", "1", "20/90s"]
    await cli(*call, "--concurrency", "none", "-d", dsn)
    row = await sql.fetchrow("select concurrency, rate, rate_seconds from pipeline.key_rule")
    assert row is not None
    assert tuple(row) == (None, 20, 90)
    await cli(*call, "--rate", "0", "-d", dsn)
    assert await sql.fetchval("select count(*) from pipeline.key_rule") == 0
    assert "The keys of customer have no limit" in (await cli(*call, "-d", dsn)).err


async def test_mistakes_are_explained(cli: Cli, dsn: str) -> None:
    call = ["queues", "set", "mail", "-d", dsn]
    assert_explained(await cli(*call), 2, "usage", "nothing is given to set")
    assert_explained(await cli(*call, "--rate", "fast"), 2, "usage", "'fast' is no rate", "100/hour")
    assert_explained(await cli(*call, "--concurrency", "-1"), 2, "usage", "-1 is no limit")
    assert_explained(await cli(*call, "--slots", "9" * 12), 2, "usage", "is no limit")
    assert_explained(await cli(*call, "--weight", "0"), 2, "usage", "0")
    assert_explained(await cli("queues", "pause", "", "-d", dsn), 2, "usage", "a name has 1 to 200")
    key = await cli("queues", "limit-key", "a:b", "--concurrency", "1", "-d", dsn)
    assert_explained(key, 2, "usage", "no name holds a colon")
