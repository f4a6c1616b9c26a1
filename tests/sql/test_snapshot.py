"""Our reading of a position is Postgres's own."""

from __future__ import annotations

import random

import asyncpg

from pipeline.core.snapshot import Snapshot


async def test_a_position_sees_what_postgres_says_it_sees(sql: asyncpg.Connection) -> None:
    rng = random.Random(20)
    texts = []
    for _ in range(300):
        xmax = rng.randint(3, 40)
        running = sorted(rng.sample(range(3, xmax), rng.randint(0, min(6, xmax - 3))))
        xmin = running[0] if running else xmax
        texts.append(f"{xmin}:{xmax}:{','.join(map(str, running))}")
    rows = await sql.fetch(
        "select s, x, pg_visible_in_snapshot(x::text::xid8, s::pg_snapshot) as seen"
        " from unnest($1::text[]) s, generate_series(1, 45) x",
        texts,
    )
    assert len(rows) == 300 * 45
    assert {row["seen"] for row in rows} == {True, False}
    wrong = [row for row in rows if Snapshot.parse(row["s"]).sees(row["x"]) != row["seen"]]
    assert wrong == []


async def test_a_position_with_transactions_in_progress_is_read(sql: asyncpg.Connection, dsn: str) -> None:
    writer = await asyncpg.connect(dsn)
    try:
        before = Snapshot.parse(await sql.fetchval("select pg_current_snapshot()::text"))
        transaction = writer.transaction()
        await transaction.start()
        xid = int(await writer.fetchval("select pg_current_xact_id()::text"))
        await sql.execute("create table t (n int)")  # one that begins later and ends earlier
        during = Snapshot.parse(await sql.fetchval("select pg_current_snapshot()::text"))
        await transaction.commit()
        after = Snapshot.parse(await sql.fetchval("select pg_current_snapshot()::text"))
    finally:
        await writer.close()
    assert xid in during.xip
    assert [before.sees(xid), during.sees(xid), after.sees(xid)] == [False, False, True]
    assert during.covers(before)
    assert after.covers(during)
    assert not during.covers(after)
    assert not before.covers(after)
