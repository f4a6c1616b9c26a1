"""Whole processes and servers that die: nothing that was committed is lost unnoticed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from pipeline.db.feed import IDLE_LIMIT_SECONDS
from pipeline.db.migrate import migrate
from pipeline.embedded import EmbeddedServer
from tests.conftest import eventually
from tests.flow.feed_kit import running

ROOT = Path(__file__).parents[2]
ITEM = "create table item (id bigint primary key)"


class Daemon:
    """A process with the feed in it, and what it has said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said: list[dict[str, Any]] = []
        self.reading = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.said.append(json.loads(line))

    def keys(self, kind: str) -> list[str]:
        return [key for said in self.said for key in said.get(kind, ())]

    def last(self, kind: str) -> Any:
        return next((said[kind] for said in reversed(self.said) if kind in said), None)

    def heard(self, kind: str) -> list[str]:
        return [said[kind] for said in self.said if kind in said]

    async def kill(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()
        await self.reading


@asynccontextmanager
async def daemons(dsn: str, number: int) -> AsyncIterator[list[Daemon]]:
    """Processes started one after another: the first leads and consumes."""
    started: list[Daemon] = []
    try:
        for n in range(number):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.crash.feed_daemon", dsn, f"daemon {n}",
                stdout=asyncio.subprocess.PIPE, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
            )  # fmt: skip
            one = Daemon(process)
            started.append(one)
            if n == 0:
                await eventually(lambda one=one: one.last("leading") and one.last("consuming"), within=20)
            await eventually(lambda one=one: one.heard("flush"), within=20, why="a follower at its place")
        yield started
    finally:
        for one in started:
            with suppress(ProcessLookupError):
                one.process.send_signal(signal.SIGCONT)
            await one.kill()


@pytest.fixture
async def shop(sql: asyncpg.Connection) -> asyncpg.Connection:
    await sql.execute(ITEM)
    await sql.execute("select pipeline.watch('item')")
    return sql


async def insert_until(sql: asyncpg.Connection, done: Any, first: int = 0) -> list[str]:
    """Insert keys until `done()`; returns them."""
    written: list[str] = []
    while not done():
        await sql.execute("insert into item values ($1)", first + len(written))
        written.append(str(first + len(written)))
        await asyncio.sleep(0.002)
    return written


async def test_another_process_takes_over_from_a_killed_one_and_every_event_arrives(
    shop: asyncpg.Connection, dsn: str
) -> None:
    async with daemons(dsn, 2) as (first, second):
        writing = asyncio.ensure_future(insert_until(shop, lambda: second.last("leading")))
        await eventually(lambda: len(second.keys("told")) > 20)
        died = time.monotonic()
        await first.kill()
        await eventually(lambda: second.last("leading"), within=10)
        assert time.monotonic() - died < 2
        written = await writing
        written += await insert_until(shop, iter([False] * 5 + [True]).__next__, 10_000)
        await eventually(lambda: set(written) <= set(second.keys("told")))
        told = second.keys("told")
        assert len(told) == len(set(told))  # the batch and its place are one transaction, so none comes twice
        await eventually(lambda: set(written) <= set(first.keys("handled") + second.keys("handled")))
        assert len(second.heard("flush")) == 1
        assert second.heard("missed") == []


async def test_a_frozen_leader_is_replaced_and_does_no_harm_when_it_wakes(
    shop: asyncpg.Connection, dsn: str
) -> None:
    async with daemons(dsn, 2) as (first, second):
        await insert_until(shop, lambda: len(second.keys("told")) > 5)
        first.process.send_signal(signal.SIGSTOP)
        froze = time.monotonic()
        written = await insert_until(shop, lambda: second.last("leading"), 10_000)
        assert time.monotonic() - froze < IDLE_LIMIT_SECONDS + 2
        await eventually(lambda: set(written) <= set(second.keys("told")))
        first.process.send_signal(signal.SIGCONT)
        await eventually(lambda: first.heard("refused"), why="the old leader finding out")
        more = await insert_until(shop, iter([False] * 50 + [True]).__next__, 20_000)
        await eventually(lambda: set(written + more) <= set(second.keys("told")))
        await eventually(lambda: set(written + more) <= set(first.keys("told")), why="the woken one following")
        assert second.last("leading") > first.heard("leading")[0]
        seqs = [row["seq"] for row in await shop.fetch("select seq from pipeline.ring order by seq")]
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
        assert len(second.heard("flush")) == 1


async def test_consumers_handle_everything_at_least_once_though_their_process_is_killed_again_and_again(
    shop: asyncpg.Connection, dsn: str
) -> None:
    handled: set[str] = set()
    written: list[str] = []
    for turn in range(2):
        async with daemons(dsn, 1) as (one,):
            written += await insert_until(shop, lambda one=one: len(one.keys("handled")) > 30, 10_000 * (turn + 1))
            await one.kill()
            handled |= set(one.keys("handled"))
        written += await insert_until(shop, iter([False] * 20 + [True]).__next__, 10_000 * (turn + 1) + 5_000)
    async with daemons(dsn, 1) as (one,):
        await eventually(lambda: set(written) <= handled | set(one.keys("handled")))
        assert one.heard("missed") == []


@pytest.fixture(scope="module")
def server() -> Any:
    """A server of these tests' own, to be crashed."""
    with tempfile.TemporaryDirectory(prefix="pgr-", ignore_cleanup_errors=True) as home:
        Path(home).chmod(0o711)
        settings = {"fsync": "off", "max_prepared_transactions": "5", "max_connections": "40"}
        with EmbeddedServer(Path(home) / "pg", settings=settings) as started:
            yield started


@pytest.fixture
async def crashable(server: EmbeddedServer) -> AsyncIterator[str]:
    name = f"t_{uuid.uuid4().hex[:12]}"
    admin = await asyncpg.connect(server.dsn)
    await admin.execute(f"create database {name}")
    await admin.close()
    dsn = server.dsn_for(name)
    await migrate(dsn)
    yield dsn
    admin = await asyncpg.connect(server.dsn)
    await admin.execute(f"drop database {name} with (force)")
    await admin.close()


def crash(server: EmbeddedServer) -> None:
    server.stop("immediate")
    server.start()


async def test_after_a_crash_of_the_server_everybody_flushes_and_durable_events_are_handled(
    server: EmbeddedServer, crashable: str
) -> None:
    async with running(crashable) as feed:
        await feed.watch(ITEM, "'item', durable => true")
        epoch = feed.follower.epoch
        handler = feed.handler
        await eventually(lambda: "w" in [event.op for event in handler.seen])

        async def fail(_events: object) -> None:
            raise RuntimeError("not before the crash")

        handler.act = fail
        await feed.run("insert into item values (1)")
        await eventually(lambda: not feed.consumers.healthy().ok)
        await asyncio.to_thread(crash, server)
        await eventually(lambda: len(feed.sink.flushes) > 1, within=15, why="the flush")
        await eventually(lambda: handler.reasons, within=15, why="the consumer being told")
        assert handler.reasons == ["the server crashed or was replaced"]
        assert handler.keys == []
        handler.act = None
        await eventually(lambda: "1" in handler.keys, within=15, why="the durable event")
        assert feed.follower.epoch != epoch
        sql = await asyncpg.connect(crashable)
        await sql.execute("insert into item values (2)")
        await eventually(lambda: any(event.keys == ("2",) for event in feed.sink.events), within=15)
        await eventually(lambda: "2" in handler.keys, within=15)
        await sql.close()


async def test_a_prepared_transaction_that_commits_after_a_crash_flushes(
    server: EmbeddedServer, crashable: str
) -> None:
    async with running(crashable, two_phase=True) as feed:
        await feed.watch(ITEM, "'item'")
        await feed.run("begin", "insert into item values (1)", "prepare transaction 'p'")
    await asyncio.to_thread(crash, server)
    async with running(crashable, two_phase=True) as feed:
        before = len(feed.sink.flushes)
        await feed.run("commit prepared 'p'")
        await eventually(lambda: len(feed.sink.flushes) > before, within=3)
        await feed.told()
        await eventually(lambda: not feed.pump._flushing(), within=3, why="the end of the flushes")


async def test_a_clean_restart_flushes_followers_and_lets_consumers_go_on_where_they_were(
    server: EmbeddedServer, crashable: str
) -> None:
    async with running(crashable) as feed:
        await feed.watch(ITEM, "'item'")
        await feed.run("insert into item values (1)")
        await eventually(lambda: "1" in feed.handler.keys)

    def restart() -> None:
        server.stop("fast")
        server.start()

    await asyncio.to_thread(restart)
    async with running(crashable) as feed:
        await feed.run("insert into item values (2)")
        await eventually(lambda: "2" in feed.handler.keys)
        assert feed.handler.reasons == []
