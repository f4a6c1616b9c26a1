"""Queries by fingerprint in the database: remembered once, linked to pg_stat_statements, moved to newer rules."""

from __future__ import annotations

import asyncio

import asyncpg

from handlers.queries import QueryKeeper
from pipeline.core.fingerprint import FINGERPRINT_VERSION, Fingerprint, fingerprint
from pipeline.db.connection import Database
from pipeline.db.queries import Queries, QueryId
from tests.conftest import eventually

ROWS = "select fingerprint, version, kind, text, moved_to from pipeline.query order by text"


async def test_queries_are_remembered_linked_and_moved(db: Database) -> None:
    queries = Queries(db)
    async with db.acquire() as sql:
        one, cut = fingerprint("select * from orders where id = 7"), fingerprint("select 'a")
        await queries.remember([one, cut, one])
        await queries.remember([one])
        assert {tuple(row) for row in await sql.fetch(ROWS)} == {
            (found.hex, FINGERPRINT_VERSION, found.kind, found.text, None) for found in (one, cut)
        }

        first = QueryId(1, 2, -3, True)
        hidden = QueryId(1, 2, 4, False)
        found = await queries.link(
            {first: "select * from orders where id = $1", hidden: "<insufficient privilege>"}
        )
        assert found[first] == one
        assert found[hidden].kind == "unparsable"
        assert await queries.known_ids() == {first: one.hex}, "a hidden text leaves room for the real one"
        await queries.link({hidden: "commit"})
        assert await queries.known_ids() == {first: one.hex, hidden: fingerprint("commit").hex}

        # what older rules made
        old = Fingerprint(0, "0" * 16, "select * from orders where id = $1", "ok")
        older = "1" * 16
        await sql.execute("delete from pipeline.query where fingerprint = $1", one.hex)
        await sql.executemany(
            "insert into pipeline.query values ($1, 0, $2, $3, $4, now(), now())",
            [
                (old.hex, "ok", old.text, None),
                (older, "ok", "an even older text", old.hex),
                ("2" * 16, "truncated", "select $1 ...", None),
                ("3" * 16, "ok", "select a, b, ...", None),
            ],
        )
        await sql.execute("update pipeline.query_id set fingerprint = $1 where queryid = -3", old.hex)
        follower, leads = QueryKeeper(queries, leading=lambda: False), QueryKeeper(queries)
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(keeper.run()) for keeper in (follower, leads)]
            await eventually(lambda: leads._due > 0)
            for keeper in (follower, leads):
                assert keeper.healthy().ok
                await keeper.stop()
        assert all(task.done() for task in running)
        assert follower._due == 0, "one that does not lead leaves it to the leader"
        now = {row["fingerprint"]: row["moved_to"] for row in await sql.fetch(ROWS)}
        assert now[old.hex] == now[older] == one.hex
        assert now[one.hex] is None
        assert now["2" * 16] is now["3" * 16] is None, "a text without its end keeps its key"
        assert (await queries.known_ids())[first] == one.hex
        assert await sql.fetchval("select pipeline.fingerprint_now($1)", old.hex) == one.hex
        assert await sql.fetchval("select pipeline.fingerprint_now('unheard')") == "unheard"
        assert await queries.move() == 0

        assert await queries.prune() == 0
        await sql.execute("update pipeline.query set last_at = now() - interval '2 years' where version = 0")
        await sql.execute("update pipeline.query_id set seen_at = now() - interval '2 years' where queryid = -3")
        assert await queries.prune() == 1
        assert set(await queries.known_ids()) == {hidden}


async def test_plans_of_queries_that_nobody_wrote_down_go_after_a_day(dsn: str, sql: asyncpg.Connection) -> None:
    kept = fingerprint("select 1 from orders")
    async with Database(dsn) as database:
        queries = Queries(database)
        await queries.remember([kept])
        for name in (kept.hex, "forged"):
            await sql.execute("select pipeline.claim_plan($1)", name)
            await sql.execute("select pipeline.save_plan($1, 'shape', 'Result', 'generic', '{}', '{}', 1)", name)
        await queries.prune()
        assert await sql.fetchval("select count(*) from pipeline.plan") == 2
        await sql.execute("update pipeline.plan set last_at = now() - interval '25 hours'")
        await sql.execute("update pipeline.plan_turn set at = now() - interval '25 hours'")
        await queries.prune()
        for table in ("plan", "plan_turn"):
            assert [row[0] for row in await sql.fetch(f"select fingerprint from pipeline.{table}")] == [kept.hex]
