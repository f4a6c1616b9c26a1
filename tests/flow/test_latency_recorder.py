"""The latency recorder: events and calls become series in Postgres, and nothing is lost on the way."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from handlers.latency import LatencyRecorder
from handlers.timing_board import TimingBoard
from pipeline.core.events import Event
from pipeline.core.status import Quantiles
from pipeline.db.connection import Database
from pipeline.db.latency import LatencyStore
from pipeline.db.timing_view import TimingViews
from pipeline.errors import PgreflexError
from tests.conftest import eventually
from tests.time_kit import stand_at

NOON = 1_800_000_000.0


async def counts(sql: asyncpg.Connection) -> dict[str, int]:
    await sql.execute("update pipeline.timing_series set last_at = 'infinity'")  # the clocks of these tests differ
    return {row["series"]: row["count"] for row in await sql.fetch("select * from pipeline.latency('1 hour')")}


async def test_timed_statements_and_recorded_timings_become_series(db: Database, sql: asyncpg.Connection) -> None:
    recorder = LatencyRecorder(LatencyStore(db), clock=lambda: NOON)
    await recorder.handle(
        [
            Event(1, "orders", "i", ms=2.0, at=NOON - 1),
            Event(1, "orders", "u", ms=None, at=NOON),
            Event(2, "sales.items", "d", ms=1.0),
            Event(3, "mail.sent", "e", payload='{"name":"x","ms":7}', at=NOON, ms=3.0),
        ]
    )
    recorder.record("render", 5.0, error=True)
    recorder.record("render", float("nan"))
    await recorder.flush(everything=True)
    await stand_at(sql, NOON)
    assert await counts(sql) == {
        "orders.insert": 1,
        "sales.items.delete": 1,
        "render": 1,
    }
    assert recorder.windows.rejected_total == 1


async def test_what_could_not_be_written_is_written_later_and_once(dsn: str, sql: asyncpg.Connection) -> None:
    db = Database(dsn)
    recorder = LatencyRecorder(LatencyStore(db), clock=lambda: NOON)
    recorder.record("a", 1.0)
    for _ in range(2):
        with pytest.raises(PgreflexError):  # the pool is closed
            await recorder.flush(everything=True)
    recorder.record("a", 2.0)
    async with db:
        await recorder.flush(everything=True)
        await recorder.flush(everything=True)
    await stand_at(sql, NOON)
    assert await counts(sql) == {"a": 2}


async def test_what_the_database_refuses_holds_nothing_else_up(db: Database, sql: asyncpg.Connection) -> None:
    await sql.execute("alter table pipeline.timing_series add check (name <> 'bad')")
    recorder = LatencyRecorder(LatencyStore(db), clock=lambda: NOON)
    for name in ("a", "b", "bad", "c", "d"):
        recorder.record(name, 1.0)
    await recorder.flush(everything=True)
    await stand_at(sql, NOON)
    assert await counts(sql) == dict.fromkeys("abcd", 1)
    assert recorder.totals().dropped_total == 1


async def test_the_running_service_writes_closed_windows_and_the_rest_when_it_stops(
    db: Database, sql: asyncpg.Connection
) -> None:
    recorder = LatencyRecorder(LatencyStore(db))
    await recorder.start()
    running = asyncio.create_task(recorder.run())
    recorder.record("first", 1.0)

    async def written() -> bool:
        return await counts(sql) == {"first": 1}

    await eventually(written, within=8.0, why="the window of five seconds was written after its close")
    recorder.record("last", 1.0)
    await recorder.stop()
    await running
    assert await counts(sql) == {"first": 1, "last": 1}
    assert recorder.healthy().ok


async def test_the_status_covers_what_every_process_wrote_while_it_is_asked_for(
    db: Database, sql: asyncpg.Connection
) -> None:
    for name in ("a", "b"):
        recorder = LatencyRecorder(LatencyStore(db), slow_ms=5)
        for ms in (1.0, 2.0, 9.0):
            recorder.record("a" if ms < 9 else name, ms, error=ms > 5)
        live = recorder.windows.series("query", {"fingerprint": "0" * 16}, source="query")
        live.add(30.0)
        await recorder.flush(everything=True)
    await sql.execute(
        "insert into pipeline.query (fingerprint, version, kind, text, first_at, last_at)"
        " values (repeat('0', 16), 1, 'ok', repeat('x', 9000), now(), now())"
    )
    board = TimingBoard(TimingViews(db))
    running = asyncio.create_task(board.run())
    await asyncio.sleep(0)
    assert board.queries() == ()
    await eventually(board.series)
    [first, second, third] = board.series()
    assert (first.name, first.source, first.errors, first.max_ms) == ("a", "span", 1, 9.0)
    assert first.latency == Quantiles(2.0, pytest.approx(7.6), pytest.approx(8.72), 5, 300)  # type: ignore[arg-type]
    assert {second.name, third.name} == {"b", 'query{fingerprint="0000000000000000"}'}
    [query] = board.queries()
    assert (query.fingerprint, query.text, query.latency.count) == ("0" * 16, "x" * 400 + " ...", 2)
    await board.stop()
    await running


async def test_a_board_that_cannot_read_keeps_what_it_has_as_long_as_it_holds(
    db: Database, sql: asyncpg.Connection
) -> None:
    recorder = LatencyRecorder(LatencyStore(db))
    recorder.record("a", 1.0)
    await recorder.flush(everything=True)
    now = 1_000.0
    board = TimingBoard(TimingViews(db), clock=lambda: now)
    await board.refresh()
    await sql.execute("alter function pipeline.slow_queries rename to gone")
    board.series()
    running = asyncio.create_task(board.run())
    await eventually(lambda: "cannot be read" in board.healthy().detail)
    assert board.healthy().ok
    assert [one.name for one in board.series()] == ["a"]
    now += 60  # the database is away, or nobody asked for so long
    assert board.series() == board.queries() == ()
    await board.stop()
    await running


async def test_the_recorder_keeps_the_time_of_the_database(dsn: str, sql: asyncpg.Connection) -> None:
    await stand_at(sql, NOON)
    async with Database(dsn) as db:
        recorder = LatencyRecorder(LatencyStore(db), clock=lambda: 1_000.0)
        await recorder.start()
        recorder.record("a", 1.0)
        await recorder.flush(everything=True)
    assert await sql.fetchval("select extract(epoch from start) from pipeline.timing_batch") == NOON
