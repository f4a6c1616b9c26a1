"""The timings of a process: which client writes them, and what is lost when the database is away."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress

import asyncpg
import pytest

import pipeline
from handlers import timing_writer
from handlers.latency import LatencyRecorder
from pipeline.app import Client
from pipeline.app.board import CacheBoard
from pipeline.app.timing import recorder as of_process
from pipeline.core.status import TimingsStatus
from pipeline.core.window import Windows
from pipeline.db.connection import Database
from pipeline.db.latency import LatencyStore
from pipeline.errors import PgreflexError
from pipeline.feed.follower import Follower
from pipeline.runtime import Supervisor
from tests.conftest import eventually

STORED = """select coalesce(sum((d).count), 0) from pipeline.timing_batch cross join unnest(digests) as d
    join pipeline.timing_series s on s.id = (d).series where s.name = $1"""


def client_of(dsn: str, *, timings: bool = True) -> Client:
    return Client(dsn, pump=False, self_check=False, timings=timings)


async def stored(dsn: str, name: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        return int(await connection.fetchval(STORED, name))
    finally:
        await connection.close()


async def test_timings_go_to_the_client_that_was_opened_first_and_to_no_other(
    new_database: Callable[[str], Awaitable[str]], template: str
) -> None:
    first, second = await new_database(template), await new_database(template)
    name = uuid.uuid4().hex
    live = of_process.series(name)
    unused, one = client_of(second, timings=False), client_of(first)
    again, other = client_of(first), client_of(second)
    async with unused, one, again, other:
        for _ in range(100):
            live.add(1.0)
        for client in (unused, other, again, one, other):
            await client.timings.flush(everything=True)
        assert (await stored(first, name), await stored(second, name)) == (100, 0)
        for _ in range(7):
            live.add(1.0)
        await one.close()  # nothing is left behind
        assert (await stored(first, name), await stored(second, name)) == (107, 0)
        await again.close()
        for _ in range(5):
            live.add(1.0)
    for _ in range(3):
        live.add(1.0)
    assert (await stored(first, name), await stored(second, name)) == (107, 5)
    async with client_of(second):
        pass
    assert (await stored(first, name), await stored(second, name)) == (107, 8)


async def test_while_the_database_is_away_the_oldest_timings_are_dropped_and_counted(
    dsn: str, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_800_000_000.0]
    windows = Windows(lambda: now[0])
    database = Database(dsn)
    recorder = LatencyRecorder(LatencyStore(database), windows=windows)
    monkeypatch.setattr(timing_writer, "PENDING_BYTES", 10_000)
    for _ in range(100):
        now[0] += 5
        windows.series("a").add(1.0)
        with suppress(PgreflexError):
            await recorder.flush()
    async with database:
        await recorder.flush(everything=True)
    dropped = recorder.totals().dropped_total
    assert 80 < dropped < 95
    assert f"{dropped} timings were dropped" in recorder.healthy().detail
    assert await stored(dsn, "a") == 100 - dropped
    found = await sql.fetch("select extract(epoch from start)::float8 as start from pipeline.timing_batch")
    starts = sorted(row["start"] for row in found)
    assert starts == [now[0] - 5 * back for back in reversed(range(100 - dropped))]


async def test_what_cannot_be_written_at_the_end_is_counted_as_dropped(dsn: str) -> None:
    shared = Windows(lambda: 1_800_000_000.0)
    recorder = LatencyRecorder(LatencyStore(Database(dsn)), shared=shared)
    recorder.enter()
    shared.series("a").add(1.0)
    await recorder.close()
    assert shared.dropped_total == 1


async def test_texts_that_the_database_cannot_hold_do_not_hold_up_the_others(dsn: str) -> None:
    async with Database(dsn) as database:
        recorder = LatencyRecorder(LatencyStore(database))
        for name in ("nul\0", "half \ud800", "fine"):
            recorder.windows.series(name, {"user\0\udcff": "\0\ud800"}).add(1.0)
        await recorder.flush(everything=True)
        assert await stored(dsn, "fine") == 1


async def test_the_totals_of_all_processes_reach_the_daemon(dsn: str) -> None:
    board = CacheBoard()
    async with Client(dsn, self_check=False):
        pipeline.record("bad", -1.0)
        following = Supervisor([Follower(dsn, [board])], drain_timeout=5)
        following.start()
        loop = asyncio.get_running_loop()
        own = TimingsStatus(rejected_total=10_000, series=3)
        await eventually(lambda: board.timings(loop.time(), own).rejected_total > 10_000)
        assert board.timings(loop.time(), own).series >= 3
        await following.stop()
