"""What the windows hold of statements is what pg_stat_statements counted, or less, and then they say so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from pipeline.core.statement_delta import Store
from pipeline.db import statement_counts
from pipeline.db.connection import Connection, Database
from pipeline.db.migrate import migrate
from pipeline.db.statement_counts import Look, StatementCounts
from pipeline.embedded import EmbeddedServer
from pipeline.errors import PgreflexError
from tests.conftest import eventually
from tests.flow.statements_world import EXACT, its_own, ours, own_server, pgbench

PGBENCH = "%pgbench\\_%"


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    """One for all tests of the module, with a hundred entries, the fewest that there can be."""
    with own_server(**{"pg_stat_statements.max": "100"}) as started:
        asyncio.run(_install(started.dsn))
        yield started


async def _install(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute("create extension pg_stat_statements")
    await connection.close()
    await migrate(dsn)


class World:
    """The server, our pool and a plain connection; a restart opens both anew."""

    def __init__(self, server: EmbeddedServer) -> None:
        self.server = server

    async def open(self) -> None:
        self.sql = await asyncpg.connect(self.server.dsn)
        self.database = await Database(self.server.dsn, purpose="test").open()
        self.counts = StatementCounts(self.database)

    async def close(self) -> None:
        await self.sql.close(timeout=5)
        await self.database.close()

    async def restart(self, *, crash: bool = False) -> None:
        await self.close()
        await asyncio.to_thread(self.server.kill if crash else self.server.stop)
        await asyncio.to_thread(self.server.start)
        await self.open()

    async def look(self) -> Look:
        look = await self.counts.look()
        assert look is not None
        return look


@pytest.fixture
async def world(server: EmbeddedServer) -> AsyncIterator[World]:
    """Nothing is counted yet, and nothing was looked at."""
    made = World(server)
    await made.open()
    await made.sql.execute("select pg_stat_statements_reset()")
    await made.sql.execute("truncate pipeline.statement_window, pipeline.statement_round, pipeline.statement_seen")
    await made.sql.execute("update pipeline.statement_watch set store = null, entries = null, at = null")
    yield made
    await made.close()


async def test_the_windows_of_a_pgbench_run_with_a_restart_hold_exactly_what_was_counted(world: World) -> None:
    server = world.server
    await pgbench(server, "-i", "-q", "-s", "1")
    await world.sql.execute("select pg_stat_statements_reset()")
    await pgbench(server, "-n", "-t", "20")
    assert (await world.look()).delta.gap == "first"
    before = await its_own(world.sql, PGBENCH)
    lost = []

    async def bench(mode: str) -> None:
        running = asyncio.ensure_future(pgbench(server, "-n", "-c", "3", "-t", "200", "-M", mode))
        while not running.done():
            lost.append((await world.look()).delta.lost)
            await asyncio.sleep(0.02)
        await running

    await bench("simple")
    await world.restart()
    await bench("prepared")
    await pgbench(server, "-n", "-S", "-t", "50")  # after the last look but one
    lost.append((await world.look()).delta.lost)
    after, held = await its_own(world.sql, PGBENCH), await ours(world.sql)
    assert len(lost) >= 4
    assert not any(lost)
    assert len(after) >= 5
    for queryid, now in after.items():
        for name in EXACT:
            then = before[queryid][name] if queryid in before else 0
            assert held[queryid][name] == now[name] - then, (name, queryid)
        then = before[queryid]["total_ms"] if queryid in before else 0.0
        assert held[queryid]["total_ms"] == pytest.approx(now["total_ms"] - then, rel=1e-9)
    by_hand = 3 * 200 * 2 * 5 + 50 + 3  # each run begins by counting the branches
    assert sum(held[queryid]["calls"] for queryid in after) == by_hand


async def test_evictions_lose_calls_and_say_so_and_nothing_counts_twice(world: World) -> None:
    columns = ", ".join(f"c{number} int" for number in range(280))  # each a statement of its own; a hundred fit
    await world.sql.execute(f"create table thing ({columns})")
    await world.look()
    executed = 0
    deallocs = vanished = 0
    for turn in range(4):
        for number in range(70):
            await world.sql.execute(f"select c{turn * 70 + number} from thing")
            executed += 1
        look = await world.look()
        deallocs += look.delta.deallocs
        vanished += look.delta.vanished
        assert look.delta.lost == bool(look.delta.deallocs or look.delta.vanished)
    assert deallocs > 0
    assert vanished > 0
    names = "select sum(calls)::bigint from pipeline.statement_window where queryid = any($1)"
    like = "select queryid from pg_stat_statements where query like 'select c%from thing'"
    alive = [row["queryid"] for row in await world.sql.fetch(like)]
    held = await world.sql.fetchval(names, alive)
    assert held == len(alive)  # each was executed once
    total = await world.sql.fetchval("select sum(calls) from pipeline.statement_window where seconds = 60")
    assert total < executed + 400  # of our own looks there are a few dozens
    [row] = await world.sql.fetch("select sum(deallocs) as d, sum(vanished) as v from pipeline.statement_round")
    assert (row["d"], row["v"]) == (deallocs, vanished)


async def test_a_crash_of_the_server_is_a_gap_and_what_came_after_it_counts(world: World) -> None:
    for _ in range(5):
        await world.sql.execute("select 1 as before_the_crash")
    await world.look()
    for _ in range(3):
        await world.sql.execute("select 1 as before_the_crash")  # nobody will ever know of these
    await world.restart(crash=True)
    for _ in range(2):
        await world.sql.execute("select 1 as before_the_crash")
    look = await world.look()
    assert (look.delta.gap, look.delta.lost) == ("reset", True)
    assert look.seconds > 0
    [queryid] = await its_own(world.sql, "%before_the_crash")
    assert (await ours(world.sql))[queryid]["calls"] == 2
    await world.sql.execute("select 1 as before_the_crash")
    assert not (await world.look()).delta.lost
    assert (await ours(world.sql))[queryid]["calls"] == 3


async def test_another_process_goes_on_where_the_last_one_ended(world: World) -> None:
    await world.look()
    for _ in range(4):
        await world.sql.execute("select 1 as both_see_this")
    successor = StatementCounts(world.database)
    look = await successor.look()
    assert look is not None
    assert not look.delta.lost
    await world.sql.execute("select 1 as both_see_this")
    assert not (await world.look()).delta.lost  # what it remembers is of an older look
    [queryid] = await its_own(world.sql, "%both_see_this")
    assert (await ours(world.sql))[queryid]["calls"] == 5


async def test_another_process_also_goes_on_after_resets(world: World) -> None:
    await world.sql.execute("select 1 as reset_alone")
    await world.look()
    [queryid] = await its_own(world.sql, "%reset_alone")
    await world.sql.execute("select pg_stat_statements_reset(0, 0, $1)", queryid)
    look = await world.look()
    assert (look.delta.gap, look.delta.vanished) == ("", 1)
    assert not (await StatementCounts(world.database).look()).delta.lost  # type: ignore[union-attr]
    await world.sql.execute("select pg_stat_statements_reset()")
    assert (await world.look()).delta.gap == "reset"
    assert not (await StatementCounts(world.database).look()).delta.lost  # type: ignore[union-attr]


async def test_a_reset_while_it_looks_counts_no_call_twice(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.look()
    read, turns = statement_counts._store, iter([True])

    async def read_and_reset(connection: Connection) -> Store:
        found = await read(connection)
        if next(turns, False):
            await world.sql.execute("select pg_stat_statements_reset()")
            for _ in range(2):
                await world.sql.execute("select 1 as raced")
        return found

    monkeypatch.setattr(statement_counts, "_store", read_and_reset)
    await world.look()
    await world.look()
    [queryid] = await its_own(world.sql, "%raced")
    assert (await ours(world.sql))[queryid]["calls"] == 2


async def test_two_never_look_at_once(world: World) -> None:
    async with world.sql.transaction():
        await world.sql.execute("select from pipeline.statement_watch for update")
        assert await world.counts.look() is None
    await world.look()


async def test_a_look_that_fails_is_made_up_for(world: World) -> None:
    await world.look()
    await world.sql.execute("select 1 as kept_for_later")
    await world.sql.execute(
        "alter table pipeline.statement_window add constraint no check (seconds > 60) not valid"
    )
    try:
        with pytest.raises(PgreflexError):
            await world.counts.look()
    finally:
        await world.sql.execute("alter table pipeline.statement_window drop constraint no")
    await world.look()
    [queryid] = await its_own(world.sql, "%kept_for_later")
    assert (await ours(world.sql))[queryid]["calls"] == 1


async def test_what_is_lost_of_the_baseline_is_a_gap(world: World) -> None:
    await world.sql.execute("select 1 as often_enough")
    await world.look()
    await world.sql.execute("truncate pipeline.statement_seen")
    assert (await StatementCounts(world.database).look()).delta.gap == "baseline"  # type: ignore[union-attr]
    assert await ours(world.sql) == {}


async def test_rights_that_come_later_bring_no_flood(world: World) -> None:
    for _ in range(7):
        await world.sql.execute("select 1 as of_another_role")
    await world.sql.execute("create role looker login")
    try:
        await world.sql.execute(
            "grant usage on schema pipeline to looker; grant all on all tables in schema pipeline to looker;"
            "grant execute on all functions in schema pipeline to looker"
        )
        dsn = world.server.dsn.replace("postgres@", "looker@")
        async with Database(dsn, purpose="test") as database:
            counts = StatementCounts(database)
            first, second = await counts.look(), await counts.look()
            assert first is not None
            assert first.hidden > 0
            assert second is not None
            assert not second.delta.lost
            await world.sql.execute("grant pg_read_all_stats to looker")
            look = await counts.look()
            assert look is not None
            assert (look.delta.gap, look.hidden, len(look.delta.counts)) == ("other", 0, 0)
        [queryid] = await its_own(world.sql, "%of_another_role")
        assert queryid not in await ours(world.sql)
    finally:
        await world.sql.execute("drop owned by looker; drop role looker")


async def test_a_server_that_goes_away_is_told_and_the_next_look_works(world: World) -> None:
    await world.look()
    await world.sql.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'pgreflex test'"
    )

    async def looked() -> bool:
        try:
            return await world.counts.look() is not None
        except PgreflexError:
            return False

    await eventually(looked)
