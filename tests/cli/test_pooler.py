"""The command where the address leads to a transaction pooler: what the daemon does, and what it says."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from tests.cli.conftest import Cli, clean_environment
from tests.cli.test_check import checked
from tests.conftest import eventually
from tests.pooler_kit import left_behind, needs_pgbouncer, pgbouncer

pytestmark = needs_pgbouncer
RUN = Path(__file__).parents[2] / "run.py"
OFF = "off: the address is a transaction pooler; set listen_dsn"
Start = Callable[..., Awaitable["Daemon"]]


@pytest.fixture
def pooled_dsn(dsn: str) -> Iterator[str]:
    with pgbouncer(dsn, size=10) as address:
        yield address


class Daemon:
    """A process of `pgreflex run`, and what it has said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said = ""
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.said += line.decode()

    async def status(self) -> dict[str, object]:
        found = await eventually(
            lambda: re.search(r"http://127\.0\.0\.1:\d+", self.said), within=30, why=self.said
        )
        async with aiohttp.ClientSession() as session, session.get(f"{found.group()}/api/v1/status") as answer:
            status: dict[str, object] = await answer.json()
            return status

    async def stop(self) -> int:
        self.process.terminate()
        async with asyncio.timeout(30):
            status = await self.process.wait()
            await self._reader
        return status


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    started: list[Daemon] = []
    (tmp_path / "shop.py").write_text(
        "import pipeline\n\n@pipeline.task(name='work')\nasync def work(job, n):\n    return n\n"
    )

    async def one(dsn: str, **env: str) -> Daemon:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(RUN), "run", "--port", "0", "--import", "shop", cwd=tmp_path,
            env=clean_environment(DATABASE_URL=dsn, **env), stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        started.append(Daemon(process))
        return started[-1]

    yield one
    for daemon in started:
        with suppress(ProcessLookupError):
            daemon.process.kill()
        await daemon.process.wait()


async def test_the_daemon_runs_jobs_by_polling_and_says_that_the_feed_is_off(
    start: Start, pooled_dsn: str, sql: asyncpg.Connection
) -> None:
    await sql.execute("select pipeline.enqueue('work', '{\"n\": 1}')")
    daemon = await start(pooled_dsn)
    await eventually(
        lambda: sql.fetchval("select true from pipeline.job_archive where state = 'finished'"), within=30
    )
    loop = asyncio.get_running_loop()
    began = loop.time()
    for n in range(2, 8):  # each just after a look, so that each waits for the whole pause until the next
        await sql.execute("select pipeline.enqueue('work', jsonb_build_object('n', $1::int))", n)
        await eventually(lambda n=n: sql.fetchval("select count(*) = $1 from pipeline.job_archive", n))
    assert loop.time() - began < 4
    await sql.execute("select pipeline.raise_alert('disk', 'it is full')")
    await eventually(lambda: "it is full" in daemon.said, within=20)
    status = await daemon.status()
    services = {one["name"]: one for one in status["services"]}  # type: ignore[attr-defined]
    for name in ("pump", "follower", "consumers"):
        assert (services[name]["ok"], services[name]["detail"], services[name]["restarts"]) == (True, OFF, 0)
    assert services["jobs"]["ok"]
    assert (status["ready"], status["feed"]) == (True, None)
    here = "(select oid from pg_database where datname = current_database())"
    locks = f"select count(*) from pg_locks where locktype = 'advisory' and database = {here}"
    assert await sql.fetchval(locks) == 0
    assert await daemon.stop() == 0
    assert daemon.said.count("the feed is off") == 1
    assert "listen_dsn" in daemon.said
    assert "Traceback" not in daemon.said
    assert await sql.fetchval("select count(*) from pipeline.worker") == 0
    assert await left_behind(pooled_dsn, most=10) == []


async def test_with_an_address_for_listening_nothing_is_off(
    start: Start, dsn: str, pooled_dsn: str, sql: asyncpg.Connection
) -> None:
    daemon = await start(pooled_dsn, PGREFLEX_LISTEN_DSN=dsn)
    await eventually(lambda: "leading the feed" in daemon.said, within=30)

    async def fed() -> bool:
        status = await daemon.status()
        return bool(status["feed"] and status["feed"]["connected"] and status["ready"])  # type: ignore[index]

    await eventually(fed, within=30)
    assert await daemon.stop() == 0
    assert "the feed is off" not in daemon.said
    assert await left_behind(pooled_dsn, most=10) == []


async def test_behind_a_pooler_in_session_mode_nothing_is_off(
    start: Start, dsn: str, sql: asyncpg.Connection
) -> None:
    await sql.execute("create table orders (id int primary key); select pipeline.watch('orders')")
    with pgbouncer(dsn, mode="session", size=20) as address:
        daemon = await start(address)

        async def events() -> int:
            status = await daemon.status()
            feed = status["feed"]
            return feed["events_total"] if feed and feed["connected"] else -1  # type: ignore[index]

        for n in range(3):  # it falls asleep in between, and is woken
            await eventually(lambda: _is_asleep(daemon), within=30)
            before = await events()  # the watch is an event, too
            await sql.execute("insert into orders values ($1)", n)
            await eventually(lambda before=before: _is(events(), before + 1), within=30)
        assert await daemon.stop() == 0
    assert "the feed is off" not in daemon.said
    assert "failed" not in daemon.said


async def _is(found: Awaitable[int], wanted: int) -> bool:
    return await found == wanted


async def _is_asleep(daemon: Daemon) -> bool:
    feed = (await daemon.status())["feed"]
    return bool(feed and feed["connected"] and feed["asleep"])  # type: ignore[index]


async def test_a_database_is_installed_by_a_daemon_behind_the_pooler(start: Start, empty_dsn: str) -> None:
    with pgbouncer(empty_dsn) as address:
        daemon = await start(address)
        await eventually(lambda: "brought up to date" in daemon.said, within=30)
        await eventually(lambda: "the feed is off" in daemon.said, within=30)
        assert await daemon.stop() == 0
        assert await left_behind(address) == []


async def test_check_tells_of_the_pooler_and_of_what_is_off(cli: Cli, pooled_dsn: str) -> None:
    status, found = await checked(cli, "-d", pooled_dsn)
    assert status == 0
    assert (found["pooler"]["level"], found["LISTEN"]["level"]) == ("ok", "warning")
    assert found["LISTEN"]["detail"].startswith("off: the address is a transaction pooler")
    assert "listen_dsn" in found["LISTEN"]["hint"]
    assert found["schema"]["detail"] == "up to date"
    assert {one["level"] for one in found.values()} == {"ok", "warning"}
    assert await left_behind(pooled_dsn, most=10) == []


async def test_check_is_content_with_an_address_past_the_pooler(cli: Cli, dsn: str, pooled_dsn: str) -> None:
    _status, found = await checked(cli, "-d", pooled_dsn, PGREFLEX_LISTEN_DSN=dsn)
    assert found["LISTEN"] == {
        "level": "ok",
        "subject": "LISTEN",
        "detail": "a notification came back",
        "hint": "",
    }
    _status, found = await checked(cli, "-d", dsn)
    assert "pooler" not in found


async def test_the_verbs_of_the_command_go_through_the_pooler(
    cli: Cli, pooled_dsn: str, sql: asyncpg.Connection
) -> None:
    await sql.execute("create table orders (id int primary key)")
    assert (await cli("watch", "orders", "-d", pooled_dsn)).status == 0
    assert "orders" in (await cli("watched", "-d", pooled_dsn)).out
    assert (await cli("enqueue", "work", json.dumps({"n": 1}), "-d", pooled_dsn)).status == 0
    assert (await cli("emit", "a.channel", "1", "-d", pooled_dsn)).status == 0
    assert (await cli("unwatch", "orders", "-d", pooled_dsn)).status == 0
    assert (await cli("migrate", "-d", pooled_dsn)).status == 0
    assert await sql.fetchval("select count(*) from pipeline.job") == 1
    assert await left_behind(pooled_dsn, most=10) == []
