"""The alert evaluator at work: from a raised alert or a bad window to the sinks, each told once."""

from __future__ import annotations

import asyncio
import datetime
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import asyncpg
import pytest

from handlers.alerts import PLACES, AlertEvaluator
from handlers.latency import LatencyRecorder
from handlers.sinks import LogSink, Sink, WebhookSink, signature
from pipeline.core.alert_notice import Notice
from pipeline.core.events import Event
from pipeline.db.alert_judge import AlertJudge
from pipeline.db.alerts import AlertStore
from pipeline.db.connection import Database
from pipeline.db.latency import LatencyStore
from tests.conftest import eventually


class Receiver:
    """The far end of a webhook: answers with the given statuses in turn, then with 200."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.got: list[tuple[str, bytes, Mapping[str, str]]] = []

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        self.got.append((url, body, headers))
        return self.statuses.pop(0) if self.statuses else 200

    def changes(self) -> list[str]:
        return [json.loads(body)["change"] for _, body, _ in self.got]


class Kept:
    """A sink that keeps what it was told."""

    def __init__(self, name: str = "kept") -> None:
        self.name = name
        self.told: list[Notice] = []

    async def send(self, notice: Notice) -> None:
        self.told.append(notice)


class Hanging:
    name = "hanging"

    async def send(self, notice: Notice) -> None:
        await asyncio.Event().wait()


class Broken:
    name = "broken"

    async def send(self, notice: Notice) -> None:
        raise RuntimeError("token=secret")


@asynccontextmanager
async def running(
    db: Database, sinks: Sequence[Sink], *, leads: bool = True, query_seconds: float = 5.0
) -> AsyncIterator[AlertEvaluator]:
    judge = AlertJudge(db, query_seconds=query_seconds)
    evaluator = AlertEvaluator(AlertStore(db), judge, sinks, leading=lambda: leads, chance=lambda: 0.0)
    await evaluator.start()
    task = asyncio.create_task(evaluator.run())
    try:
        yield evaluator
    finally:
        await evaluator.stop()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


RAISED = [Event(1, "pipeline.alert", "e", payload="a")]


async def test_firing_and_resolved_are_each_told_once_to_each_sink(db: Database, sql: asyncpg.Connection) -> None:
    one, two = Kept("one"), Kept("two")
    async with running(db, [one, two, LogSink()]) as first, running(db, [one, two, LogSink()]):
        await sql.execute("select pipeline.raise_alert('a', 'it burns', 'critical')")
        await first.handle(RAISED)
        await eventually(lambda: one.told and two.told)
        await sql.execute("select pipeline.resolve_alert('a')")
        await eventually(lambda: len(one.told) > 1 and len(two.told) > 1)

        async def all_delivered() -> bool:
            return bool(
                await sql.fetchval("select bool_and(delivered_at is not null) from pipeline.alert_delivery")
            )

        await eventually(all_delivered)
    for sink in (one, two):
        assert [notice.change for notice in sink.told] == ["firing", "resolved"]
        assert (sink.told[0].rule, sink.told[0].message, sink.told[0].severity) == ("a", "it burns", "critical")


async def test_a_webhook_that_fails_first_is_told_again_under_the_same_id(
    db: Database, sql: asyncpg.Connection
) -> None:
    receiver = Receiver(500)
    hook = WebhookSink("https://example.org/hook?token=t", receiver.post, secret="s3cret")
    async with running(db, [hook]) as evaluator:
        await sql.execute("select pipeline.raise_alert('a', 'x')")
        await eventually(lambda: len(receiver.got) == 1)
        await eventually(lambda: "the webhook answered 500" in evaluator.healthy().detail)
        assert await sql.fetchval("select delivered_at from pipeline.alert_delivery") is None
        await eventually(lambda: len(receiver.got) == 2)

        async def noted() -> bool:
            return await sql.fetchval("select delivered_at from pipeline.alert_delivery") is not None

        await eventually(noted)
        await eventually(lambda: evaluator.healthy().detail == "")
        assert await evaluator.deliver("webhook") == 0
    (_, body, headers), (_, again, headers_again) = receiver.got
    assert body == again
    assert headers["Pgreflex-Id"] == headers_again["Pgreflex-Id"] == json.loads(body)["id"]
    assert headers["Pgreflex-Signature"] == signature("s3cret", body)
    assert await sql.fetchval("select attempts from pipeline.alert_delivery") == 2


async def test_resolved_is_not_told_before_firing_was_accepted(db: Database, sql: asyncpg.Connection) -> None:
    receiver = Receiver(503)
    async with running(db, [WebhookSink("https://example.org", receiver.post)]) as evaluator:
        await sql.execute("select pipeline.raise_alert('a', 'x')")
        await eventually(lambda: len(receiver.got) == 1)
        await sql.execute("select pipeline.resolve_alert('a')")
        await evaluator.handle(RAISED)
        await eventually(lambda: len(receiver.got) == 3)
    assert receiver.changes() == ["firing", "firing", "resolved"]


async def test_a_sink_that_hangs_or_fails_holds_up_no_other(
    db: Database, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handlers.alerts.SEND_SECONDS", 3.0)
    kept = Kept()
    async with running(db, [Hanging(), Broken(), kept]) as evaluator:
        await sql.execute("select pipeline.raise_alert('a', 'x')")
        await eventually(lambda: kept.told, within=5.0)
        await sql.execute("select pipeline.raise_alert('b', 'x')")
        await eventually(lambda: len(kept.told) == 2, within=5.0)
        await eventually(lambda: "broken" in evaluator.healthy().detail)
        assert evaluator.healthy().ok

        async def noted() -> bool:
            rows = await sql.fetch(
                "select sink, problem, delivered_at is null as open from pipeline.alert_delivery"
            )
            found = {tuple(row) for row in rows}
            # What an exception says might hold a secret; only its class is noted.
            return found == {
                ("hanging", "no answer within 3 s", True),
                ("broken", "RuntimeError", True),
                ("kept", None, False),
            }

        await eventually(noted)


async def test_a_process_that_does_not_lead_neither_judges_nor_tells_but_knows(
    db: Database, sql: asyncpg.Connection
) -> None:
    kept = Kept()
    leader = AlertEvaluator(AlertStore(db), AlertJudge(db), [kept])
    await leader.start()
    await sql.execute("select pipeline.raise_alert('a', 'x')")
    await leader.judge()
    await sql.execute("select pipeline.raise_alert('b', 'x')")
    async with running(db, [kept], leads=False) as follower:
        await eventually(follower.status, why="a whole pass of the follower")
        [alert] = follower.status()
        assert (alert.rule, alert.state, alert.message) == ("a", "firing", "x")
        assert await sql.fetchval("select count(*) from pipeline.alert_inbox") == 1
        assert (await sql.fetchval("select attempts from pipeline.alert_delivery"), kept.told) == (0, [])


async def test_a_slow_statement_becomes_an_alert_within_seconds(db: Database, sql: asyncpg.Connection) -> None:
    await sql.execute(
        "select pipeline.alert_rule_set('slow', 'latency.p95', 'orders.%', 50, over => $1, need => 1, "
        "message => '{series}: {value} ms')",
        datetime.timedelta(seconds=5),
    )
    recorder, kept = LatencyRecorder(LatencyStore(db)), Kept()
    await recorder.start()
    recording = asyncio.create_task(recorder.run())
    async with running(db, [kept]) as evaluator:

        async def burn() -> bool:
            await recorder.handle([Event(1, "orders", "i", ms=80.0)])
            return bool(kept.told)

        await eventually(burn, within=20.0)
        await eventually(evaluator.status)
        [alert] = evaluator.status()
    await recorder.stop()
    await recording
    assert (kept.told[0].rule, kept.told[0].instance, kept.told[0].message) == (
        "slow",
        "orders.insert",
        "orders.insert: 80 ms",
    )
    assert (alert.state, alert.value, alert.threshold) == ("firing", 80.0, 50.0)


async def test_a_rule_that_cannot_be_judged_says_why_and_holds_up_no_other(
    db: Database, sql: asyncpg.Connection
) -> None:
    await sql.execute(
        """
        alter function pipeline.timing_summary rename to real_summary;
        create function pipeline.timing_summary(int[], int[], timestamptz, timestamptz, int, int, float8[])
        returns table (grp int, count bigint, sum float8, high float8, errors bigint, quantiles float8[])
        language plpgsql as $$
        begin
            if $1 is null then raise exception 'no luck'; end if;  -- there is no series a
            return query select r.grp, r.count, r.sum, r.high, r.errors, r.quantiles
            from pipeline.real_summary($1, $2, $3, $4, $5, $6, $7) as r;
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
    kept = Kept()
    async with running(db, [kept]):
        await eventually(lambda: [notice.rule for notice in kept.told] == ["fine"])
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
    kept = Kept()
    async with running(db, [kept], query_seconds=60.0) as evaluator:

        async def all_are_at_it() -> bool:
            return await sql.fetchval(ENDLESS) == 3

        await eventually(all_are_at_it)
        await sql.execute("select pipeline.raise_alert('raised', 'x')")
        await evaluator.handle(RAISED)
        await eventually(lambda: {notice.rule for notice in kept.told} == {"fine", "raised"})
        assert await all_are_at_it(), "they were told while the queries ran"
        await evaluator.stop()

        async def nothing_runs() -> bool:
            return await sql.fetchval(ENDLESS) == 0

        await eventually(nothing_runs, why="the end of the queries with that of the evaluator")


async def test_a_query_that_never_ends_loses_its_place_to_the_next(
    db: Database, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PLACES, True, 1)
    await make_endless(sql, 1)
    kept = Kept()
    async with running(db, [kept], query_seconds=0.5):
        await eventually(lambda: "mine" in {notice.rule for notice in kept.told})


async def test_an_evaluator_outlives_a_database_that_is_away(dsn: str, sql: asyncpg.Connection) -> None:
    kept, db = Kept(), Database(dsn)
    await db.open()
    async with running(db, [kept]) as evaluator:
        await eventually(lambda: evaluator.healthy().ok)
        await db.close()
        await eventually(lambda: not evaluator.healthy().ok)
        await db.open()
        await sql.execute("select pipeline.raise_alert('a', 'x')")
        await eventually(lambda: kept.told)
        await eventually(lambda: evaluator.healthy().ok)
    await db.close()


async def test_two_sinks_of_one_name_are_refused(db: Database) -> None:
    with pytest.raises(ValueError, match="same name"):
        AlertEvaluator(AlertStore(db), AlertJudge(db), [LogSink(), LogSink()])
