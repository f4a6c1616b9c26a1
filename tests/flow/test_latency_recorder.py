"""The latency recorder: events and calls become series in Postgres, and nothing is lost on the way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import asyncpg
import pytest

from handlers.latency import LatencyRecorder
from pipeline.core.events import Event
from pipeline.core.window import Windows
from pipeline.db.connection import Database
from pipeline.db.latency import Batch, LatencyStore
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
            Event(3, "pipeline.timing", "e", payload='{"name":"pay","ms":7,"labels":{"region":"eu"}}', at=NOON),
            Event(3, "pipeline.timing", "e", payload="no json", at=NOON),
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
        'pay{region="eu"}': 1,
        "render": 1,
    }
    assert (recorder.unreadable_total, recorder.windows.rejected_total) == (1, 1)


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


async def test_the_status_covers_what_other_processes_wrote_and_what_is_still_in_memory(
    db: Database, sql: asyncpg.Connection
) -> None:
    other = LatencyRecorder(LatencyStore(db))
    here = LatencyRecorder(LatencyStore(db), windows=Windows(time.time, slow_ms=5))
    for ms in (1.0, 2.0):
        other.record("a", ms)
    await other.flush(everything=True)
    here.record("a", 9.0, error=True)
    [series] = (await here.quantiles(60)).values()
    assert (series.name, series.latency.count, series.errors, series.max_ms) == ("a", 3, 1, 9.0)
    assert (series.latency.p50, series.latency.window_seconds) == (2.0, 60)


async def test_what_is_just_being_written_is_not_counted_twice(db: Database) -> None:
    class Slow(LatencyStore):
        """The store, whose answer takes its time."""

        written, answer = asyncio.Event(), asyncio.Event()

        async def flush(self, batches: Sequence[Batch]) -> None:
            await super().flush(batches)
            self.written.set()
            await self.answer.wait()

    store = Slow(db)
    recorder = LatencyRecorder(store)
    recorder.record("a", 1.0)
    flushing = asyncio.create_task(recorder.flush(everything=True))
    await store.written.wait()
    asking = asyncio.create_task(recorder.quantiles(60))
    await asyncio.wait([asking], timeout=0.3)
    store.answer.set()
    assert (await asking)["a"].latency.count == 1
    await flushing


async def test_the_recorder_keeps_the_time_of_the_database(dsn: str, sql: asyncpg.Connection) -> None:
    await stand_at(sql, NOON)
    async with Database(dsn) as db:
        recorder = LatencyRecorder(LatencyStore(db), clock=lambda: 1_000.0)
        await recorder.start()
        recorder.record("a", 1.0)
        await recorder.flush(everything=True)
    assert await sql.fetchval("select extract(epoch from start) from pipeline.timing_batch") == NOON
