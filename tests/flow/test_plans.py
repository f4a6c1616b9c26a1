"""Plans of slow queries: had from a real server, without running anything and without anybody's values."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

import pipeline
from handlers.plans import PlanCatcher
from pipeline.core.fingerprint import fingerprint
from pipeline.core.plan import shape
from pipeline.core.plan_query import NotPlanned, Planned, planned
from pipeline.core.plan_text import plan_text
from pipeline.db.connection import Database
from pipeline.db.explain import Explainer, PlanFailed
from pipeline.db.plans import PlanStore
from tests.conftest import eventually

SHOP = """
create table orders (id int primary key, tenant text, status text, total numeric(10, 2),
    at timestamptz default now());
create table items (order_id int references orders, n int, what text, primary key (order_id, n));
create sequence tickets;
insert into orders (id, tenant, status, total) select i, 't' || i % 10, 'done', i from generate_series(1, 5000) i;
insert into items select i, n, 'w' from generate_series(1, 5000) i, generate_series(1, 2) n;
create index orders_tenant on orders (tenant);
create function only_reads() returns int language plpgsql immutable as $$ begin
    if current_setting('transaction_read_only') = 'off' then raise 'it may write'; end if;
    return 7;
end $$;
analyze;
"""
READS = [
    "select * from orders where id = 7",
    "select * from orders o join items i on i.order_id = o.id where o.tenant = 't1' and total > 12.5 limit 10",
    "select status, count(*) from orders group by status order by 2 desc",
    "select * from orders where tenant = 't1' or id in (1, 2, 3)",
    "select *, row_number() over (partition by tenant order by id) from orders where exists"
    " (select from items where order_id = orders.id) and id = (select max(id) from orders where total > 3)",
    "with x as materialized (select * from items) select * from x a join x b using (order_id)",
    "select * from generate_series(1, 5) g left join orders on id = g union select 1, 2, 'a', 'b', 3, now()",
    "select * from (values (1), (2)) v (a) where a not in (select n from items)",
    "insert into orders (id) values (1), (2) on conflict do nothing",
    "update orders set status = 'x' where id in (1, 2, 3)",
    "delete from orders where at < now() - interval '1 day'",
    "select distinct tenant from orders order by tenant desc limit 3",
    "select grouping(a.tenant), count(*) from orders a group by rollup (a.tenant)",
    "select * from orders order by id desc limit 1 for update",
]


@asynccontextmanager
async def explainer(dsn: str) -> AsyncIterator[Explainer]:
    made = Explainer(dsn)
    try:
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def catching(db: Database, dsn: str, **options: Any) -> AsyncIterator[PlanCatcher]:
    catcher = PlanCatcher(PlanStore(db), Explainer(dsn), **options)
    await catcher.start()
    running = asyncio.create_task(catcher.run())
    try:
        yield catcher
    finally:
        await catcher.stop()
        await running


async def test_the_text_of_a_plan_is_that_of_the_server(sql: asyncpg.Connection) -> None:
    await sql.execute(SHOP)
    for query in READS:
        told = json.loads(await sql.fetchval(f"explain (format json, costs on) {query}"))
        wanted = [row[0] for row in await sql.fetch(f"explain (costs on) {query}")]
        assert plan_text(told[0]["Plan"]).splitlines() == wanted
    for query in READS[:8]:
        told = json.loads(await sql.fetchval(f"explain (analyze, format json, timing off, buffers off) {query}"))
        wanted = [row[0] for row in await sql.fetch(f"explain (analyze, timing off, buffers off) {query}")]
        assert plan_text(told[0]["Plan"]).splitlines() == wanted[:-2], "but for the two lines of times"


async def test_the_generic_plan_is_had_without_values_and_without_running_anything(
    sql: asyncpg.Connection, dsn: str
) -> None:
    await sql.execute(SHOP)

    async with explainer(dsn) as asks:

        async def plan(text: str) -> str:
            wanted = planned(text)
            assert isinstance(wanted, Planned), wanted
            return plan_text((await asks.explain(wanted)).plan)

        async def failure(text: str) -> str:
            with pytest.raises(PlanFailed) as caught:
                await plan(text)
            return str(caught.value)

        by_key = await plan("select * from orders where id = $1")
        assert "Index Scan using orders_pkey" in by_key
        assert "(id = $1)" in by_key, "the plan for null would be a filter that is always false"
        assert await plan("select * from orders where id = 7") == by_key
        assert "One-Time" not in await plan("select * from orders where tenant = $1 and status = $2 and id > $3")
        assert "(tenant = $1)" in await plan("select * from orders where tenant = %s")
        # a literal that cannot be a parameter is none in the plan either
        kept = await plan("select * from orders where at > timestamptz(3) '2026-01-01' and status = $1")
        assert "2026" not in kept
        for query in READS:
            text = await plan(query)
            assert "> 12.5" not in text
            assert "'" not in text
        assert "Delete on items" in await plan("with x as (delete from items returning *) select * from x")
        await plan("select nextval('tickets'), pg_advisory_lock(7), pg_sleep(60)")
        await plan("select * into stolen from orders")
        assert "orders_pkey" in await plan("select * from orders where id = only_reads()"), "run by the planner"

        assert await failure("select * from missing") == 'relation "missing" does not exist (SQLSTATE 42P01)'
        assert "secret" not in await failure("select 'secret'::int, frm")
        assert "SQLSTATE 42601" in await failure("select from where 'secret'")
        assert "could not determine" in await failure("select $1 is null")
        assert await failure("select 1 / 0 from orders where $1 = 1") == (
            "Postgres cannot prepare it: DivisionByZeroError (SQLSTATE 22012)"
        )
        async with sql.transaction():
            await sql.execute("lock table orders")
            assert await failure(READS[0]) == "a lock was not free within 100 ms"
        assert "orders_pkey" in await plan(READS[0]), "the connection is as good as before"

    assert await sql.fetchval("select last_value from tickets") == 1
    assert not await sql.fetchval("select is_called from tickets")
    assert await sql.fetchval("select count(*) from orders") == 5000
    assert await sql.fetchval("select to_regclass('stolen')") is None
    assert await sql.fetchval("select count(*) from pg_locks where locktype = 'advisory' and objid = 7") == 0


async def test_a_plan_that_is_nested_too_deeply_is_a_reason(dsn: str) -> None:
    text = f"{'select * from (' * 520}select 1 as a limit 1{') as x limit 1' * 520}"
    wanted = planned(text)
    assert isinstance(wanted, Planned)
    async with explainer(dsn) as asked:
        with pytest.raises(PlanFailed, match="nested too deeply"):
            await asked.explain(wanted)


async def test_a_parameter_that_chooses_partitions_does_not_hide_the_plan(
    sql: asyncpg.Connection, dsn: str
) -> None:
    await sql.execute(
        "create table days (id int, day date, v text, primary key (id, day)) partition by range (day);"
        "create table days_1 partition of days for values from ('2026-01-01') to ('2026-02-01');"
        "create table days_2 partition of days for values from ('2026-02-01') to ('2026-03-01');"
        "insert into days select i, date '2026-01-01' + i % 50, 'x' from generate_series(1, 9000) i; analyze"
    )
    query = planned("select * from days where day = $1 and id = $2")
    constant = planned("select * from days where day = '2026-02-03' and id = $1")
    assert isinstance(query, Planned)
    assert isinstance(constant, Planned)
    async with explainer(dsn) as asks:
        one = await asks.explain(query)
        text = plan_text(one.plan, one.settings)
        assert "Index Scan using days_1_pkey on days_1" in text
        assert "Plans Alike: 2, of other partitions" in text
        assert "days_2" not in text
        assert "pruning" not in text
        await sql.execute(
            "create table days_0 partition of days for values from ('2025-12-01') to ('2026-01-01');"
            "insert into days select i, date '2025-12-01' + i % 31, 'x' from generate_series(1, 6000) i; analyze"
        )
        assert shape((await asks.explain(query)).plan) == shape(one.plan), "another partition is no other plan"
        assert "days_2_pkey on days_2" in plan_text((await asks.explain(constant)).plan)


async def test_one_process_gets_a_plan_an_hour_and_a_change_is_noticed(
    sql: asyncpg.Connection, db: Database, dsn: str
) -> None:
    await sql.execute(SHOP)
    store = PlanStore(db)
    text = "select * from orders where tenant = $1"
    query = fingerprint(text)
    now = 0.0

    def hours_pass() -> None:
        nonlocal now
        now += 3_601

    async def outcome(hex_: str) -> str:
        turn = await store.turn(hex_)
        return "" if turn is None else turn.outcome

    options: dict[str, Any] = {"clock": lambda: now}
    async with catching(db, dsn, **options) as one, catching(db, dsn, **options) as two:
        for catcher in (one, two, one, two):
            catcher.seen(text, query, 1500.0)
        await eventually(lambda: not one._waiting and not two._waiting)
        await eventually(lambda: one.planned_total + two.planned_total == 1)
        [first] = await store.plans(query.hex)
        assert first.times == 1
        assert "orders_tenant" in first.text
        assert first.slowest_ms == 1500

        # an hour later: the same plan, then another one, then the first again
        async def again(ms: float) -> None:
            before = one.planned_total
            hours_pass()
            await sql.execute("update pipeline.plan_turn set at = at - interval '61 minutes'")
            one.seen(text, query, ms)
            await eventually(lambda: one.planned_total == before + 1)

        await again(2500.0)
        [same] = await store.plans(query.hex)
        assert (same.times, same.slowest_ms, same.first_at) == (2, 2500.0, first.first_at)
        await sql.execute("drop index orders_tenant")
        await again(900.0)
        await sql.execute("create index orders_tenant on orders (tenant)")
        await again(900.0)
        found = await store.plans(query.hex)
        assert [plan.summary.partition(" ")[0] for plan in found] == ["Bitmap", "Seq", "Bitmap"]
        assert found[0].shape == first.shape != found[1].shape

        # what cannot be had is written down
        one.seen("create table x ()", fingerprint("create table x ()"), 5000.0)
        one.seen("select * from missing", fingerprint("select * from missing"), 5000.0)
        one.seen("select 1; commit; delete from orders", fingerprint("select 2"), 5000.0)
        await eventually(lambda: one.refused_total == 3)
        turn = await store.turn(fingerprint("create table x ()").hex)
        assert turn is not None
        assert (turn.outcome, turn.reason) == ("refused", "create has no plan")
        assert await outcome(fingerprint("select * from missing").hex) == "failed"
        assert await outcome(fingerprint("select 2").hex) == "refused"
    assert await sql.fetchval("select count(*) from orders") == 5000


async def test_a_slow_query_of_an_instrumented_pool_gets_its_plan(sql: asyncpg.Connection, dsn: str) -> None:
    await sql.execute(SHOP)
    text = "select count(*) from orders where tenant = $1"
    async with (
        pipeline.connect(dsn, slow_ms=1e-6, pump=False) as client,
        asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool,
    ):
        pipeline.instrument(pool)
        assert await pool.fetchval(text, "t1") == 500
        store = PlanStore(client.database)
        [found] = await eventually(lambda: store.plans(fingerprint(text).hex))
    assert "(tenant = $1)" in found.text


async def test_a_catcher_is_bounded_in_what_it_keeps_and_asks(db: Database, dsn: str) -> None:
    now = 0.0
    catcher = PlanCatcher(PlanStore(db), Explainer(dsn), per_minute=2, clock=lambda: now)
    for number in range(150):
        catcher.seen(f"select a{number}", fingerprint(f"select a{number}"), 1000.0)
        catcher.seen(f"select a{number}", fingerprint(f"select a{number}"), 1000.0)
    assert len(catcher._waiting) == 100
    assert catcher.dropped_total == 100, "fifty queries, twice each"
    catcher.seen("select b", None, 1.0)  # type: ignore[arg-type]
    assert catcher.dropped_total == 101
    running = asyncio.create_task(catcher.run())
    await eventually(lambda: catcher.refused_total == 2)
    assert len(catcher._waiting) == 98
    now = 61.0
    await eventually(lambda: catcher.refused_total == 4)
    await catcher.stop()
    await running
    silent = PlanCatcher(PlanStore(db), Explainer(dsn), per_minute=0)
    silent.seen("select a", fingerprint("select a"), 1000.0)
    assert not silent._waiting


async def test_a_role_with_usage_alone_writes_plans_and_gets_them_with_its_own_rights(
    sql: asyncpg.Connection, dsn: str
) -> None:
    await sql.execute(SHOP)
    name = f"plans_app_{await sql.fetchval('select oid from pg_database where datname = current_database()')}"
    await sql.execute(
        f"create role {name} login; grant usage on schema pipeline to {name}; grant select on orders to {name};"
        f"alter role {name} set search_path = nowhere, public"
    )
    try:
        app = _as(dsn, name)
        async with Database(app) as db, catching(db, app) as catcher:
            for text in ("select * from orders where id = $1", "select * from items", "delete from orders"):
                catcher.seen(text, fingerprint(text), 1000.0)
            await eventually(lambda: catcher.planned_total + catcher.refused_total == 3)
            assert catcher.planned_total == 1
        rows = await sql.fetch("select outcome, reason from pipeline.plan_turn order by reason")
        assert [tuple(row) for row in rows] == [
            ("planned", ""),
            ("failed", "permission denied for table items (SQLSTATE 42501)"),
            ("failed", "permission denied for table orders (SQLSTATE 42501)"),
        ]
        assert "search_path" in await sql.fetchval("select settings::text from pipeline.plan")
    finally:
        await sql.execute(f"drop owned by {name}; drop role {name}")


def _as(dsn: str, role: str) -> str:
    return dsn.replace("//postgres@", f"//{role}@")


async def test_no_plan_is_asked_for_what_is_not_planned() -> None:
    assert isinstance(planned("vacuum orders"), NotPlanned)
