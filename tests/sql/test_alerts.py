"""Alerts in Postgres: rules refused with the reason, raise_alert, judging exactly once, restarts."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import asyncpg
import pytest

from pipeline.core.alert_metric import MAX_INSTANCE_BYTES
from pipeline.db.alert_judge import AlertJudge
from pipeline.db.alerts import AlertStore
from pipeline.db.connection import Database
from pipeline.db.latency import LatencyStore
from pipeline.db.statements import statement
from pipeline.errors import QueryFailed
from tests.alert_kit import NOON, judge_all, over, set_rule, states, write
from tests.time_kit import stand_at


@pytest.fixture(autouse=True)
async def only_ours(sql: asyncpg.Connection) -> None:
    """The rules that come with pgreflex have tests of their own."""
    await sql.execute("delete from pipeline.alert_rule")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"name": ""}, "needs a name"),
        ({"metric": "latency.p42"}, "there is no metric latency.p42"),
        ({"metric": None}, "there is no metric"),
        ({"series": ""}, "names no series"),
        ({"series": "a%\\"}, "ends in its escape"),
        ({"over": over("3 seconds")}, "windows of 00:00:03 cannot be had"),
        ({"over": over("7 seconds")}, "windows of 00:00:07 cannot be had"),
        ({"over": over("90 seconds")}, "windows of 00:01:30 cannot be had"),
        ({"over": over("2 days")}, "windows of 2 days cannot be had"),
        ({"over": None}, "cannot be had"),
        ({"comparison": "="}, "= is no comparison"),
        ({"threshold": float("nan")}, "must be a number, not NaN"),
        ({"threshold": float("inf")}, "must be a number"),
        ({"threshold": None}, "must be a number"),
        ({"metric": "latency.error_rate", "threshold": 5.0}, "lies between 0 and 1"),
        ({"need": 0}, "counts of windows"),
        ({"keep_firing": None}, "counts of windows"),
        ({"hold_max": 1_001}, "counts of windows"),
        ({"min_samples": 0}, "min_samples must be at least 1"),
        ({"severity": "bad"}, "there is no severity bad"),
        ({"message": "{series} {vlaue}"}, "unknown placeholder {vlaue}"),
        ({"message": None}, "unknown placeholder"),
    ],
)
async def test_a_rule_that_cannot_be_meant_is_refused_with_the_reason(
    fields: dict[str, Any], reason: str, sql: asyncpg.Connection
) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match=reason):
        await set_rule(sql, **fields)
    await set_rule(sql, "good")
    changes = {field: value for field, value in fields.items() if value is None or field != "name"}
    for field, value in changes.items():
        if len(fields) == 1:
            with pytest.raises(asyncpg.InvalidParameterValueError, match=reason):
                await sql.execute(f"update pipeline.alert_rule set {field} = $1", value)


async def test_setting_a_rule_again_changes_it(sql: asyncpg.Connection) -> None:
    first = await set_rule(sql, threshold=1.0)
    assert await set_rule(sql, threshold=2.0, severity="critical") == first
    assert tuple(await sql.fetchrow("select threshold, severity from pipeline.alert_rule")) == (2.0, "critical")


async def test_three_bad_windows_fire_and_two_good_ones_resolve(dsn: str, sql: asyncpg.Connection) -> None:
    await stand_at(sql, NOON)
    await set_rule(sql, over=over("5 seconds"), message="{series} took {value} ms (limit {threshold})")
    seen = []
    for window, ms in enumerate([500, 500, 500, 5, 5, 5]):
        await write(dsn, NOON + 5 * window, ms)
        await stand_at(sql, NOON + 5 * (window + 1) + 2)
        changed = await judge_all(dsn)
        seen.append((await states(sql), [one.change for one in changed if one.change]))
    pending, firing, resolved = ([("slow", "orders.insert", s)] for s in ("pending", "firing", "resolved"))
    assert seen == [
        (pending, []),
        (pending, []),
        (firing, ["firing"]),
        (firing, []),
        (resolved, ["resolved"]),
        (resolved, []),
    ]
    told = await sql.fetch(
        "select after, message, extract(epoch from at)::int as at from pipeline.alert_history"
        " where after <> 'pending' order by id"
    )
    assert [tuple(row) for row in told] == [
        ("firing", "orders.insert took 500 ms (limit 100)", NOON + 15),
        ("resolved", "orders.insert took 500 ms (limit 100)", NOON + 25),
    ]
    history = await sql.fetch("select before, after, reason from pipeline.alert_history order by id")
    assert [tuple(row) for row in history] == [
        ("inactive", "pending", "latency.p95 500 > 100"),
        ("pending", "firing", "latency.p95 500 > 100"),
        ("firing", "resolved", "latency.p95 5 not > 100"),
    ]


@pytest.mark.parametrize("seed", [2])
async def test_a_restart_between_any_two_evaluations_changes_nothing(
    seed: int, dsn: str, sql: asyncpg.Connection
) -> None:
    """One evaluator lives through everything, one judges at random moments, each time started anew."""
    draw = random.Random(seed)
    windows = [draw.choice([500, 500, 500, 5, 5]) for _ in range(24)]
    await stand_at(sql, NOON)
    for name in ("steady", "restarted"):
        await set_rule(sql, name, over=over("5 seconds"), need=2, hold_max=2)
    ids = {row["name"]: row["id"] for row in await sql.fetch("select id, name from pipeline.alert_rule")}
    for window, ms in enumerate(windows):
        await write(dsn, NOON + 5 * window, ms)
        await stand_at(sql, NOON + 5 * (window + 1) + 2)
        async with Database(dsn) as db:
            await AlertJudge(db).judge(ids["steady"])
            if draw.random() < 0.4 or window == 23:
                await AlertJudge(db).judge(ids["restarted"])
                await AlertJudge(db).judge(ids["restarted"])

    async def story(name: str) -> list[tuple[Any, ...]]:
        rows = await sql.fetch(
            "select at, before, after, episode, value, reason from pipeline.alert_history"
            " where rule = $1 order by id",
            name,
        )
        return [tuple(row) for row in rows]

    assert await story("steady") == await story("restarted")
    assert len(await story("steady")) > 2


async def test_two_evaluators_judge_every_window_once(dsn: str, sql: asyncpg.Connection) -> None:
    await stand_at(sql, NOON)
    await set_rule(sql, over=over("5 seconds"), need=1_000)
    rule = await sql.fetchval("select id from pipeline.alert_rule")
    for window in range(12):
        await write(dsn, NOON + 5 * window, 500)
    await stand_at(sql, NOON + 62)
    async with Database(dsn, max_size=8) as db:
        changed = await asyncio.gather(*(AlertJudge(db).judge(rule) for _ in range(8)))
        changed.append(await AlertJudge(db).judge(rule))  # each gives way to another who is at it
        assert sum(map(len, changed)) == 12
    assert await sql.fetchval("select bad from pipeline.alert_state") == 12


async def test_a_minute_is_judged_whether_it_is_rolled_up_or_not(dsn: str, sql: asyncpg.Connection) -> None:
    await stand_at(sql, NOON)
    await set_rule(sql, metric="latency.count", threshold=0.0, need=1)
    for second in range(0, 120, 5):
        await write(dsn, NOON + second, 1.0)
    await stand_at(sql, NOON + 71)
    async with Database(dsn) as db:
        assert await LatencyStore(db).roll_up() == 1
    await stand_at(sql, NOON + 122)
    await judge_all(dsn)
    rows = await sql.fetch("select value from pipeline.alerts()")
    assert [row["value"] for row in rows] == [120.0]
    assert await sql.fetchval("select judged_until = to_timestamp($1) from pipeline.alert_progress", NOON + 120)


async def test_a_pattern_makes_an_instance_of_each_series(dsn: str, sql: asyncpg.Connection) -> None:
    await stand_at(sql, NOON)
    await set_rule(sql, series="orders.%", over=over("5 seconds"), need=1)
    await set_rule(sql, "exact", series="orders_insert", over=over("5 seconds"), need=1)
    for series, ms in (
        ("orders.insert", 500),
        ("orders.update", 400),
        ("orders.delete", 1),
        ("users.insert", 900),
    ):
        await write(dsn, NOON, ms, series=series)
    await stand_at(sql, NOON + 7)
    await judge_all(dsn)
    assert await states(sql) == [("slow", "orders.insert", "firing"), ("slow", "orders.update", "firing")]


async def test_an_edited_rule_resolves_what_its_old_wording_made_and_judges_anew(
    dsn: str, sql: asyncpg.Connection
) -> None:
    await stand_at(sql, NOON)
    await set_rule(sql, over=over("5 seconds"), need=1)
    await write(dsn, NOON, 500)
    await write(dsn, NOON + 5, 500)
    await stand_at(sql, NOON + 7)
    await judge_all(dsn)
    await sql.execute("update pipeline.alert_rule set threshold = 1000")
    await stand_at(sql, NOON + 12)
    changed = await judge_all(dsn)
    assert [(one.change, one.reason) for one in changed] == [("resolved", "rule_changed")]
    await sql.execute("update pipeline.alert_rule set message = 'other words', threshold = 100")
    await write(dsn, NOON + 10, 500)
    await stand_at(sql, NOON + 17)
    await judge_all(dsn)
    await sql.execute("update pipeline.alert_rule set message = 'still other words'")
    await write(dsn, NOON + 15, 500)
    await stand_at(sql, NOON + 22)
    await judge_all(dsn)
    [row] = await sql.fetch("select state, message from pipeline.alerts()")
    assert tuple(row) == ("firing", "still other words")
    after = await sql.fetch("select after from pipeline.alert_history order by id")
    assert [row["after"] for row in after if row["after"] != "pending"] == ["firing", "resolved", "firing"]


@pytest.mark.parametrize(
    "how", ["delete from pipeline.alert_rule", "update pipeline.alert_rule set enabled = false"]
)
async def test_a_rule_that_is_gone_resolves_its_alerts(how: str, dsn: str, sql: asyncpg.Connection) -> None:
    await stand_at(sql, NOON)
    await set_rule(sql, over=over("5 seconds"), need=1)
    await write(dsn, NOON, 500)
    await stand_at(sql, NOON + 7)
    await judge_all(dsn)
    await sql.execute(how)
    [judged] = await judge_all(dsn)
    assert (judged.change, judged.reason) == ("resolved", "rule_removed")
    assert await judge_all(dsn) == []


async def test_a_rule_that_is_enabled_again_is_not_judged_on_the_past(dsn: str, sql: asyncpg.Connection) -> None:
    await stand_at(sql, NOON)
    await set_rule(sql, over=over("5 seconds"), need=1, enabled=False)
    await write(dsn, NOON, 500)
    await stand_at(sql, NOON + 60)
    await sql.execute("update pipeline.alert_rule set enabled = true")
    await stand_at(sql, NOON + 67)
    assert await judge_all(dsn) == []


async def test_a_raised_alert_fires_once_and_is_resolved_once(dsn: str, sql: asyncpg.Connection) -> None:
    await sql.execute("""select pipeline.raise_alert('disk full', 'on /data', 'critical', '{"host": "a"}')""")
    await sql.execute(
        """select pipeline.raise_alert('disk full', 'on /data, 99 %', 'critical', '{"host": "a"}')"""
    )
    await sql.execute("""select pipeline.raise_alert('disk full', 'on /var', labels => '{"host": "b"}')""")
    await judge_all(dsn)
    rows = await sql.fetch("select instance, state, severity, message from pipeline.alerts()")
    assert [tuple(row) for row in rows] == [
        ('{host="a"}', "firing", "critical", "on /data, 99 %"),
        ('{host="b"}', "firing", "warning", "on /var"),
    ]
    await sql.execute("""select pipeline.resolve_alert('disk full', '{"host": "a"}')""")
    await sql.execute("""select pipeline.resolve_alert('disk full', '{"host": "a"}')""")
    await sql.execute("select pipeline.resolve_alert('never raised')")
    await judge_all(dsn)
    told = await sql.fetch("select instance, after from pipeline.alert_history order by id")
    assert sorted(map(tuple, told)) == [
        ('{host="a"}', "firing"),
        ('{host="a"}', "resolved"),
        ('{host="b"}', "firing"),
    ]
    assert await sql.fetchval("select count(*) from pipeline.alert_inbox") == 0


async def test_raising_and_resolving_within_one_batch_tells_both_in_order(
    dsn: str, sql: asyncpg.Connection
) -> None:
    for _ in range(2):
        await sql.execute("select pipeline.raise_alert('a', 'x'); select pipeline.resolve_alert('a')")
    await judge_all(dsn)
    told = await sql.fetch("select after from pipeline.alert_history order by id")
    assert [row["after"] for row in told] == ["firing", "resolved", "firing", "resolved"]


async def test_two_evaluators_take_in_what_was_raised_once(dsn: str, sql: asyncpg.Connection) -> None:
    for i in range(40):
        await sql.execute("select pipeline.raise_alert($1, 'x')", f"a{i % 10}")
    await asyncio.gather(*(judge_all(dsn) for _ in range(4)))
    await judge_all(dsn)
    assert await sql.fetchval("select count(*) from pipeline.alert_history") == 10


async def test_an_evaluator_that_hangs_holds_up_no_other(dsn: str, sql: asyncpg.Connection) -> None:
    async with Database(dsn) as db:
        store = AlertStore(db)
        await sql.execute("select pipeline.raise_alert('a', 'x')")
        async with sql.transaction():
            assert await sql.fetchval(statement("alerts/lock_inbox"))
            assert len(await sql.fetch(statement("alerts/take_inbox"), 10)) == 1
            async with asyncio.timeout(5):  # it would wait for the transaction, which waits for it
                assert await store.take_inbox() == []


async def test_an_alert_raised_in_a_transaction_that_rolls_back_leaves_nothing(
    dsn: str, sql: asyncpg.Connection
) -> None:
    transaction = sql.transaction()
    await transaction.start()
    await sql.execute("select pipeline.raise_alert('a', 'x')")
    await transaction.rollback()
    assert await judge_all(dsn) == []
    for table in ("alert_inbox", "alert_state", "alert_history"):
        assert await sql.fetchval(f"select count(*) from pipeline.{table}") == 0


async def test_writers_that_raise_the_same_alert_do_not_wait_for_each_other(
    dsn: str, sql: asyncpg.Connection
) -> None:
    other = await asyncpg.connect(dsn, server_settings={"lock_timeout": "500"})
    try:
        async with sql.transaction():
            await sql.execute("select pipeline.raise_alert('a', 'x')")
            await other.execute("select pipeline.raise_alert('a', 'y')")
            await judge_all(dsn)
            assert [name for name, _, _ in await states(other)] == ["a"]
    finally:
        await other.close()


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("raise_alert('', 'x')", "needs a name"),
        ("raise_alert('a', 'x', 'grave')", "there is no severity grave"),
        ("raise_alert('a', 'x', labels => '[]')", "labels must be a JSON object"),
        ("resolve_alert(null)", "needs a name"),
    ],
)
async def test_an_alert_that_cannot_be_meant_is_refused(call: str, reason: str, sql: asyncpg.Connection) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match=reason):
        await sql.execute(f"select pipeline.{call}")


async def test_a_role_with_usage_alone_can_raise_resolve_and_look(dsn: str, sql: asyncpg.Connection) -> None:
    role = f"app_{random.randrange(10**12)}"
    await sql.execute(f"create role {role}; grant usage on schema pipeline to {role}")
    try:
        await sql.execute(f"set role {role}")
        await sql.execute("select pipeline.raise_alert('a', 'x'), pipeline.record_timing('a', 1)")
        await judge_all(dsn)
        assert await states(sql) == [("a", "", "firing")]
        await sql.execute("select pipeline.resolve_alert('a')")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await set_rule(sql)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await sql.execute("delete from pipeline.alert_inbox")
    finally:
        await sql.execute(f"reset role; drop owned by {role}; drop role {role}")


async def test_pruning_forgets_what_was_resolved_long_ago(dsn: str, sql: asyncpg.Connection) -> None:
    await sql.execute("select pipeline.raise_alert('a', 'x'); select pipeline.resolve_alert('a')")
    await sql.execute("select pipeline.raise_alert('b', 'x')")
    await judge_all(dsn)
    now = await sql.fetchval("select extract(epoch from now())::float8")
    await stand_at(sql, now + 91 * 86_400)
    async with Database(dsn) as db:
        await AlertStore(db).prune()
    assert await states(sql) == [("b", "", "firing")]
    assert await sql.fetchval("select count(*) from pipeline.alert_history") == 0


async def test_a_storm_wakes_the_evaluator_ten_times_a_second_at_most(sql: asyncpg.Connection, dsn: str) -> None:
    events = "select count(*) from pipeline.outbox where name = 'pipeline.alert'"
    before = await sql.fetchval(events)
    began = await sql.fetchval("select clock_timestamp()")
    for _ in range(50):
        await sql.execute("select pipeline.raise_alert('storm', 'x'), pipeline.resolve_alert('storm')")
    took = (await sql.fetchval("select clock_timestamp()") - began).total_seconds()
    sent = await sql.fetchval(events) - before
    assert 1 <= sent <= took * 10 + 1
    await sql.execute("select setval('pipeline.alert_bell', 4102444800000)")  # a clock that was ahead
    await sql.execute("select pipeline.raise_alert('storm', 'x')")
    assert await sql.fetchval(events) - before == sent + 1
    assert len(await judge_all(dsn)) == 101


async def test_of_a_storm_of_one_alert_the_first_and_the_last_message_count(
    sql: asyncpg.Connection, dsn: str
) -> None:
    for message in ("first", "second", "last"):
        await sql.execute("select pipeline.raise_alert('a', $1, labels => '{\"n\": 1}')", message)
        await sql.execute("select pipeline.raise_alert('a', 'other', labels => '{\"n\": 2}')")
    first = await sql.fetchval("select min(id) from pipeline.alert_inbox")
    for _ in range(3):
        await sql.execute("select pipeline.resolve_alert('a', '{\"n\": 2}')")
    assert len(await judge_all(dsn)) == 4
    rows = await sql.fetch("select state, message, episode from pipeline.alert_state order by instance")
    assert [tuple(row) for row in rows] == [("firing", "last", first), ("resolved", "other", first + 1)]
    told = await sql.fetch("select after, message from pipeline.alert_history order by id")
    assert [tuple(row) for row in told] == [("firing", "first"), ("firing", "other"), ("resolved", "other")]


async def test_labels_of_any_json_name_an_instance_and_none_stops_the_inbox(
    sql: asyncpg.Connection, dsn: str
) -> None:
    for labels in (
        '{"n": 1e400}',
        '{"a": null, "b": [1, {"c": 2}]}',
        '{"u": "\\u00e9\\"x"}',
        '{"n": 1.50}',
    ):
        await sql.execute("select pipeline.raise_alert('odd', 'x', labels => $1)", labels)
    await judge_all(dsn)
    found = [instance for _, instance, _ in await states(sql)]
    assert len(found) == 4
    named = await sql.fetch("select instance, pipeline.series_name('', labels) as name from pipeline.alert_state")
    assert all(row["instance"] == row["name"] for row in named)
    assert await sql.fetchval("select count(*) from pipeline.alert_inbox") == 0
    for refused in ("null", "[]", '"x"', '{"a": "' + "x" * 1_000 + '"}'):
        with pytest.raises(asyncpg.InvalidParameterValueError):
            await sql.execute("select pipeline.raise_alert('odd', 'x', labels => $1)", refused)


async def test_labels_too_long_for_an_index_keep_no_other_alert_from_being_taken_in(
    dsn: str, sql: asyncpg.Connection
) -> None:
    letters = random.Random(1)
    long = ["".join(chr(letters.randrange(0x4E00, 0x9FFF)) for _ in range(950)) + end for end in ("a", "b")]
    for text in long:
        labels = json.dumps({"who": text}, ensure_ascii=False)
        await sql.execute("select pipeline.raise_alert($1, 'x', labels => $2)", "名" * 200, labels)
    await sql.execute("select pipeline.raise_alert('good', 'x')")
    await judge_all(dsn)
    rows = await sql.fetch(
        "select instance, labels ->> 'who' as who from pipeline.alert_state where rule <> 'good'"
    )
    assert sorted(row["who"] for row in rows) == long
    assert max(len(row["instance"].encode()) for row in rows) <= MAX_INSTANCE_BYTES
    assert await sql.fetchval("select count(*) from pipeline.alert_state where rule = 'good'") == 1
    assert await sql.fetchval("select count(*) from pipeline.alert_inbox") == 0


async def test_rules_are_judged_though_the_clock_was_set_back(dsn: str, sql: asyncpg.Connection) -> None:
    await stand_at(sql, NOON + 86_400)
    await set_rule(sql, over=over("5 seconds"), need=1)
    await stand_at(sql, NOON)
    assert await judge_all(dsn) == []
    await write(dsn, NOON, 500)
    await stand_at(sql, NOON + 7)
    await judge_all(dsn)
    assert await states(sql) == [("slow", "orders.insert", "firing")]


async def test_a_metric_that_this_version_does_not_know_is_a_problem_of_its_rule_only(
    dsn: str, sql: asyncpg.Connection
) -> None:
    await stand_at(sql, NOON)
    rule = await set_rule(sql, over=over("5 seconds"))
    await sql.execute("alter table pipeline.alert_rule disable trigger user")
    await sql.execute("update pipeline.alert_rule set metric = 'moon.phase', series = null")
    await stand_at(sql, NOON + 7)
    async with Database(dsn) as db:
        judge = AlertJudge(db)
        assert [one.id for one in await judge.due_rules()] == [rule]
        with pytest.raises(QueryFailed, match=r"does not know the metric moon\.phase"):
            await judge.judge(rule)
