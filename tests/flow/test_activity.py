"""What sessions are at, who waits behind whom, and what a role may see of it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import pytest

from handlers.activity import ActivitySampler
from pipeline.core.activity import Sample
from pipeline.db.activity import Activity
from pipeline.db.connection import Database
from pipeline.db.queries import Queries, QueryId
from pipeline.db.server_view import ServerViews
from pipeline.errors import PgreflexError
from tests.conftest import eventually

HOUR = 3_600.0
WAITS = "select state, wait_event_type from pg_stat_activity where pid = $1"


class Sessions:
    """Sessions of an application, each of which may be at something that lasts."""

    def __init__(self, dsn: str, stack: AsyncExitStack, watching: asyncpg.Connection) -> None:
        self._dsn = dsn
        self._stack = stack
        self._watching = watching
        self._tasks: list[asyncio.Task[object]] = []

    async def open(self, *, user: str | None = None, name: str = "shop") -> asyncpg.Connection:
        dsn = self._dsn if user is None else self._dsn.replace("postgres@", f"{user}@")
        connection = await asyncpg.connect(dsn, server_settings={"application_name": name})
        self._stack.callback(connection.terminate)
        return connection

    async def at(self, connection: asyncpg.Connection, sql: str, wait: str) -> int:
        """Let a session begin something; returns its pid once it waits for such."""
        self._tasks.append(asyncio.ensure_future(connection.execute(sql)))

        async def waits() -> bool:
            row = await self._watching.fetchrow(WAITS, connection.get_server_pid())
            return row is not None and row["wait_event_type"] == wait

        await eventually(waits)
        return connection.get_server_pid()

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.fixture
async def sessions(dsn: str, sql: asyncpg.Connection) -> AsyncIterator[Sessions]:
    await sql.execute("create table thing (id int primary key, n int); insert into thing values (1, 0), (2, 0)")
    await sql.execute("create table other ()")
    async with AsyncExitStack() as stack:
        made = Sessions(dsn, stack, sql)
        stack.push_async_callback(made.end)
        yield made


@asynccontextmanager
async def activity(dsn: str) -> AsyncIterator[tuple[Activity, Database]]:
    async with Database(dsn, purpose="test", max_size=1) as database:
        yield Activity(database), database


async def stand_at(database: Database, at: float) -> None:
    async with database.acquire() as connection:
        await connection.execute("select set_config('pipeline.fake_now', to_timestamp($1)::text, false)", at)


async def timings(sql: asyncpg.Connection) -> list[int]:
    """How many rows there are of whatever becomes a timing."""
    tables = ("timing_series", "timing_batch", "timing_part", "outbox")
    return [await sql.fetchval(f"select count(*) from pipeline.{table}") for table in tables]


def kinds(sample: Sample) -> dict[str, int]:
    found: dict[str, int] = {}
    for (_, kind, event), number in sample.waits:
        found[f"{kind}:{event}"] = found.get(f"{kind}:{event}", 0) + number
    return found


async def test_sessions_are_counted_by_what_they_are_at_and_kept_by_minute(
    dsn: str, sql: asyncpg.Connection, sessions: Sessions
) -> None:
    holder = await sessions.open()
    await holder.execute("begin; update thing set n = 1 where id = 1")
    await sessions.at(await sessions.open(), "update thing set n = 2 where id = 1", "Lock")
    for name in ("shop", "shop", "pgreflex worker"):  # ours is left out
        await sessions.at(await sessions.open(name=name), "select pg_sleep(60)", "Timeout")
    async with activity(dsn) as (looks, database):
        views = ServerViews(database)
        before = await timings(sql)
        sampler = ActivitySampler(looks)
        assert sampler.status() is None
        await stand_at(database, 1_700_000_010.0)
        for _ in range(3):
            sample = await sampler.look()
        assert kinds(sample) == {"Lock:transactionid": 1, "Timeout:PgSleep": 2}
        assert (sample.active, sample.sessions, sample.hidden, sample.blocked) == (3, 5, 0, 1)
        assert sample.longest_transaction_seconds is not None
        assert sample.longest_idle_seconds is not None
        assert 0 < sample.longest_idle_seconds <= sample.longest_transaction_seconds < 60
        status = sampler.status()
        assert status is not None
        assert status.active == {"Lock": 1, "Timeout": 2}
        assert status.blocked == 1
        [told] = status.blocked_sessions
        assert (told.root, told.root_state) == (holder.get_server_pid(), "idle in transaction")
        assert sampler.healthy().detail == "3 active sessions"
        assert await views.waits(HOUR) == []  # the minute is open
        await stand_at(database, 1_700_000_070.0)
        await sampler.look()
        await sampler.flush()
        rows = {(row.wait_type, row.wait_event): row for row in await views.waits(HOUR)}
        assert set(rows) == {("Lock", "transactionid"), ("Timeout", "PgSleep")}
        sleeping = rows["Timeout", "PgSleep"]
        assert (sleeping.samples, sleeping.sessions, sleeping.share) == (8, 2.0, pytest.approx(2 / 3))
        minutes = await sql.fetch("select * from pipeline.activity_minute order by start")
        assert [row["samples"] for row in minutes] == [3, 1]
        assert [row["active"] for row in minutes] == [9, 3]
        assert {row["blocked_most"] for row in minutes} == {1}
        assert minutes[0]["longest_transaction_seconds"] > 0
        # a second process that looked in the same minute adds to it
        await sampler.look()
        await sampler.flush()
        [most, *_] = await views.waits(HOUR)
        assert (most.samples, most.sessions) == (10, 2.0)
        assert (await views.waits(30.0))[0].samples == 4
        await stand_at(database, 1_700_000_030.0 + 48 * 3600)
        await looks.prune()
        for table in ("activity_minute", "activity_window"):
            assert await sql.fetchval(f"select count(distinct start) from pipeline.{table}") == 1
        # looks find what runs long: they are no timings
        assert await timings(sql) == before


async def test_who_waits_is_told_with_whom_he_waits_for_and_who_holds_up_all(
    dsn: str, sql: asyncpg.Connection, sessions: Sessions
) -> None:
    holder, middle, last = [await sessions.open() for _ in range(3)]
    await holder.execute("begin; update thing set n = 1 where id = 1")
    await middle.execute("begin; lock table other")
    await sessions.at(middle, "update thing set n = 2 where id = 1", "Lock")
    await sessions.at(last, "select from other", "Lock")
    async with activity(dsn) as (looks, database):
        first, second = await looks.blocked()
        pids = [one.get_server_pid() for one in (holder, middle, last)]
        assert (first.pid, first.behind, first.root, first.depth) == (pids[1], pids[0], pids[0], 1)
        assert (second.pid, second.behind, second.root, second.depth) == (pids[2], pids[1], pids[0], 2)
        assert (first.lock, second.lock, second.relation) == ("transactionid", "relation", "other")
        assert second.mode == "AccessShareLock"
        assert (second.root_state, second.root_application) == ("idle in transaction", "shop")
        assert second.waited_seconds is not None
        assert 0 < second.waited_seconds < 60
        assert second.root_transaction_seconds is not None
        assert second.root_transaction_seconds > second.waited_seconds
        assert (first.text, first.root_text) == (None, None)
        # once a statement's text is known, it is told without its values
        rows = await sql.fetch(
            "select datid, usesysid, query_id, query from pg_stat_activity where pid = $1", pids[1]
        )
        if rows[0]["query_id"] is not None:
            key = QueryId(rows[0]["datid"], rows[0]["usesysid"], rows[0]["query_id"], True)
            await Queries(database).link({key: rows[0]["query"]})
            [first, _] = await looks.blocked()
            assert first.text == "update thing set n = $1 where id = $2"
        assert len(await looks.blocked(1)) == 1


async def test_a_queue_of_many_is_told_at_once_also_behind_a_prepared_transaction(
    dsn: str, sql: asyncpg.Connection, sessions: Sessions
) -> None:
    gid = f"g{uuid.uuid4().hex}"
    await sql.execute(f"begin; update thing set n = 1 where id = 1; prepare transaction '{gid}'")
    try:
        waiting = [await sessions.open() for _ in range(25)]
        for one in waiting:
            await sessions.at(one, "update thing set n = 2 where id = 1", "Lock")
        async with activity(dsn) as (looks, _database):
            found = await looks.blocked()
            assert [one.pid for one in found] == [one.get_server_pid() for one in waiting]
            assert {(one.root, one.root_state) for one in found} == {(None, "prepared transaction")}
            assert [one.depth for one in found] == [1] + [2] * 24
            assert {one.behind for one in found[1:]} == {found[0].pid}
    finally:
        await sql.execute(f"rollback prepared '{gid}'")


async def test_without_rights_it_says_what_is_hidden_and_claims_nothing(
    dsn: str, sql: asyncpg.Connection, sessions: Sessions
) -> None:
    role = f"looker_{uuid.uuid4().hex[:12]}"
    await sql.execute(f"create role {role} login; grant usage on schema pipeline to {role}")
    try:
        await (await sessions.open()).execute("begin")
        async with activity(dsn.replace("postgres@", f"{role}@")) as (looks, _database):
            sampler = ActivitySampler(looks)
            sample = await sampler.look()
            assert sample.hidden >= 2
            assert (sample.blocked, sample.longest_transaction_seconds, sample.longest_idle_seconds) == (None,) * 3
            assert "grant pg_read_all_stats" in sampler.healthy().detail
            own = await sessions.open(user=role)
            await own.execute("begin")
            assert (await sampler.look()).longest_transaction_seconds is not None  # at least this long
            await sql.execute(f"grant pg_read_all_stats to {role}")
            sample = await sampler.look()
            assert (sample.hidden, sample.blocked) == (0, 0)
            assert (sample.longest_transaction_seconds or 0) > 0
    finally:
        await sessions.end()
        await sql.execute(f"drop owned by {role} cascade")


async def test_a_minute_that_could_not_be_kept_is_kept_later(dsn: str, sql: asyncpg.Connection) -> None:
    async with activity(dsn) as (looks, database):
        sampler = ActivitySampler(looks)
        await stand_at(database, 1_700_000_010.0)
        await sampler.look()
        await sql.execute("alter table pipeline.activity_minute add constraint no check (samples > 1) not valid")
        await stand_at(database, 1_700_000_070.0)
        with pytest.raises(PgreflexError):
            await sampler.look()
        await sql.execute("alter table pipeline.activity_minute drop constraint no")
        await sampler.look()
        await sampler.flush()
        rows = await sql.fetch("select samples from pipeline.activity_minute order by start")
        assert [row["samples"] for row in rows] == [1, 1]


async def test_a_process_that_leads_looks_and_one_that_does_not_knows_nothing(dsn: str) -> None:
    leads = True
    seconds = iter(range(1000))
    async with activity(dsn) as (looks, database):
        views = ServerViews(database)
        sampler = ActivitySampler(looks, leading=lambda: leads, timer=lambda: float(next(seconds)))
        assert await sampler._tick() == 60.0
        running = asyncio.ensure_future(sampler.run())
        await eventually(lambda: "none for a minute" in sampler.healthy().detail)  # each look took a second
        assert sampler.status() is not None
        await sampler.stop()
        await running
        assert await views.waits(HOUR) == []
    async with activity(dsn) as (looks, _database):
        sampler = ActivitySampler(looks, leading=lambda: False)
        running = asyncio.ensure_future(sampler.run())
        await asyncio.sleep(0)
        assert sampler.status() is None
        await sampler.stop()
        await running
