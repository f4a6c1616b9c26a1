"""The rules that come with pgreflex, their metrics, and objectives."""

from __future__ import annotations

import asyncio
import uuid

import asyncpg
import pytest

from pipeline.core.alert_metric import METRICS, Reading
from pipeline.db.alert_judge import AlertJudge
from pipeline.db.connection import Database
from pipeline.db.statements import statement
from tests.alert_kit import NOON, health, judge_all, over, set_rule, states, write
from tests.time_kit import stand_at

SEED = "select pipeline.seed_alert_rules()"
HOUR = 3_600


async def test_the_metrics_that_users_are_told_are_those_that_are_had(sql: asyncpg.Connection) -> None:
    rows = await sql.fetch("select metric, kind, unit, about from pipeline.alert_metrics()")
    assert {row["metric"]: row["kind"] for row in rows} == {name: metric.kind for name, metric in METRICS.items()}
    assert all(row["about"] for row in rows)


async def test_every_built_in_rule_can_be_judged_and_none_fires_on_a_quiet_server(
    sql: asyncpg.Connection, dsn: str
) -> None:
    await stand_at(sql, NOON - 1)
    await sql.execute("delete from pipeline.alert_progress; update pipeline.alert_rule set enabled = false")
    await sql.execute("update pipeline.alert_rule set enabled = true")
    rules = await sql.fetch("select name, metric from pipeline.alert_rule where origin = 'builtin' and enabled")
    assert len(rules) >= 30
    for hours in (1, 2):
        await stand_at(sql, NOON + hours * HOUR + 3)
        await judge_all(dsn)
    told = await sql.fetch("select name, health, problem from pipeline.alert_rules() where health <> 'ok'")
    assert [tuple(row) for row in told] == []
    assert [one for one in await states(sql) if one[2] == "firing" and one[0] != "long transaction"] == []


async def test_an_upgrade_keeps_what_was_changed_disabled_or_deleted(sql: asyncpg.Connection) -> None:
    before = await sql.fetchval("select count(*) from pipeline.alert_rule")
    await sql.execute(
        """
        update pipeline.alert_rule set threshold = 7 where name = 'queue age';
        update pipeline.alert_rule set enabled = false where name = 'disk';
        delete from pipeline.alert_rule where name = 'deadlocks';
        select pipeline.alert_rule_set('feed lag', 'latency.p95', 'mine', 3);
        """
    )
    # what an earlier version had seeded, and nobody has changed
    await sql.execute(
        """
        update pipeline.alert_rule set threshold = 400 where name = 'slow query';
        update pipeline.alert_builtin as b set definition = pipeline.rule_definition(r)
        from pipeline.alert_rule as r where r.name = 'slow query' and b.name = r.name;
        update pipeline.alert_rule set threshold = 0.1 where name = 'disk nearly full';
        update pipeline.alert_builtin as b set definition = pipeline.rule_definition(r)
        from pipeline.alert_rule as r where r.name = 'disk nearly full' and b.name = r.name;
        update pipeline.alert_rule set enabled = false where name = 'disk nearly full';
        """
    )
    await sql.execute(SEED)
    await sql.execute(SEED)
    rows = await sql.fetch("select name, threshold, enabled, origin from pipeline.alert_rule")
    rules = {row["name"]: tuple(row)[1:] for row in rows}
    assert rules["queue age"] == (7.0, True, "builtin")
    assert rules["disk"] == (0.15, False, "builtin")
    assert rules["feed lag"] == (3.0, True, "builtin")
    assert rules["slow query"] == (500.0, True, "builtin")
    assert rules["disk nearly full"] == (0.05, False, "builtin")
    assert "deadlocks" not in rules
    assert len(rules) == before - 1


async def test_a_metric_of_the_server_fires_when_the_server_is_so(sql: asyncpg.Connection, dsn: str) -> None:
    await sql.execute("delete from pipeline.alert_rule")
    now, database = await sql.fetchrow("select extract(epoch from now())::float8, current_database()")
    fast = {"over": over("5 seconds"), "need": 1, "keep_firing": 1}
    for name, metric, threshold, more in (
        ("old", "db.long_transaction", 0.0, {"message": "{detail}"}),
        ("taken", "db.connections", 0.0, {}),
        ("aged", "db.wraparound_age", -1.0, {"labels": {"database": database}}),
        ("full", "db.notify_queue", -1.0, {}),
        ("log", "db.wal_ratio", 0.0, {}),
        ("waits", "jobs.queue_age", 30.0, {}),
        ("dead", "jobs.failed", 0.0, {"message": "{value}: {detail}"}),
        ("grown", "db.growth", 1.0, {}),
        ("lost", "alerts.lost", 5.0, {}),
        ("far", "db.slot_bytes", -1.0, {"comparison": "<"}),
    ):
        await set_rule(sql, name, metric=metric, threshold=threshold, **(fast | more))
    await sql.execute(
        """
        insert into pipeline.lane (queue, priority, key) values ('mail', 0, ''), ('calm', 0, '');
        insert into pipeline.job (queue, task, run_at) values ('mail', 't', now() - interval '60 s');
        insert into pipeline.job_archive
            (id, queue, priority, task, args, state, attempt, max_attempts, created_at, run_at, finished_at)
        values (7, 'mail', 0, 'shop.t', '{}', 'failed', 1, 1, now(), now(), now() + interval '8 s');
        """
    )
    other = await asyncpg.connect(dsn)
    await other.execute("begin; select 1")
    begin = (int(now) // 5 + 2) * 5
    await stand_at(sql, begin)
    await judge_all(dsn)
    assert await health(sql, "grown") == ("ok", None)
    await sql.execute("create table bulk as select repeat('x', 100) from generate_series(1, 20000)")
    await sql.execute("select nextval('pipeline.alert_losses') from generate_series(1, 10)")
    for seconds in (5, 7):  # what counts the events of a window waits for late ones
        await stand_at(sql, begin + seconds)
        await judge_all(dsn)
    await other.close()
    found = {row["rule"]: row for row in await sql.fetch("select * from pipeline.alerts()")}
    assert set(found) == {"old", "taken", "aged", "full", "log", "waits", "dead", "grown", "lost"}
    assert found["old"]["message"].startswith("process ")
    assert found["waits"]["instance"] == '{queue="mail"}'
    assert 60 <= found["waits"]["value"] < 120
    assert found["dead"]["message"] == "1: the last one: job 7 of shop.t"
    assert 9 * 12 <= found["lost"]["value"] <= 10 * 12


async def test_what_a_role_may_not_see_is_unknown_or_counted_and_never_zero(
    sql: asyncpg.Connection, dsn: str
) -> None:
    role = f"looker_{uuid.uuid4().hex[:12]}"
    other, own = [await asyncpg.connect(dsn) for _ in range(2)]
    await other.execute("begin; select 1")
    try:
        await sql.execute(f"create role {role}; grant usage on schema pipeline to {role}")
        await own.execute(f"set session authorization {role}")
        seen = await sql.fetchrow(statement("alert_metrics/connections"))
        for text in ("alert_metrics/connections", "alert_metrics/long_transaction"):
            hidden = await own.fetchrow(statement(text))
            if text.endswith("connections"):
                assert hidden["value"] > seen["value"] / 2 > 0
            else:
                assert hidden["value"] is None
                assert "hidden: grant pg_read_all_stats" in hidden["detail"]
        await sql.execute(f"grant pg_read_all_stats to {role}")
        told = await own.fetchrow(statement("alert_metrics/long_transaction"))
        assert told["value"] > 0
        assert told["detail"].startswith("process ")
        assert "hidden" not in told["detail"]
    finally:
        await own.close()
        await other.close()
        await sql.execute(f"drop owned by {role}; drop role {role}")


async def test_a_metric_that_the_daemons_role_may_not_read_is_unknown_and_breaks_no_rule(
    sql: asyncpg.Connection, dsn: str
) -> None:
    role = f"lesser_{uuid.uuid4().hex[:12]}"
    await sql.execute(
        f"create role {role}; grant usage on schema pipeline to {role};"
        f" grant all on all tables in schema pipeline to {role};"
        f" grant execute on all functions in schema pipeline to {role};"
        " delete from pipeline.alert_rule where name <> 'write-ahead log'"
    )
    try:
        await stand_at(sql, NOON)
        await sql.execute("update pipeline.alert_rule set enabled = true, threshold = 0")
        await stand_at(sql, NOON + 63)
        await judge_all(f"{dsn}&role={role}")
        [rule] = await sql.fetch("select * from pipeline.alert_rules()")
        assert rule["problem"] is None
        assert await sql.fetchval("select count(*) from pipeline.alert_state") == 0
    finally:
        await sql.execute(f"drop owned by {role}; drop role {role}")


async def test_a_series_that_has_become_twice_as_slow_as_on_earlier_days_fires(
    sql: asyncpg.Connection, dsn: str
) -> None:
    await sql.execute("delete from pipeline.alert_rule")
    await stand_at(sql, NOON)
    hour = NOON - NOON % HOUR
    await set_rule(
        sql, "regression", metric="latency.regression", series="%", threshold=2.0, need=1, min_samples=100
    )
    for name, days, ms in (("steady", 4, 90.0), ("slower", 4, 100.0), ("young", 2, 100.0), ("quick", 4, 4.9)):
        for day in range(1, days + 1):
            before = 90.0 if name == "steady" else 2.0 if name == "quick" else 20.0 + day
            await write(dsn, hour - day * 24 * HOUR + 600, before, series=name, count=120)
        await write(dsn, NOON, ms, series=name, count=120)
    await stand_at(sql, NOON + 63)
    await judge_all(dsn)
    [row] = await sql.fetch("select instance, value, message from pipeline.alerts()")
    assert row["instance"] == "slower"
    assert row["value"] == pytest.approx(100 / 22.5, rel=0.1)


async def test_labels_and_sources_choose_among_the_series(sql: asyncpg.Connection, dsn: str) -> None:
    await sql.execute("delete from pipeline.alert_rule")
    await stand_at(sql, NOON)
    fast = {"over": over("5 seconds"), "need": 1}
    await set_rule(sql, "labels", metric="latency.p95", series="http{%", labels={"route": "/a"}, **fast)
    await set_rule(sql, "sources", metric="latency.p95", series="%", sources=["job"], **fast)
    for series, labels, source in (
        ('http{method="GET",route="/a"}', {"method": "GET", "route": "/a"}, "http"),
        ('http{method="GET",route="/b"}', {"method": "GET", "route": "/b"}, "http"),
        ('job.run{task="t"}', {"task": "t"}, "job"),
    ):
        await write(dsn, NOON, 500.0, series=series, labels=labels, source=source)
    await stand_at(sql, NOON + 7)
    await judge_all(dsn)
    assert await states(sql) == [
        ("labels", 'http{method="GET",route="/a"}', "firing"),
        ("sources", 'job.run{task="t"}', "firing"),
    ]


async def test_an_objective_tells_its_budget_and_pages_when_it_burns_fast(
    sql: asyncpg.Connection, dsn: str
) -> None:
    await sql.execute("delete from pipeline.alert_rule where metric not like 'slo.%'")
    await stand_at(sql, NOON)
    await sql.execute(
        """
        select pipeline.slo_set('checkout', 'checkout', 0.99, latency_ms => 300, min_events => 50);
        select pipeline.slo_set('errors', 'checkout', 0.99, labels => '{"region": "eu"}');
        select pipeline.slo_set('rare', 'rare', 0.99, min_events => 1000);
        """
    )
    for region, ms, errors in (("eu", 100.0, 0), ("us", 100.0, 0), ("eu", 500.0, 1)):
        labels = {"region": region}
        series = f'checkout{{region="{region}"}}'
        await write(dsn, NOON, ms, series=series, count=100, errors=errors, labels=labels)
    await write(dsn, NOON, 1.0, series="rare", count=100, errors=100)
    await stand_at(sql, NOON + 60)
    rows = {row["name"]: row for row in await sql.fetch("select * from pipeline.slo_status()")}
    told = rows["checkout"]
    assert (told["events"], told["bad"], told["good"]) == (300, 100, pytest.approx(2 / 3))
    assert told["budget_left"] == pytest.approx(1 - (1 / 3) / 0.01)
    assert told["burn_1h"] == told["burn_3d"] == pytest.approx((1 / 3) / 0.01)
    assert (rows["errors"]["events"], rows["errors"]["bad"]) == (200, 1)
    assert rows["errors"]["burn_1h"] == pytest.approx(0.5)
    await judge_all(dsn)
    assert {(rule, instance) for rule, instance, state in await states(sql) if state == "firing"} == {
        ("error budget burns fast", '{slo="checkout"}'),
        ("error budget burns", '{slo="checkout"}'),
        ("error budget burns slowly", '{slo="checkout"}'),
        ("error budget wears off", '{slo="checkout"}'),
    }
    # the long time still remembers, the short one says that it is over
    await stand_at(sql, NOON + 600)
    for region in ("eu", "us"):
        await write(
            dsn,
            NOON + 550,
            1.0,
            series=f'checkout{{region="{region}"}}',
            count=9,
            errors=0,
            labels={"region": region},
        )
    await judge_all(dsn)
    await stand_at(sql, NOON + 660)
    await judge_all(dsn)
    assert ("error budget burns fast", '{slo="checkout"}', "resolved") in await states(sql)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("'a', 'b', 1", "lies between 0 and 1"),
        ("'a', 'b', 'NaN'", "lies between 0 and 1"),
        ("'', 'b', 0.9", "needs a name and a series"),
        ("'a', '', 0.9", "needs a name and a series"),
        ("'a', 'b', 0.9, latency_ms => 0", "must be above 0"),
        ("'a', 'b', 0.9, period => '1 hour'", "between 1 and 90 days"),
    ],
)
async def test_an_objective_that_cannot_be_meant_is_refused(
    call: str, reason: str, sql: asyncpg.Connection
) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match=reason):
        await sql.execute(f"select pipeline.slo_set({call})")


async def test_two_judges_at_once_count_what_a_counter_grew_by_once(sql: asyncpg.Connection, dsn: str) -> None:
    await sql.execute("delete from pipeline.alert_rule")
    await stand_at(sql, NOON)
    rule = await set_rule(sql, "lost", metric="alerts.lost", threshold=0.0, over=over("5 seconds"), need=3)
    for window in range(1, 5):
        await sql.execute("select nextval('pipeline.alert_losses')")
        await stand_at(sql, NOON + 5 * window)
        async with Database(dsn, max_size=4) as db:
            await asyncio.gather(*(AlertJudge(db).judge(rule) for _ in range(3)))
    held = "select bad, silent from pipeline.alert_state"
    assert tuple(await sql.fetchrow(held)) == (3, 0)
    await sql.execute("select setval('pipeline.alert_losses', 1000)")
    await stand_at(sql, NOON + 100)
    await judge_all(dsn)
    assert tuple(await sql.fetchrow(held)) == (3, 1), "nothing is known of the minute in which nobody looked"
    await sql.execute("select nextval('pipeline.alert_losses')")
    await stand_at(sql, NOON + 105)
    await judge_all(dsn)
    assert tuple(await sql.fetchrow("select silent, value from pipeline.alert_state")) == (0, 12.0)


async def test_a_rule_that_is_edited_while_it_is_measured_is_measured_anew(
    sql: asyncpg.Connection, dsn: str
) -> None:
    await sql.execute("delete from pipeline.alert_rule")
    await stand_at(sql, NOON)
    rule = await set_rule(sql, "lag", metric="feed.lag", threshold=5.0, over=over("5 seconds"), need=1)
    await stand_at(sql, NOON + 5)

    async def lag() -> list[Reading]:
        await sql.execute("update pipeline.alert_rule set threshold = 50 where threshold = 5")
        return [Reading("", 9.0)]

    async with Database(dsn) as db:
        judge = AlertJudge(db, local={"feed.lag": lag})
        assert await judge.judge(rule) == []
        assert [one.id for one in await judge.due_rules()] == [rule]
        assert await judge.judge(rule) == []
        assert await judge.due_rules() == []
    assert await states(sql) == []


async def test_a_job_whose_failure_is_committed_late_is_counted_in_its_window(
    sql: asyncpg.Connection, dsn: str
) -> None:
    await sql.execute("delete from pipeline.alert_rule where name <> 'dead letters'")
    await stand_at(sql, NOON)
    await sql.execute("update pipeline.alert_progress set judged_until = pipeline.now()")
    judged = "select extract(epoch from judged_until)::int from pipeline.alert_progress"
    await stand_at(sql, NOON + 60)
    await judge_all(dsn)
    assert await sql.fetchval(judged) == NOON
    await stand_at(sql, NOON + 62)
    await judge_all(dsn)
    assert await sql.fetchval(judged) == NOON + 60
