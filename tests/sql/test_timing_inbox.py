"""Timings that are recorded in SQL: nothing is lost or counted twice, nothing fails, nothing grows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from handlers.latency import LatencyRecorder
from handlers.timing_keeper import TimingKeeper
from pipeline.core.window import Windows
from pipeline.db.connection import Database
from pipeline.db.latency import LatencyStore
from pipeline.db.timing_inbox import TimingInbox
from tests.conftest import eventually

BAD = [
    ("'a', 'NaN'", "no duration"),
    ("'a', 'Infinity'", "no duration"),
    ("'a', -1", "no duration"),
    ("'a', 1e308", "no duration"),
    ("'a', null", "no value"),
    ("null, 1", "no name"),
    ("'', 1", "no name"),
    ("repeat('x', 201), 1", "longer than 200"),
    ("'a', 1, '[1]'", "not a JSON object"),
    ("'a', 1, 'null'", "not a JSON object"),
    ("'a', 1, jsonb_build_object('k', repeat('x', 2000))", "longer than 2000"),
]


def keeper(db: Database) -> TimingKeeper:
    """One whose windows can be looked at."""
    return TimingKeeper(LatencyStore(db), TimingInbox(db), Windows(lambda: 0.0))


async def drained(db: Database) -> dict[str, list[float]]:
    """By series, in order, what one drain takes out."""
    found: dict[str, list[float]] = {}
    for one in await TimingInbox(db).drain():
        labels = ",".join(f"{key}={value}" for key, value in one.labels.items())
        found.setdefault(f"{one.name}{labels}", []).extend(one.ms)
    return {series: sorted(values) for series, values in found.items()}


@asynccontextmanager
async def session(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


async def test_what_was_committed_is_taken_out_once(db: Database, sql: asyncpg.Connection, dsn: str) -> None:
    await sql.execute("""select pipeline.record_timing('pay', 12.5, '{"region": "eu"}')""")
    await sql.execute("select pipeline.record_timing('a', v) from generate_series(1, 3) as v")
    await sql.execute("select pipeline.record_timings('a', '{7,8}', null), pipeline.record_timings('a', '{}')")
    async with session(dsn) as other:
        transaction = other.transaction()
        await transaction.start()
        await other.execute("select pipeline.record_timing('late', 1)")
        assert await drained(db) == {"payregion=eu": [12.5], "a": [1, 2, 3, 7, 8]}
        await sql.execute("select pipeline.record_timing('a', 9)")
        assert await drained(db) == {"a": [9]}
        await transaction.commit()
        assert await drained(db) == {"late": [1]}
        with pytest.raises(asyncpg.DivisionByZeroError):
            await other.execute("select pipeline.record_timing('never', 1), 1 / 0")
    assert await drained(db) == {}


async def test_the_leader_makes_series_of_what_sql_records(db: Database, sql: asyncpg.Connection) -> None:
    leads = False
    windows, store = Windows(time.time), LatencyStore(db)
    service = TimingKeeper(store, TimingInbox(db), windows, leading=lambda: leads)
    recorder = LatencyRecorder(store, windows=windows)
    running = asyncio.create_task(service.run())
    await sql.execute("""select pipeline.record_timing('pay', 7, '{"region": "eu", "n": 1}')""")
    await sql.execute("select pipeline.record_timings('pay', '{1,2,3}')")
    await asyncio.wait([running], timeout=0.2)
    assert (windows.totals().added_total, service.healthy().ok) == (0, True)
    leads = True
    await eventually(lambda: windows.totals().added_total == 4, within=10)
    await service.stop()
    await running
    await recorder.flush(everything=True)
    rows = await sql.fetch(
        "select s.source, s.series, t.count, t.p50 from pipeline.timing_series as s cross join lateral"
        " pipeline.timing_totals(s.series || case s.labels when '{}' then '{}' else '' end) as t order by 2"
    )
    assert [tuple(row) for row in rows] == [("sql", "pay", 3, 2.0), ("sql", 'pay{n="1",region="eu"}', 1, 7.0)]


async def test_many_sessions_and_two_leaders_at_once_lose_and_double_nothing(
    db: Database, sql: asyncpg.Connection, dsn: str
) -> None:
    writing = True

    async def write(number: int) -> None:
        async with session(dsn) as connection:
            for i in range(60):
                async with connection.transaction():
                    await connection.execute("select pipeline.record_timing('a', $1)", number * 1_000 + i)
                    if i % 7 == 0:
                        await asyncio.sleep(0.002)

    async def lead() -> list[float]:
        found: list[float] = []
        inbox = TimingInbox(db)
        while True:
            last = not writing
            found += [ms for one in await inbox.drain() for ms in one.ms]
            # each turn, so that truncating meets writers that have just read the gate
            await sql_turn.execute("select pipeline.turn_timing_inbox(1)")
            if last:
                return found

    async with session(dsn) as sql_turn:
        leaders = [asyncio.create_task(lead())]
        leaders.append(asyncio.create_task(_second(db, lambda: writing)))
        await asyncio.gather(*(write(number) for number in range(6)))
        writing = False
        found = [ms for some in await asyncio.gather(*leaders) for ms in some]
    assert sorted(found) == sorted(float(number * 1_000 + i) for number in range(6) for i in range(60))


async def _second(db: Database, writing: object) -> list[float]:
    found: list[float] = []
    while writing():  # type: ignore[operator]
        found += [ms for one in await TimingInbox(db).drain() for ms in one.ms]
        await asyncio.sleep(0)
    return found


async def test_a_timing_that_cannot_be_used_is_a_warning_and_counted(
    db: Database, sql: asyncpg.Connection
) -> None:
    warnings: list[str] = []
    sql.add_log_listener(lambda _connection, message: warnings.append(str(message)))
    kept = keeper(db)
    await kept.drain()
    for i, (arguments, reason) in enumerate(BAD, 1):
        async with sql.transaction():
            await sql.execute(f"create table mine{i} (id int)")
            await sql.execute(f"select pipeline.record_timing({arguments})")
        assert await sql.fetchval(f"select count(*) from mine{i}") == 0
        assert reason in warnings.pop(), arguments
        assert warnings == []
        assert await kept.drain() == 0
        assert kept.totals().rejected_total == i


async def test_of_many_only_the_bad_ones_are_rejected(db: Database, sql: asyncpg.Connection) -> None:
    warnings: list[str] = []
    sql.add_log_listener(lambda _connection, message: warnings.append(str(message)))
    kept = keeper(db)
    await kept.drain()
    await sql.execute("select pipeline.record_timings('a', '{1,NaN,-1,null,1e308,2}')")
    await sql.execute("select pipeline.record_timings('a', null), pipeline.record_timings('', '{1,2}')")
    assert [("4 timings" in w, "a timing" in w, "no name" in w) for w in warnings] == [
        (True, False, False),
        (False, True, False),
        (False, False, True),
    ]
    assert await kept.drain() == 2
    assert kept.totals().rejected_total == 4 + 1 + 2


async def test_a_read_only_transaction_is_told_and_goes_on(sql: asyncpg.Connection) -> None:
    warnings: list[str] = []
    sql.add_log_listener(lambda _connection, message: warnings.append(str(message)))
    async with sql.transaction(readonly=True):
        await sql.execute("select pipeline.record_timing('a', 1), pipeline.record_timing('a', -1)")
        assert await sql.fetchval("select 1") == 1
    assert ["read-only" in warning for warning in warnings] == [True, True]


async def test_the_tables_are_emptied_in_turn_and_an_open_transaction_delays_only_that(
    db: Database, sql: asyncpg.Connection, dsn: str
) -> None:
    async def sizes() -> list[int]:
        return [
            await sql.fetchval(f"select pg_relation_size('pipeline.timing_inbox_{table}')") for table in (0, 1)
        ]

    async def turn() -> None:
        await sql.execute("select pipeline.turn_timing_inbox(1)")

    await sql.execute("select pipeline.record_timing('a', 1)")
    await turn()  # now the other table is written
    await sql.execute("select pipeline.record_timing('a', 2)")
    await turn()  # nothing was taken out yet: both stay
    assert min(await sizes()) > 0
    assert await drained(db) == {"a": [1, 2]}
    await turn()
    assert (await sizes())[0] == 0
    async with session(dsn) as holder, session(dsn) as snapshot:
        async with snapshot.transaction(isolation="repeatable_read"):
            await snapshot.fetchval("select count(*) from pg_class")  # a report that runs for hours
            async with holder.transaction():
                other = 1 - await sql.fetchval("select last_value from pipeline.timing_gate")
                await holder.execute("select pipeline.record_timing('held', 1)")
                others = []  # how large the table is that it did not write to
                for ms in range(8):
                    await sql.execute(
                        "select count(pipeline.record_timing('a', $1)) from generate_series(1, 300)", ms
                    )
                    assert await drained(db) == {"a": [ms] * 300}
                    await turn()
                    others.append((await sizes())[other])
                assert 0 in others[others.index(max(others)) :]
                assert (await sizes())[1 - other] > 0
            assert await drained(db) == {"held": [1]}
            for _ in range(3):
                await turn()
                await drained(db)
        assert min(await sizes()) == 0


async def test_an_inbox_that_nobody_empties_is_bounded_and_says_what_it_dropped(
    db: Database, sql: asyncpg.Connection
) -> None:
    kept = keeper(db)
    await kept.drain()
    await sql.execute("select setval('pipeline.timing_gate', 2)")  # as gauge_timing_inbox does at 128 MiB
    await sql.execute("select pipeline.record_timings('a', '{1,2,3}'), pipeline.record_timing('a', 4)")
    await sql.execute("select pipeline.record_timing('a', 'NaN')")
    assert await kept.drain() == 0
    assert (kept.totals().dropped_total, kept.totals().rejected_total) == (4, 1)
    await sql.execute("select pipeline.record_timing('a', 5)")  # the leader has opened the gate again
    assert await kept.drain() == 1


async def test_the_gate_closes_at_a_size(sql: asyncpg.Connection) -> None:
    await sql.execute("select pipeline.record_timing('a', 1)")
    for full, gate in ((8_192, 0), (8_191, 2), (8_191, 2)):
        assert await sql.fetchval("select pipeline.gauge_timing_inbox($1)", full) == gate


async def test_a_place_that_was_restored_from_another_server_hides_nothing_new(
    db: Database, sql: asyncpg.Connection
) -> None:
    await sql.execute("select pipeline.record_timing('old', 1)")
    await sql.execute("insert into pipeline.timing_inbox_place (position) values ('9000000000000:9000000000000:')")
    await drained(db)
    await sql.execute("select pipeline.record_timing('new', 1)")
    assert await drained(db) == {"new": [1]}
