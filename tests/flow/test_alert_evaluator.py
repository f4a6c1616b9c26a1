"""The alert evaluator at work: from a raised alert or a bad window to the state of an alert."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import asyncpg
import pytest

from handlers.alerts import PLACES, AlertEvaluator
from handlers.latency import LatencyRecorder
from pipeline.core.events import Event
from pipeline.db.alert_judge import AlertJudge
from pipeline.db.alerts import AlertStore
from pipeline.db.connection import Database
from pipeline.db.latency import LatencyStore
from tests.conftest import eventually


@asynccontextmanager
async def running(
    db: Database, *, leads: bool = True, changed: Callable[[], None] = lambda: None, query_seconds: float = 5.0
) -> AsyncIterator[AlertEvaluator]:
    judge = AlertJudge(db, query_seconds=query_seconds)
    evaluator = AlertEvaluator(AlertStore(db), judge, leading=lambda: leads, changed=changed)
    await evaluator.start()
    task = asyncio.create_task(evaluator.run())
    try:
        yield evaluator
    finally:
        await evaluator.stop()
        async with asyncio.timeout(5):
            await asyncio.gather(task, return_exceptions=True)


async def firing(sql: asyncpg.Connection) -> list[str]:
    rows = await sql.fetch("select rule from pipeline.alert_state where state = 'firing' order by rule")
    return [row["rule"] for row in rows]


RAISED = [Event(1, "pipeline.alert", "e", payload="a")]


async def test_whoever_tells_is_woken_by_each_change_and_one_of_two_evaluators_makes_it(
    db: Database, sql: asyncpg.Connection
) -> None:
    woken: list[str] = []
    async with (
        running(db, changed=lambda: woken.append("first")) as first,
        running(db, changed=lambda: woken.append("second")),
    ):
        await sql.execute("select pipeline.raise_alert('a', 'it burns', 'critical')")
        await first.handle(RAISED)
        await eventually(lambda: len(woken) == 1)
        assert await firing(sql) == ["a"]
        await sql.execute("select pipeline.resolve_alert('a')")
        await eventually(lambda: len(woken) == 2)
        assert await firing(sql) == []
    changes = await sql.fetch("select before, after from pipeline.alert_history order by id")
    assert [tuple(row) for row in changes] == [("inactive", "firing"), ("firing", "resolved")]


async def test_a_process_that_does_not_lead_does_not_judge_but_knows(
    db: Database, sql: asyncpg.Connection
) -> None:
    await sql.execute("select pipeline.raise_alert('a', 'x')")
    await AlertEvaluator(AlertStore(db), AlertJudge(db)).judge()
    await sql.execute("select pipeline.raise_alert('b', 'x')")
    async with running(db, leads=False) as follower:
        await eventually(follower.status, why="a whole pass of the follower")
        [alert] = follower.status()
        assert (alert.rule, alert.state, alert.message) == ("a", "firing", "x")
        assert await sql.fetchval("select count(*) from pipeline.alert_inbox") == 1


async def test_a_slow_statement_becomes_an_alert_within_seconds(db: Database, sql: asyncpg.Connection) -> None:
    await sql.execute(
        "select pipeline.alert_rule_set('slow', 'latency.p95', 'orders.%', 50, over => $1, need => 1, "
        "message => '{series}: {value} ms')",
        datetime.timedelta(seconds=5),
    )
    recorder = LatencyRecorder(LatencyStore(db))
    await recorder.start()
    recording = asyncio.create_task(recorder.run())
    async with running(db) as evaluator:

        async def burn() -> bool:
            await recorder.handle([Event(1, "orders", "i", ms=80.0)])
            return "slow" in await firing(sql)

        await eventually(burn, within=20.0)
        await eventually(evaluator.status)
        [alert] = evaluator.status()
    await recorder.stop()
    await recording
    assert (alert.rule, alert.message) == ("slow", "orders.insert: 80 ms")
    assert (alert.state, alert.value, alert.threshold) == ("firing", 80.0, 50.0)


async def test_a_rule_that_cannot_be_judged_says_why_and_holds_up_no_other(
    db: Database, sql: asyncpg.Connection
) -> None:
    await sql.execute(
        """
        alter function pipeline.alert_digests rename to real_digests;
        create function pipeline.alert_digests(text, jsonb, text[], timestamptz, int, bool)
        returns table (
            series text, labels jsonb, count bigint, errors bigint, sum float8, low float8, high float8,
            lows float8[], highs float8[], sizes int[], centroids bytea
        )
        language plpgsql as $$
        begin
            if $1 = 'a' then raise exception 'no luck'; end if;
            return query select * from pipeline.real_digests($1, $2, $3, $4, $5, $6);
        end $$
        """
    )
    for name, series in (("broken", "a"), ("fine", "b")):
        await sql.execute(
            "select pipeline.alert_rule_set($1, 'latency.max', $2, 0, over => '5 seconds', need => 1)",
            name,
            series,
        )
    await sql.execute("update pipeline.alert_progress set judged_until = now() - interval '1 minute'")
    recorder = LatencyRecorder(LatencyStore(db))
    now = await sql.fetchval("select extract(epoch from now())::float8")
    recorder.windows.series("b").add_at(1, now - 15)
    await recorder.flush(everything=True)
    async with running(db):

        async def fine_fires() -> bool:
            return await firing(sql) == ["fine"]

        await eventually(fine_fires)
    problem = (
        "select problem from pipeline.alert_progress join pipeline.alert_rule on id = rule_id where name = $1"
    )
    assert "no luck" in await sql.fetchval(problem, "broken")
    assert await sql.fetchval(problem, "fine") is None


ENDLESS = (
    "select count(*) from pg_stat_activity"
    " where query like '%pg_sleep(3600)%' and datname = current_database() and pid <> pg_backend_pid()"
)


async def make_endless(sql: asyncpg.Connection, count: int) -> None:
    """Rules that never end, due for longer than all others."""
    await sql.execute("delete from pipeline.alert_rule")
    rule = "select pipeline.alert_rule_set($1, query => $2, over => '5 s', need => 1)"
    for number in range(count):
        await sql.execute(rule, f"endless {number}", "select pg_sleep(3600)")
    await sql.execute("update pipeline.alert_progress set judged_until = now() - interval '2 minutes'")
    await sql.execute(rule, "mine", "select 1 as one")
    await sql.execute(
        "select pipeline.alert_rule_set('fine', 'db.connections', threshold => 0, over => '5 s', need => 1)"
    )
    await sql.execute("update pipeline.alert_progress set judged_until = judged_until - interval '1 minute'")


async def test_queries_that_never_end_hold_up_no_other_rule_and_no_raised_alert(
    db: Database, sql: asyncpg.Connection
) -> None:
    await make_endless(sql, 3)
    async with running(db, query_seconds=60.0) as evaluator:

        async def all_are_at_it() -> bool:
            return await sql.fetchval(ENDLESS) == 3

        async def others_fire() -> bool:
            return await firing(sql) == ["fine", "raised"]

        await eventually(all_are_at_it)
        await sql.execute("select pipeline.raise_alert('raised', 'x')")
        await evaluator.handle(RAISED)
        await eventually(others_fire)
        assert await all_are_at_it(), "they fired while the queries ran"
        await evaluator.stop()

        async def nothing_runs() -> bool:
            return await sql.fetchval(ENDLESS) == 0

        await eventually(nothing_runs, why="the end of the queries with that of the evaluator")


async def test_a_query_that_never_ends_loses_its_place_to_the_next(
    db: Database, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PLACES, True, 1)
    await make_endless(sql, 1)
    async with running(db, query_seconds=0.5):

        async def mine_fires() -> bool:
            return "mine" in await firing(sql)

        await eventually(mine_fires)


async def test_an_evaluator_outlives_a_database_that_is_away(dsn: str, sql: asyncpg.Connection) -> None:
    db = Database(dsn)
    await db.open()
    async with running(db) as evaluator:
        await eventually(lambda: evaluator.healthy().ok)
        await db.close()
        await eventually(lambda: not evaluator.healthy().ok)
        await db.open()
        await sql.execute("select pipeline.raise_alert('a', 'x')")
        await eventually(lambda: [alert.rule for alert in evaluator.status()] == ["a"])
        await eventually(lambda: evaluator.healthy().ok)
    await db.close()
