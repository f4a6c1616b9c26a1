"""EXPLAIN ANALYZE, where it is switched on: what only reads is measured, and nothing else is ever run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from handlers.plans import PlanCatcher
from pipeline.core.fingerprint import fingerprint
from pipeline.core.plan_text import plan_text
from pipeline.db.connection import Database
from pipeline.db.explain import Explainer, PlanFailed
from pipeline.db.measure import measure
from pipeline.db.plans import PlanStore
from tests.conftest import eventually
from tests.flow.test_plans import SHOP, catching, explainer

# each would do something if it ran, or reads what is not a table of this database
ESCAPES = {
    "select 1; commit; delete from orders": "more than one",
    "select 1 /* ; */; delete from orders": "more than one",
    "/* select */ delete from orders": "writes",
    "delete from orders": "writes",
    "insert into orders (id) values (0)": "writes",
    "with gone as (delete from orders returning *) select * from gone": "writes",
    "with a as (select 1), gone as (update orders set status = 'x' returning 1) select * from a": "writes",
    "select * from orders for update": "locks rows",
    "select * into stolen from orders": "INTO",
    "create table stolen as select * from orders": "no plan",
    "select nextval('tickets')": "volatile",
    "select id from orders where id < nextval('tickets')": "volatile",
    "select pg_advisory_lock(7)": "volatile",
    "select pg_try_advisory_lock_shared(7)": "volatile",
    "select * from pg_sleep(60)": "volatile",
    "select 1 where exists (select from pg_sleep(60))": "volatile",
    "select set_config('role', 'postgres', false)": "volatile",
    "select pg_terminate_backend(1)": "volatile",
    "select pg_notify('a', 'b')": "volatile",
    "select lo_import('/etc/passwd')": "volatile",
    "select pg_read_file('/etc/passwd')": "volatile",
    "select query_to_xml('delete from orders', true, true, '')": "volatile",
    "select dblink_exec('host=/tmp', 'delete from orders')": "volatile",
    "select ticket from sneaky": "volatile",
    "select reads()": "volatile",
    "select * from orders where id === 1": "volatile",
    "select id::drawing from orders": "domain",
    "select now()": "clock",
    "select * from pg_class": "system catalog",
    "select last_value from tickets": "sequence",
    "select * from far": "foreign table",
    "select * from guarded": "row security",
    "lock table orders": "no plan",
    "copy orders to program 'true'": "no plan",
    "do $$ begin delete from orders; end $$": "no plan",
    "explain analyze delete from orders": "no plan",
    "set role postgres": "no plan",
    "commit": "no plan",
    "select '": "truncated",
}
TRAPS = """
create view sneaky as select nextval('tickets') as ticket;
create function reads() returns bigint language sql stable as $$ select nextval('tickets') $$;
create function same(int, int) returns bool language sql volatile as $$ select nextval('tickets') > 0 $$;
create operator === (function = same, leftarg = int, rightarg = int);
create function draw() returns bool language sql volatile as $$ select nextval('tickets') > 0 $$;
create domain drawing as int check (draw());
create function dblink_exec(text, text) returns text language sql as $$ select 'done' $$;
create foreign data wrapper w; create server far_server foreign data wrapper w;
create foreign table far (id int) server far_server;
create table guarded (id int); alter table guarded enable row level security;
"""


@asynccontextmanager
async def application(sql: asyncpg.Connection, dsn: str) -> AsyncIterator[str]:
    """The address for a role that may do all with the tables and is no superuser."""
    number = await sql.fetchval("select oid from pg_database where datname = current_database()")
    name = f"measured_app_{number}"
    await sql.execute(
        f"create role {name} login; grant usage on schema pipeline to {name};"
        f"grant all on all tables in schema public to {name};"
        f"grant all on all sequences in schema public to {name};"
        f"alter table orders owner to {name}; alter view sneaky owner to {name}"
    )
    try:
        yield dsn.replace("//postgres@", f"//{name}@")
    finally:
        await sql.execute(f"drop owned by {name} cascade; drop role {name}")


async def test_only_what_reads_tables_is_run_and_what_it_read_is_told(sql: asyncpg.Connection, dsn: str) -> None:
    await sql.execute(SHOP + TRAPS)

    async def refused(asks: Explainer, text: str, args: list[Any] | None = None) -> str:
        with pytest.raises(PlanFailed) as caught:
            await measure(asks, text, args)
        return str(caught.value)

    async with explainer(dsn) as powerful:
        assert "superuser" in await refused(powerful, "select * from orders")

    async with application(sql, dsn) as app, explainer(app) as asks:
        reasons = {text: await refused(asks, text) for text in ESCAPES}
        wrong = {text: why for text, why in reasons.items() if ESCAPES[text] not in why}
        assert wrong == {}
        assert not await sql.fetchval("select is_called from tickets"), "no ticket was drawn"
        assert await sql.fetchval("select count(*) from orders") == 5000
        assert await sql.fetchval("select to_regclass('stolen')") is None
        assert await sql.fetchval("select count(*) from pg_locks where locktype = 'advisory' and objid = 7") == 0

        text = "select count(*) from orders o join items i on i.order_id = o.id where tenant = $1 and total > $2"
        assert await refused(asks, text) == "its arguments are not at hand"
        assert await refused(asks, text, ["t1"]) == "its arguments are not at hand"
        assert "secret" not in await refused(asks, text, ["t1", "secret"])
        found = await measure(asks, text, ["t1' or true --", 4000])
        lines = plan_text(found.plan)
        assert found.kind == "analyzed"
        assert "(tenant = $1)" in lines
        assert "t1" not in lines
        assert "(actual time=" in lines
        assert "rows=0.00" in lines, "the argument was one, whatever is in it"
        found = await measure(asks, text, ["t1", 4000])
        assert "rows=1.00 loops=1" in plan_text(found.plan).splitlines()[0]
        async with sql.transaction():
            await sql.execute("lock table items")
            assert "100 ms" in await refused(asks, text, ["t1", 4000])
        slow = "select count(*) from orders a, orders b, orders c where a.id + b.id + c.id = 0"
        assert "longer than 2 s" in await refused(asks, slow)
        await eventually(lambda: _none_left(sql), why="every connection to be closed")

        # the catcher takes the plain plan where the measured one must not be had
        async with Database(app) as db, catching(db, app, analyze=True) as catcher:
            query, forbidden = fingerprint(text), fingerprint("select nextval('tickets')")
            catcher.seen(text, query, 1000.0, args=["t1", 4000])
            catcher.seen("select nextval('tickets')", forbidden, 1000.0, args=[])
            await eventually(lambda: catcher.planned_total == 2)
        async with Database(dsn) as all_of_it:
            store = PlanStore(all_of_it)
            [measured] = await store.plans(query.hex)
            [plain] = await store.plans(forbidden.hex)
        assert (measured.kind, plain.kind) == ("analyzed", "generic")
        assert not await sql.fetchval("select is_called from tickets")


async def _none_left(sql: asyncpg.Connection) -> bool:
    return not await sql.fetchval(
        "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    )


async def test_arguments_are_kept_only_where_plans_are_measured(db: Database, dsn: str) -> None:
    for analyze in (False, True):
        catcher = PlanCatcher(PlanStore(db), Explainer(dsn), analyze=analyze)
        catcher.seen("select $1", fingerprint("select $1"), 1000.0, args=["secret"])
        assert ("secret" in repr(catcher._waiting)) is analyze
