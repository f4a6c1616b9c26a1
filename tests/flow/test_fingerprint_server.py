"""Fingerprints against a real server: what is sent and what pg_stat_statements shows of it are one."""

from __future__ import annotations

import asyncpg

from pipeline.core.fingerprint import fingerprint
from pipeline.db.connection import Database
from pipeline.db.queries import Queries, QueryId

SENT = [
    "select * from orders where id = 7",
    "select * from orders where id in (1, 2, 3) and status = 'it''s'",
    "SELECT id,status FROM orders WHERE id=-1 AND total>-.5e1 -- why\n limit 3",
    "select * from orders where id = any (array[1, 2]) and status <> all ('{a,b}')",
    "select id - 1, id -2, - id, 3 from orders where status = $$a$$ or status = E'\\'' and b'1' = B'0'",
    "insert into orders values (1, 'a', 1.5), (2, null, 2), (3, 'c', -3)",
    "insert into orders (id, status) values (4, 'x') on conflict do nothing returning id",
    "update orders set status = 'y', total = total * 1.1 where id between 1 and 3",
    "delete from orders where id in (select n from generate_series(100, 200) n)",
    "with x as (select 1 as a) select a::text, cast(a as numeric(10, 2)) from x where a is not null and true",
    'select "Odd", o."id", "status" from (select 1 as "Odd") z, "orders" o where status like \'%s\'',
    "select case when id > 1 then 'a' else 'b' end, interval '1 day', date '2026-01-01' from orders",
    "select 0x1F, 1_000, status ~ 'a', array[[1, 2], [3, 4]], row(1, 'a') from orders",
    "begin",
    "savepoint a_1",
    "rollback to savepoint a_1",
    "set work_mem = '5MB'",
    "commit",
]


async def test_what_is_sent_and_what_the_server_shows_of_it_have_one_fingerprint(
    sql: asyncpg.Connection, db: Database, pg_stat_statements: None
) -> None:
    await sql.execute("create table orders (id int, status text, total numeric)")
    for text in SENT:
        await sql.execute(text)
    for id_ in (5, 6):
        await sql.fetch("select total from orders where id = $1 and status in ($2, 'b')", id_, "c")
    rows = await sql.fetch(
        "select s.dbid, s.userid, s.queryid, s.toplevel, s.query from pg_stat_statements s"
        " join pg_database d on d.oid = s.dbid and d.datname = current_database()"
    )
    shown = {fingerprint(row["query"]).hex: row["query"] for row in rows}
    sent = [*SENT, "select total from orders where id = 1 and status in ('x', 'y', 'z')"]
    assert [text for text in sent if fingerprint(text).hex not in shown] == []
    linked = await Queries(db).link({QueryId(*row[:4]): row["query"] for row in rows})
    assert {one.kind for one in linked.values()} == {"ok"}
    assert set((await Queries(db).known_ids()).values()) == set(shown)
