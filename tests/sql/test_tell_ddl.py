"""DDL that may change what a query means is told: at its commit, or by the periodic check."""

from __future__ import annotations

import asyncpg
import pytest

from pipeline.core.query_plan import DDL

SHOP = """
    create table orders (id int primary key, total int);
    create table item (id int, kind int);
    create view big as select id from orders where total > 9;
    create type kind as enum ('a', 'b');
    create function f() returns int language sql stable as 'select 1';
    create schema shop;
    select pipeline.watch('orders');
"""
MATTERS = [
    "create or replace view big as select id from orders where total > 99",
    "create or replace function f() returns int language sql stable as 'select 2'",
    "create function shop.f() returns int language sql as 'select 3'",
    "alter table orders rename column total to sum",
    "alter table orders add column note text",
    "alter table orders enable row level security",
    "alter type kind add value 'c'",
    "create table shop.orders (id int)",
    "alter table item rename to thing",
    "drop table thing",
    "drop view big",
    "drop function f()",
    "grant select on orders to pg_monitor",
    "create operator === (leftarg = int, rightarg = int, function = int4eq)",
    "alter schema shop rename to store",
]
DOES_NOT = [
    "create index on item (kind)",
    "comment on table item is 'things'",
    "create temp table mine as select * from orders",
    "drop table mine",
    "create temp view several as select 1 as n",
    "create statistics s on id, kind from item",
    "analyze item",
    "vacuum item",
    "insert into item values (1, 1)",
    "select pipeline.watch('item', keys => '{id}')",
    "drop index item_kind_idx",
]


async def told(sql: asyncpg.Connection) -> int:
    """How often it was told since the last look."""
    rows = await sql.fetch("select name from pipeline.outbox")
    await sql.execute("delete from pipeline.outbox_0")
    return sum(row["name"] == DDL for row in rows)


@pytest.fixture(name="shop")
async def shop_fixture(sql: asyncpg.Connection) -> asyncpg.Connection:
    await sql.execute(SHOP)
    await told(sql)
    return sql


async def test_ddl_that_may_change_a_result_is_told_at_its_commit(shop: asyncpg.Connection) -> None:
    quiet = []
    for statement in MATTERS:
        await shop.execute(statement)
        if not await told(shop):
            quiet.append(statement)
    assert quiet == []


async def test_ddl_that_changes_no_result_is_not_told(shop: asyncpg.Connection) -> None:
    loud = []
    for statement in DOES_NOT:
        await shop.execute(statement)
        if await told(shop):
            loud.append(statement)
    assert loud == []


async def test_it_is_told_in_sessions_that_fire_no_ordinary_triggers(shop: asyncpg.Connection) -> None:
    await shop.execute("set session_replication_role = replica")
    await shop.execute(MATTERS[0])
    assert await told(shop) == 1


@pytest.fixture(name="without")
async def without_fixture(sql: asyncpg.Connection) -> asyncpg.Connection:
    """A database whose installer could not make event triggers."""
    await sql.execute("drop event trigger pgreflex_tell; drop event trigger pgreflex_tell_drop")
    await sql.execute(SHOP)
    await told(sql)
    return sql


async def test_without_event_triggers_the_check_finds_what_matters(without: asyncpg.Connection) -> None:
    quiet = []
    for statement in MATTERS:
        await without.execute(statement)
        await without.execute("select pipeline.check_watches()")
        if not await told(without):
            quiet.append(statement)
        await without.execute("select pipeline.check_watches()")
        if await told(without):
            quiet.append(f"again after {statement}")
    assert quiet == []


async def test_without_event_triggers_the_check_is_not_misled_by_what_does_not_matter(
    without: asyncpg.Connection,
) -> None:
    loud = []
    for statement in DOES_NOT:
        if "pipeline.watch" in statement:
            continue  # one more watched table is one more whose columns are compared
        await without.execute(statement)
        await without.execute("select pipeline.check_watches()")
        if await told(without):
            loud.append(statement)
    assert loud == []
