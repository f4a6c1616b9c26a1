"""Tags that queries get by themselves, on a real database; refusals with their reasons are in
test_query_refusals.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from pipeline.core.query_plan import DDL
from pipeline.db.connection import Database
from pipeline.db.query_tags import QueryAnalyst
from tests.conftest import eventually

SHOP = """
    create table orders (id int primary key, customer_id bigint, note text, code varchar(9), at timestamptz);
    create table item (order_id int, line int, name text, price numeric, primary key (order_id, line));
    create table customer (id uuid primary key, name text, active bool);
    create table event (region text collate "C", id int, at date, primary key (region, id)) partition by list
    (region); create table event_eu partition of event for values in ('eu'); create view late as select id,
    customer_id, note from orders where at < '2024-01-01'; create view late_items as select l.id, i.line, i.name
    from late l join item i on i.order_id = l.id; create view busy as select customer_id, count(*) as n from
    orders group by customer_id; create function total(bigint) returns numeric language sql stable
        as 'select sum(price) from item where order_id = $1';
    create function newest() returns int language sql stable begin atomic select max(id) from orders; end;
    create function outer_one() returns numeric language sql stable set search_path = public
        as 'select total(newest())';
"""
TABLES = ("orders", "item", "customer", "event")


@pytest.fixture(name="shop")
async def shop_fixture(sql: asyncpg.Connection) -> asyncpg.Connection:
    await sql.execute(SHOP)
    for table in TABLES:
        await sql.execute("select pipeline.watch($1)", table)
    return sql


@pytest.fixture(name="analyst")
async def analyst_fixture(shop: asyncpg.Connection, dsn: str) -> AsyncIterator[QueryAnalyst]:
    async with Database(dsn, purpose="test") as db:
        yield QueryAnalyst(db)


UUID = "6f9619ff-8b86-d011-b42d-00cf4fc964ff"
FOUND: list[tuple[str, tuple[Any, ...], set[str]]] = [
    ("select * from orders where id = $1", (7,), {"orders:7"}),
    ("select * from orders where $1 = id;", (7,), {"orders:7"}),
    ("select * from orders where id = 7 and note = 'x' -- seven", (), {"orders:7"}),
    ("select * from orders where id = -7", (), {"orders:-7"}),
    ("select * from orders where id = any($1::bigint[])", ([1, 2, 2],), {"orders:1", "orders:2"}),
    ("select * from orders where id in (1, $1, 3)", (2,), {"orders:1", "orders:2", "orders:3"}),
    ("select * from orders where customer_id = $1", (7,), {"orders"}),
    ("select * from orders where id = $1 or note = 'x'", (7,), {"orders"}),
    ("select * from orders where not id = $1", (7,), {"orders"}),
    ("select * from orders where id = $1 + 1", (7,), {"orders"}),
    ("select * from orders where id <> any($1::int[])", ([7],), {"orders"}),
    ("select * from orders where id = all($1::int[])", ([7],), {"orders"}),
    ("select * from orders where id = $1", (None,), {"orders"}),
    ("select * from orders where id = any($1::int[])", ([],), {"orders"}),
    ("select * from orders where id = any($1::int[])", (list(range(257)),), {"orders"}),
    ("select 1 from customer where id = $1", (UUID.upper(),), {f"customer:{UUID}"}),
    (f"select 1 from customer where id = '{UUID}'", (), {f"customer:{UUID}"}),
    ("select 1 from event where region = 'eu' and id = $1", (3,), {"event:eu,3"}),
    ("select 1 from event where id = $1", (3,), {"event"}),
    ("select 1 from event_eu where region = $1 and id = $2", ("eu", 3), {"event:eu,3"}),
    ("select 1 from item where order_id = 1 and line = any($1::int[])", ([2, 3],), {"item:1,2", "item:1,3"}),
    ("select 1 from orders o join item i on i.order_id = o.id where o.id = 1", (), {"orders:1", "item"}),
    ("select 1 from orders a join orders b on a.id = b.id where a.id = 1", (), {"orders:1"}),
    ("select 1 from orders a left join orders b on a.id = b.id where a.id = $1", (1,), {"orders:1"}),
    ("select 1 from orders a left join orders b on a.id = b.id and b.id = 1", (), {"orders"}),
    ("select 1 from orders a left join orders b on a.id = b.id or true where a.id = 1", (), {"orders"}),
    ("select 1 from orders a, late b, item where a.id = b.id and line = b.id and order_id = a.id and a.id = 1", (),
     {"orders:1", "item:1,1"}),
    ("select 1 from orders a, item i where a.id = i.order_id and i.line = $1 and a.id = i.line", (4,),
     {"orders:4", "item:4,4"}),
    ("select 1 from orders o join item i on o.id = 1", (), {"orders:1", "item"}),
    ("select 1 from orders o left join item i on o.id = 1", (), {"orders", "item"}),
    ("select 1 from orders o right join item i on o.id = 1", (), {"orders:1", "item"}),
    ("select 1 from orders o full join item i on o.id = i.line and o.id = 1", (), {"orders", "item"}),
    ("select 1 from item i left join orders o on o.id = 1", (), {"orders:1", "item"}),
    ("select 1 from item i left join orders o on true where o.id = 1", (), {"orders:1", "item"}),
    ("select 1 from orders a, orders b where a.id = 1 and b.id = 2", (), {"orders:1", "orders:2"}),
    ("select 1 from orders a, orders b where a.id = 1", (), {"orders"}),
    ("select id from late where id = $1", (7,), {"orders:7"}),
    ("select * from late_items where id = $1", (7,), {"orders:7", "item"}),
    ("select n from busy where customer_id = $1", (7,), {"orders"}),
    ("select * from (select id, note from orders) o where id = 7", (), {"orders:7"}),
    ("select * from (select id, note from orders limit 1) o where id = 7", (), {"orders"}),
    ("select * from (select id, row_number() over () from orders) o where id = 7", (), {"orders"}),
    ("select * from (select id from orders union select line from item) o where id = 7", (), {"orders", "item"}),
    ("with o as (select * from orders where id = 1) select * from o, item", (), {"orders:1", "item"}),
    ("with o as (select * from orders) select * from o where id = 1", (), {"orders"}),
    ("with recursive t as (select 1 n union all select n + 1 from t, item where n = line) table t", (), {"item"}),
    ("select exists (select from orders where id = $1)", (7,), {"orders:7"}),
    ("select 1 where 1 in (select id from late)", (), {"orders"}),
    ("select (select max(line) from item where order_id = id) from orders where id = 1", (), {"orders:1", "item"}),
    ("select total(id) from orders where id = $1", (7,), {"orders:7", "item"}),
    ("select newest()", (), {"orders"}),
    ("select outer_one()", (), {"orders", "item"}),
    ("select x from generate_series(1, 3) x, lateral (select from item where line = x) i", (), {"item"}),
    ("select 1 from orders group by grouping sets ((id), (note)) order by 1 limit 3", (), {"orders"}),
    ("table item", (), {"item"}),
    ("values (1), ((select max(id) from orders))", (), {"orders"}),
    ("select 1", (), set()),
    ("select sum(id) over (order by note), string_agg(note, ',') over () from orders", (), {"orders"}),
    ("select tableoid::regclass, note::varchar, at::date, current_user from orders", (), {"orders"}),
    ("select case when active then array[name] end, row(1, coalesce(name, '')) from customer", (), {"customer"}),
    ("select json_build_object('a', o.*), to_char(at, 'Y'), at < $1::date from orders o", (None,), {"orders"}),
    ("select '1 day'::interval, extract(year from at), '{1}'::int[], date '2024-2-1' from orders", (), {"orders"}),
    ("select * from orders tablesample bernoulli (10) repeatable (1)", (), {"orders"}),
    ("select customer from customer where active = true and name ~ 'x'", (), {"customer"}),
]  # fmt: skip


async def test_a_query_gets_the_tags_of_what_it_reads(analyst: QueryAnalyst) -> None:
    found = {}
    for query, args, _tags in FOUND:
        found[query, repr(args)] = set((await analyst.tags(query, args)).tags) - {DDL}
    assert found == {(query, repr(args)): tags for query, args, tags in FOUND}


async def test_a_query_that_was_seen_costs_no_call_of_the_database(analyst: QueryAnalyst, dsn: str) -> None:
    query = "select * from orders where id = $1"
    await analyst.tags(query, (7,))
    await analyst._db.close()
    assert "orders:8" in (await analyst.tags(query, (8,))).tags


async def test_looking_at_a_query_leaves_nothing_behind(analyst: QueryAnalyst, shop: asyncpg.Connection) -> None:
    before = await shop.fetchval("select count(*) from pipeline.outbox")
    await analyst.tags("select outer_one()", ())
    left = "select count(*) from pg_proc where pronamespace::regnamespace::text ~ 'pg_temp'"
    assert await shop.fetchval(left) == 0
    assert await shop.fetchval("select count(*) from pipeline.outbox") == before


async def test_the_key_tells_roles_and_settings_apart(analyst: QueryAnalyst, dsn: str) -> None:
    async def key(**settings: str) -> object:
        async with Database(dsn, purpose="test", settings=settings) as other:
            return (await QueryAnalyst(other).tags("select 1", ())).key

    plain = await key()
    assert plain == (await analyst.tags("select 1", ())).key
    others = [
        await key(timezone="Asia/Tokyo"),
        await key(search_path="pg_catalog"),
        await key(role="pg_read_all_data"),
        await key(datestyle="German"),
    ]
    assert len({plain, *others}) == 5


async def test_a_new_connection_with_other_settings_replaces_the_older_ones_and_changes_the_key(
    analyst: QueryAnalyst, shop: asyncpg.Connection
) -> None:
    db = analyst._db
    before = await analyst.tags("select 1", ())
    async with db.acquire() as held:
        name = await shop.fetchval("select current_database()")
        await shop.execute(f"alter database \"{name}\" set timezone to 'Asia/Tokyo'")
        async with db.acquire() as fresh:
            assert await fresh.fetchval("show timezone") == "Asia/Tokyo"
        assert (await analyst.tags("select 1", ())).key != before.key
        assert await held.fetchval("show timezone") != "Asia/Tokyo"
    async with db.acquire() as one, db.acquire() as other:
        assert [await c.fetchval("show timezone") for c in (one, other)] == ["Asia/Tokyo"] * 2


async def test_a_locked_table_keeps_no_query_of_another_from_being_looked_at(
    analyst: QueryAnalyst, shop: asyncpg.Connection
) -> None:
    async with shop.transaction():
        await shop.execute("lock table orders in access exclusive mode")
        waits = asyncio.create_task(analyst.tags("select * from orders", ()))
        waits_too = asyncio.create_task(analyst.tags("select * from orders", ()))
        locked = "select count(*) from pg_locks where not granted and relation = 'orders'::regclass"
        await eventually(lambda: shop.fetchval(locked))
        async with asyncio.timeout(10):
            assert "customer" in (await analyst.tags("select * from customer", ())).tags
        assert await shop.fetchval(locked) == 1
    assert (await waits).tags == (await waits_too).tags


async def test_a_role_that_only_reads_by_default_gets_its_tags(shop: asyncpg.Connection, dsn: str) -> None:
    async with Database(dsn, settings={"default_transaction_read_only": "on"}) as db:
        found = await QueryAnalyst(db).tags("select * from orders where id = $1", (7,))
    assert "orders:7" in found.tags
