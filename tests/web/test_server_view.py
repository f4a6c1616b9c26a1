"""What the server counted and what its sessions are at, on the command line and over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import asyncpg
import pytest

from handlers.activity import ActivitySampler
from pipeline.db.activity import Activity
from pipeline.db.connection import Database
from pipeline.db.job_view import view_database
from pipeline.db.statement_counts import StatementCounts
from pipeline.web.performance import PerformanceApi
from pipeline.web.server import WebServer
from tests.cli.conftest import Cli, cli, programs  # noqa: F401 - fixtures
from tests.conftest import eventually
from tests.web.conftest import Serve, Source


@pytest.fixture
async def server(serve: Serve, source: Source, dsn: str) -> AsyncIterator[WebServer]:
    async with view_database(dsn, purpose="view") as views:
        yield await serve(source, performance=PerformanceApi(views))


async def get(server: WebServer, query: str, status: int = 200) -> Any:
    async with aiohttp.ClientSession(server.url) as http, http.get(f"/api/v1/performance?{query}") as answer:
        assert answer.status == status, await answer.text()
        return await answer.json(content_type=None)


async def fill(sql: asyncpg.Connection, dsn: str) -> list[asyncpg.Connection]:
    """A statement that ran three times, and a session that waits for another one."""
    await sql.execute("create table thing (id int); insert into thing values (1)")
    holder, waiter = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
    async with Database(dsn, purpose="test") as database:
        counts, sampler = StatementCounts(database), ActivitySampler(Activity(database))
        await counts.look()
        for number in range(3):
            await sql.execute(f"select id from thing where id = {number}")
        await counts.look()
        await counts.name()
        await holder.execute("begin; lock table thing")
        waiting = asyncio.ensure_future(waiter.execute("select from thing"))
        waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
        locks = "select count(*) from pg_locks where not granted and relation = 'thing'::regclass"
        await eventually(lambda: sql.fetchval(locks))
        await sampler.look()
        await sampler.flush()
    return [holder, waiter]


@pytest.mark.usefixtures("pg_stat_statements")
async def test_statements_waits_and_locks_are_told_to_people_and_programs(
    sql: asyncpg.Connection,
    dsn: str,
    server: WebServer,
    cli: Cli,  # noqa: F811
) -> None:
    assert (await cli("activity", "statements", DATABASE_URL=dsn)).out == ""
    assert "Nobody waits" in (await cli("activity", "blocked", DATABASE_URL=dsn)).err
    assert (await get(server, "metric=waits"))["waits"] == []
    held = await fill(sql, dsn)
    try:
        text = "select id from thing where id = $1"
        told = await get(server, "metric=statements&over=5m")
        assert told["over_seconds"] == 300
        [row] = [one for one in told["statements"] if one["query"] == text]
        assert (row["calls"], row["lost"]) == (3, False)
        told = await get(server, "metric=waits&limit=5")
        assert [(one["wait_type"], one["wait_event"], one["sessions"]) for one in told["waits"]] == [
            ("Lock", "relation", 1.0)
        ]
        told = await get(server, "metric=blocked")
        assert [(one["pid"], one["root"]) for one in told["blocked"]] == [
            (held[1].get_server_pid(), held[0].get_server_pid())
        ]
        found = await cli("activity", "statements", "--over", "5m", DATABASE_URL=dsn)
        lines = found.out.splitlines()
        [at] = [place for place, line in enumerate(lines) if text in line]
        assert lines[at - 1].split()[1] == "3"
        assert "Watched" in found.err
        [row] = json.loads((await cli("activity", "waits", "--json", DATABASE_URL=dsn)).out)
        assert (row["wait_type"], row["samples"]) == ("Lock", 1)
        assert "Lock: relation" in (await cli("activity", "waits", DATABASE_URL=dsn)).out
        found = await cli("activity", "blocked", DATABASE_URL=dsn)
        assert f"{held[0].get_server_pid()} idle in transaction" in found.out
        assert "thing" in found.out
    finally:
        for connection in held:
            connection.terminate()


async def test_what_has_no_labels_and_one_order_says_so(server: WebServer) -> None:
    for metric in ("statements", "waits", "blocked"):
        assert "there is no parameter by" in (await get(server, f"metric={metric}&by=p95", 400))["detail"]
    assert "Metrics: summary" in json.dumps(await get(server, "metric=nothing", 400))


@pytest.mark.usefixtures("sql")
async def test_what_is_missing_is_told_with_what_to_do(dsn: str, cli: Cli) -> None:  # noqa: F811
    found = await cli("activity", "statements", DATABASE_URL=dsn)
    assert (found.status, found.out) == (0, "")
    assert "create extension pg_stat_statements" in found.err
