"""Rules with a query of the user's: refused with the reason, read only, ended in time, alone in failing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from pipeline.db.alert_judge import AlertJudge
from pipeline.db.connection import Database
from pipeline.errors import QueryFailed
from tests.alert_kit import NOON, health, judge_all, over, set_rule, states
from tests.conftest import eventually
from tests.time_kit import stand_at


@pytest.fixture(autouse=True)
async def only_ours(sql: asyncpg.Connection) -> None:
    await sql.execute("delete from pipeline.alert_rule")
    await sql.execute("create table stock (sku text, warehouse text, left_over int)")
    await stand_at(sql, NOON)


@pytest.fixture
def windows(sql: asyncpg.Connection, dsn: str) -> Callable[..., Awaitable[list[Any]]]:
    """Judges that many further windows of five seconds; returns what changed in the last."""
    passed = 0

    async def judge(count: int = 1, **options: Any) -> list[Any]:
        nonlocal passed
        changed: list[Any] = []
        for _ in range(count):
            passed += 1
            await stand_at(sql, NOON + 5 * passed)
            changed = await judge_all(dsn, **options)
        return changed

    return judge


FAST = {"over": over("5 seconds"), "need": 1, "keep_firing": 1}


async def test_each_row_of_a_query_is_an_instance_named_by_its_columns(
    sql: asyncpg.Connection, windows: Callable[..., Awaitable[list[Any]]]
) -> None:
    await set_rule(
        sql,
        "low stock",
        query="select sku, warehouse, left_over as value, 'order more' as detail from stock where left_over < 3;",
        message="{label.sku}: {value} left, {detail}",
        labels={"warehouse": "north"},
        **FAST,
    )
    await sql.execute("insert into stock values ('a', 'north', 2), ('b', 'north', 9), ('c', 'south', 0)")
    assert [one.change for one in await windows()] == ["firing"]
    [row] = await sql.fetch("select rule, instance, state, message, value from pipeline.alerts()")
    assert tuple(row) == ("low stock", '{sku="a",warehouse="north"}', "firing", "a: 2 left, order more", 2.0)
    assert (
        await sql.fetchval("select labels from pipeline.alert_history where after = 'firing'")
        == '{"sku": "a", "warehouse": "north"}'
    )
    await sql.execute("update stock set left_over = 9")
    assert [one.reason for one in await windows()] == ["it is gone"]
    # with a threshold, the rows that it does not reach are good
    await sql.execute(
        "update pipeline.alert_rule set threshold = 5, comparison = '<', clear_threshold = 8,"
        " query = 'select sku, warehouse, left_over as value from stock'"
    )
    await sql.execute("update stock set left_over = 4 where sku = 'a'")
    assert [one.change for one in await windows()] == [None, "firing"]  # the old wording ended, resolved already
    await sql.execute("update stock set left_over = 7 where sku = 'a'")
    assert [one.change for one in await windows()] == [None]
    await sql.execute("update stock set left_over = 8 where sku = 'a'")
    assert [one.change for one in await windows()] == ["resolved"]


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("selec 1", "syntax error"),
        ("select * from nowhere", 'relation "nowhere" does not exist'),
        ("select 1; drop table stock", "syntax error"),
        ("select 1) q; drop table stock; --", "syntax error"),
        ("select 1) q; drop table stock; select * from (select 1", "cannot open multi-query plan"),
        ("insert into stock values ('x')", "syntax error"),
        ("with w as (insert into stock values ('x') returning *) select * from w", "must be at the top level"),
        ("select $1::int", "there is no parameter"),
        ("", "it has no query"),
        ("create table t (id int)", "syntax error"),
    ],
)
async def test_a_query_that_cannot_run_is_refused_when_it_is_written(
    query: str, reason: str, sql: asyncpg.Connection
) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match=reason):
        await set_rule(sql, "bad", query=query)
    await set_rule(sql, "good", query="select 1")
    with pytest.raises(asyncpg.InvalidParameterValueError, match=reason):
        await sql.execute("update pipeline.alert_rule set query = $1", query)
    await sql.execute("insert into stock values ('still there')")


async def test_a_query_may_be_written_only_by_who_may_read_what_it_reads(
    sql: asyncpg.Connection, dsn: str
) -> None:
    role = f"writer_{dsn.rpartition('t_')[2][:12]}"
    await sql.execute(
        f"create role {role}; grant usage on schema pipeline to {role};"
        f"grant insert, select, update on pipeline.alert_rule to {role}; set role {role}"
    )
    insert = "insert into pipeline.alert_rule (name, metric, query, revision) values ($1, 'sql', $2, '')"
    try:
        await sql.execute(insert, "fine", "select 1 as one")
        with pytest.raises(asyncpg.InvalidParameterValueError, match="permission denied for table stock"):
            await sql.execute(insert, "curious", "select * from stock")
    finally:
        await sql.execute(f"reset role; drop owned by {role}; drop role {role}")


async def test_queries_that_fail_say_why_and_keep_no_other_from_being_judged(
    sql: asyncpg.Connection, dsn: str, windows: Callable[..., Awaitable[list[Any]]]
) -> None:
    await sql.execute(
        """
        create function writes() returns int language plpgsql as $$
        begin insert into public.stock values ('written'); return 1; end $$;
        create function sets() returns text language plpgsql as $$
        begin return set_config('transaction_read_only', 'off', false); end $$;
        create function lingers() returns int language sql as $$ select 1 from pg_advisory_lock(77) $$;
        insert into stock values ('a', 'north', 1), ('a', 'south', 2);
        """
    )
    broken = {
        "writes": ("select writes() as n", "cannot execute INSERT in a read-only transaction"),
        "sets": ("select sets() as n", "transaction read-write mode must be set before any query"),
        "for ever": ("select pg_sleep(3600)", "did not end within 0.5 s"),
        "clash": ("select sku from stock", 'two rows have the same labels: {sku="a"}'),
        "no number": ("select 'x' as value", "its column value is no number"),
        "divides": ("select 1 / (count(*) - count(*)) as n from stock", "division by zero"),
        "too long": ("select repeat('x', 1000) as label", "longer than 1000 characters"),
        "kills": ("select pg_terminate_backend(pg_backend_pid())", "failed"),
    }
    for name, (query, _reason) in broken.items():
        await set_rule(sql, name, query=query, **FAST)
    await set_rule(sql, "lingers", query="select lingers() as n", **FAST)
    await set_rule(sql, "fine", query="select sku, warehouse from stock", message="{label.nobody}", **FAST)
    await windows(1, query_seconds=0.5)
    for name, (_query, reason) in broken.items():
        state, problem = await health(sql, name)
        assert state == "error", name
        assert reason in str(problem), (name, problem)
    assert [rule for rule, _, _ in await states(sql)] == ["fine", "fine", "lingers"]
    assert "cannot be filled in" in str((await health(sql, "fine"))[1])
    assert await sql.fetchval("select pipeline.alert_rule_check('divides')") == (await health(sql, "divides"))[1]
    assert await sql.fetchval("select pipeline.alert_rule_check('lingers')") is None
    assert await sql.fetchval("select count(*) from stock") == 2

    async def left() -> bool:
        locks = await sql.fetchval("select count(*) from pg_locks where locktype = 'advisory' and objid = 77")
        sessions = "select count(*) from pg_stat_activity where application_name = 'pgreflex rule'"
        here = f"{sessions} and datname = current_database()"
        return not locks and not await sql.fetchval(here)

    await eventually(left, why="the end of all that queries left behind")
    # a window that is over cannot be looked at again, so it is not tried again, and the next one is
    async with Database(dsn) as db:
        assert await AlertJudge(db).due_rules() == []
        divides = await sql.fetchval("select id from pipeline.alert_rule where name = 'divides'")
        with pytest.raises(QueryFailed, match="division by zero"):
            await AlertJudge(db).preview(divides)
    await sql.execute("update pipeline.alert_rule set query = 'select 1 as n' where name = 'divides'")
    await windows(1, query_seconds=0.5)
    assert await health(sql, "divides") == ("ok", None)


async def test_a_failed_query_changes_nothing_of_what_fires(
    sql: asyncpg.Connection, windows: Callable[..., Awaitable[list[Any]]]
) -> None:
    await sql.execute("insert into stock values ('a', 'north', 1)")
    await set_rule(sql, "fails", query="select sku, 6 / left_over as value from stock", **{**FAST, "hold_max": 1})
    assert [one.change for one in await windows()] == ["firing"]
    before = await sql.fetchrow("select * from pipeline.alert_state")
    await sql.execute("update stock set left_over = 0")
    assert await windows(3) == []
    assert await sql.fetchrow("select * from pipeline.alert_state") == before


async def test_a_million_rows_are_cut_off_and_those_that_were_known_stay(
    sql: asyncpg.Connection, windows: Callable[..., Awaitable[list[Any]]]
) -> None:
    await sql.execute("insert into stock values ('known', 'north', 1)")
    await sql.execute("create function stock_size() returns int language sql as 'select 0'")
    await set_rule(
        sql,
        "many",
        query="select n::text as sku, 1 / (500000 - n) as detail from generate_series(1, stock_size()) n"
        " union all select sku, 0 from stock",
        max_instances=20,
        **FAST,
    )
    await set_rule(sql, "broken rule", metric="alerts.broken_rules", threshold=0, message="{detail}", **FAST)
    await windows()
    assert await states(sql) == [("many", '{sku="known"}', "firing")]
    await sql.execute("create or replace function stock_size() returns int language sql as 'select 1000000'")
    async with asyncio.timeout(20):
        await windows(2)
    found = await states(sql)
    assert len([one for one in found if one[0] == "many"]) == 20
    assert ("many", '{sku="known"}', "firing") in found, "it was among those that were cut off"
    state, problem = await health(sql, "many")
    assert (state, "more than 10000 are bad; only 20 at a time" in str(problem)) == ("error", True)
    [told] = await sql.fetch("select message, instance from pipeline.alerts() where rule = 'broken rule'")
    assert (told["message"], told["instance"]) == (problem, '{rule="many"}')
