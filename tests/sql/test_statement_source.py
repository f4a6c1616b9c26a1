"""pg_stat_statements is read in every version, in any schema, and what keeps it from telling all is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from handlers.statements import StatementWatcher
from pipeline.core.statement_delta import COUNTERS
from pipeline.core.statement_source import shortcomings
from pipeline.db.connection import Database
from pipeline.db.statement_counts import StatementCounts
from pipeline.errors import PgreflexError
from tests.time_kit import stand_at

# What the versions are called that come with Postgres 14, 15 and 16, 17, and 18.
VERSIONS = ("1.9", "1.10", "1.11", "1.12")
READ = "select * from pipeline.statements('1 hour') where text like $1"


@pytest.fixture
async def loaded(sql: asyncpg.Connection) -> list[str]:
    """The versions of the extension that this server can create; skips where it has not loaded it."""
    if not await sql.fetchval("select loaded from pipeline.statement_source()"):
        pytest.skip("this server has not loaded pg_stat_statements (shared_preload_libraries)")
    rows = await sql.fetch("select version from pg_available_extension_versions where name = 'pg_stat_statements'")
    return [version for version in VERSIONS if version in {row["version"] for row in rows}]


@pytest.fixture
async def counts(dsn: str) -> AsyncIterator[StatementCounts]:
    async with Database(dsn, purpose="test") as database:
        yield StatementCounts(database)


async def test_every_version_is_read_in_whatever_schema_it_is(
    sql: asyncpg.Connection, loaded: list[str], counts: StatementCounts
) -> None:
    assert loaded
    await sql.execute('create schema "its own"; create table thing (id int)')
    for other in ("", "text"):  # not the extension's, and found before and after its own
        await sql.execute(f'create function "its own".pg_stat_statements({other}) returns int return 1')
    for turn, version in enumerate(loaded):
        await sql.execute(f"create extension pg_stat_statements schema \"its own\" version '{version}'")
        assert (await counts.source()).version == version
        await counts.look()
        for _ in range(3):
            await sql.execute(f"insert into thing select n{', n' * 0} from generate_series(1, {turn + 5}) n")
        look = await counts.look()
        assert look is not None
        done = [dict(zip(COUNTERS, one.counters, strict=True)) for one in look.delta.counts.values()]
        [inserts] = [one for one in done if (one["calls"], one["rows"]) == (3, 3 * (turn + 5))]
        assert inserts["total_ms"] > 0
        assert inserts["shared_hit"] > 0
        assert inserts["wal_bytes"] > 0
        await sql.execute("drop extension pg_stat_statements")


async def test_whatever_is_missing_is_told_with_what_to_do(
    sql: asyncpg.Connection, loaded: list[str], counts: StatementCounts
) -> None:
    watcher = StatementWatcher(counts)
    assert watcher.status() is None
    assert await watcher.look() is None
    [told] = shortcomings(await counts.source())
    assert told.hint == "create extension pg_stat_statements"
    assert watcher.healthy().ok
    assert "not created in this database" in watcher.healthy().detail
    await sql.execute(f"create extension pg_stat_statements version '{loaded[0]}'")
    assert await watcher.look() is not None
    if len(loaded) > 1:
        assert "the server offers" in watcher.healthy().detail
        status = watcher.status()
        assert status is not None
        assert status.shortcomings[0].endswith("alter extension pg_stat_statements update")
        await sql.execute("alter extension pg_stat_statements update")
        await watcher.look()
    assert "statements" in watcher.healthy().detail
    assert watcher.status().shortcomings == ()  # type: ignore[union-attr]


@pytest.mark.usefixtures("loaded")
async def test_statements_are_read_with_their_texts_and_shares(
    sql: asyncpg.Connection, counts: StatementCounts
) -> None:
    await sql.execute("create extension pg_stat_statements; create table thing (id int)")
    await counts.look()
    for number in (1, 2):
        for _ in range(2):
            await sql.execute(f"select id from thing where id = {number} -- only_here")
    await sql.execute("select id from thing where id in (1, 2, 3)")
    await counts.look()
    [unknown] = await sql.fetch("select count(*) as n from pipeline.statements() where text is not null")
    assert unknown["n"] == 0
    assert await counts.name() > 0
    assert await counts.name() == 0
    [found] = await sql.fetch(READ, "select id from thing where id = %")
    assert (found["calls"], found["rows"], found["lost"]) == (4, 0, False)
    assert len(found["queryids"]) == 1
    assert len(found["fingerprint"]) == 16
    assert found["mean_ms"] == pytest.approx(found["total_ms"] / 4)
    assert found["max_ms"] is None or found["max_ms"] >= found["mean_ms"]
    [total] = await sql.fetch(
        "select sum(share) as share, min(seconds) as seconds from pipeline.statements(most => 9999)"
    )
    assert total["share"] == pytest.approx(1)
    assert 0 < total["seconds"] < 60


@pytest.mark.usefixtures("loaded")
async def test_an_hour_is_summed_up_without_losing_a_call_and_pruned(sql: asyncpg.Connection, dsn: str) -> None:
    await sql.execute("create extension pg_stat_statements; create table thing (a int, b int, c int)")
    began = 1_700_000_000 // 86_400 * 86_400.0 + 30  # the middle of a look lies in its minute
    executed = 0

    async def after(seconds: float, *columns: str) -> None:
        nonlocal executed
        for column in columns:
            await sql.execute(f"select {column} from thing where a = 1")
            executed += 1
        await stand_at(sql, began + seconds)
        async with Database(dsn, purpose="test", settings=None) as database:
            counts = StatementCounts(database, keep=2)
            await counts.look()
            await counts.roll_up()
            await counts.prune()

    async def kept() -> dict[int, int]:
        rows = await sql.fetch(
            "select seconds, count(distinct start)::int as n from pipeline.statement_round group by seconds"
        )
        return {row["seconds"]: row["n"] for row in rows}

    await after(0)
    for minute in range(1, 13):
        await after(60.0 * minute, "a", "b", "c")
    assert await kept() == {60: 13, 300: 2}
    await after(3_700, "a")
    assert await kept() == {60: 14, 300: 3, 3600: 1}
    # a look a day later: what happened in between is in one window, and is not told of the last hour
    await after(86_400 + 7_200.0, "b")
    held = "select sum(calls)::int from pipeline.statements($1::text::interval)"
    whole = await sql.fetchval(held, "3 days")
    assert whole == await sql.fetchval("select sum(calls) from pipeline.statement_window where seconds = 60")
    assert whole >= executed
    recent = await sql.fetchval(held, "1 hour")
    assert recent is None
    rows = await sql.fetch("select calls, queryids from pipeline.statements('3 days', most => 9999)")
    assert [row["queryids"] is None for row in rows] == [False] * (len(rows) - 1) + [True]
    assert rows[-1]["calls"] > 0
    kinds = "select max(n) from (select count(*) as n from pipeline.statement_window group by seconds, start) as g"
    assert await sql.fetchval(kinds) == 3  # two by name, and the others
    # three days later the minutes are gone, and nothing is lost by it
    await after(86_400 * 4.0)
    [most] = await sql.fetch("select max(start) as at from pipeline.statement_round where seconds = 60")
    assert most["at"].timestamp() >= began + 86_400
    assert await sql.fetchval(held, "10 days") >= whole
    left = (
        "select count(*) from pipeline.statement_window as w where not exists ("
        "select from pipeline.statement_round as r where r.seconds = w.seconds and r.start = w.start)"
    )
    assert await sql.fetchval(left) == 0


@pytest.mark.usefixtures("loaded")
async def test_what_is_not_there_any_more_is_an_error_of_ours(counts: StatementCounts) -> None:
    with pytest.raises(PgreflexError):
        await counts.look()


@pytest.mark.usefixtures("pg_stat_statements")
async def test_there_is_a_look_a_minute_by_the_leader_and_one_that_fails_is_told(
    sql: asyncpg.Connection, counts: StatementCounts
) -> None:
    now = 999_999_990.0  # half a minute past a full one
    watcher = StatementWatcher(counts, clock=lambda: now)
    looks = "select round from pipeline.statement_watch"
    for seconds, rounds in ((0, 1), (29, 1), (1, 2), (59, 2), (1, 3)):
        now += seconds
        await watcher._tick()
        assert await sql.fetchval(looks) == rounds, seconds
    await sql.execute("alter table pipeline.statement_watch rename to gone")
    now += 60
    await watcher._tick()
    assert watcher.healthy().ok
    assert "cannot be counted" in watcher.healthy().detail
    await sql.execute("alter table pipeline.gone rename to statement_watch")
    now += 60
    await watcher._tick()
    assert "statements" in watcher.healthy().detail
    assert await sql.fetchval(looks) == 4
    now -= 3_600  # the clock was set back
    await watcher._tick()
    assert await sql.fetchval(looks) == 5
    idle = StatementWatcher(counts, leading=lambda: False, clock=lambda: now + 600)
    running = asyncio.ensure_future(idle.run())
    await asyncio.sleep(0.05)
    await idle.stop()
    await running
    assert await sql.fetchval(looks) == 5
    assert idle.status() is None
