"""A statement that names an index uses it, in the session that sends it, however full the tables are."""

from __future__ import annotations

import asyncpg
import pytest

from pipeline.db.feed import FollowerSession, LeaderSession
from pipeline.db.statements import statements
from tests.plan.test_alert_view_plans import VIEWS
from tests.statements_kit import named_indexes, plan_of

GENERIC = {"plan_cache_mode": "force_generic_plan"}
CUSTOM = {"plan_cache_mode": "force_custom_plan"}
POOL: dict[str, str] = {}
ROWS = 20_000
FILL = f"""
insert into pipeline.outbox_0 (xid, id, op, rows, at)
    select n::text::xid8, n, 'i', 1, now() from generate_series(1, {ROWS}) n;
insert into pipeline.outbox_1 select (xid::text::bigint + {ROWS})::text::xid8, id, watch, op, keys, rows, ms, at
    from pipeline.outbox_0;
insert into pipeline.outbox_durable select * from pipeline.outbox_0;
insert into pipeline.ring_0 select n, pipeline.lineage(), '1:1:', 'x' from generate_series(1, {ROWS}) n;
insert into pipeline.ring_1 select seq + {ROWS}, lineage, position, payload from pipeline.ring_0;
select pipeline.take_over();
"""
STATES = {
    "never analyzed": FILL,
    "analyzed": f"{FILL} analyze",
    "analyzed while they were empty": f"analyze; {FILL}",
}
BIG = {"outbox_0", "outbox_1", "outbox_durable", "ring_0", "ring_1"}
# Who sends a statement, and arguments as they are when the feed has come far.
READ = f"'{ROWS}:{ROWS}:', null, '0', 0, 500"
FORGET = f"'{ROWS + 500}:{ROWS + 500}:', '{ROWS}'"
SENDERS = {
    "feed/read": [(LeaderSession.settings, READ)],
    "feed/replay": [(FollowerSession.settings, str(2 * ROWS - 100)), (POOL, str(2 * ROWS - 100))],
    "feed/standing": [(LeaderSession.settings, ""), (FollowerSession.settings, "")],
    "feed/forget_durable": [(POOL, FORGET)],
    "feed/durable": [(POOL, f"'{ROWS - 100}', 0, 500")],
}


def sessions(name: str) -> list[tuple[dict[str, str], str]]:
    """Settings and arguments under which a statement is planned: where its session leaves the choice between a
    generic plan and one for the arguments to the server, both."""
    found = []
    for settings, arguments in SENDERS[name]:
        modes = [{}] if "plan_cache_mode" in settings else [GENERIC, CUSTOM]
        found += [(settings | mode, arguments) for mode in modes]
    return found


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", SENDERS)
async def test_a_statement_uses_the_indexes_that_it_names(
    sql: asyncpg.Connection, dsn: str, name: str, state: str
) -> None:
    await sql.execute(STATES[state])
    for settings, arguments in sessions(name):
        connection = await asyncpg.connect(dsn, server_settings=settings)
        try:
            plan = await plan_of(connection, name, arguments)
        finally:
            await connection.close()
        used = {node["Index Name"] for node in plan if "Index Name" in node}
        read = {node["Relation Name"] for node in plan if node["Node Type"] == "Seq Scan"}
        assert named_indexes(name) <= used, settings
        assert read & BIG == set(), settings


def test_every_statement_that_names_an_index_is_planned_by_a_test() -> None:
    named = {name for name in statements() if named_indexes(name)}
    # those of the queue have tests of their own, which take every state of its tables
    assert {name for name in named if not name.startswith("jobs/")} == {*SENDERS, *VIEWS}


async def test_every_index_that_a_statement_names_exists(sql: asyncpg.Connection) -> None:
    wanted = {index for name in statements() for index in named_indexes(name)}
    rows = await sql.fetch(
        "select relname from pg_class where relkind in ('i', 'I') and relnamespace = 'pipeline'::regnamespace"
    )
    assert wanted - {row["relname"] for row in rows} == set()
