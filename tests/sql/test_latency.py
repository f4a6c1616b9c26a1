"""Timings in Postgres: percentiles without a daemon, many writers, the roll-up, pruning, record_timing."""

from __future__ import annotations

import asyncio
import json
import random
from itertools import chain

import asyncpg
import pytest

from pipeline.core.centroids import unpack
from pipeline.core.digest import Digest, quantiles
from pipeline.core.kept import sums_of
from pipeline.core.window import Part, Series, Windows, series_name
from pipeline.db.connection import Database
from pipeline.db.latency import LatencyStore
from tests.pure.test_digest import QS, SHAPES, day
from tests.time_kit import stand_at

NOON = 1_800_000_000  # a multiple of 86,400 s plus 28,800 s


def part(series: str, start: int, values: list[float], *, errors: int = 0, over: int = 0) -> Part:
    return Part(Series(series, "span", series), start, Digest(values), errors, over)


async def write(store: LatencyStore, parts: list[Part]) -> None:
    """Write parts of other times than now: their series count as written to at any time."""
    await store.flush(store.number(parts))
    async with store._database.acquire() as connection:
        await connection.execute(
            "lock pipeline.timing_series in share row exclusive mode;"
            "update pipeline.timing_series set last_at = 'infinity'"
        )


@pytest.mark.parametrize("shape", SHAPES)
async def test_percentiles_of_a_stored_day_are_within_one_percent_of_percentile_cont(
    shape: str, db: Database, sql: asyncpg.Connection
) -> None:
    values, minutes = day(shape)
    store = LatencyStore(db)
    start = NOON - 86_400
    parts = [Part(Series("s", "span", "s"), start + 60 * i, digest) for i, digest in enumerate(minutes)]
    await write(store, parts)
    await stand_at(sql, NOON)
    true = await sql.fetchval(
        "select percentile_cont($2::float8[]) within group (order by v) from unnest($1::float8[]) as v",
        values,
        QS,
    )
    pooled = [await sql.fetchval("select pipeline.percentile('s', $1, '1 day')", q) for q in QS]
    assert pooled == pytest.approx(true, rel=0.01)
    windows = 0
    while rolled_up := await roll_up(db.dsn or ""):
        windows += rolled_up
    assert windows == 1_439 + 287 + 23 + 1  # the last of each is not closed; one midnight lies between
    rolled = [await sql.fetchval("select pipeline.percentile('s', $1, '1 day')", q) for q in QS]
    assert rolled == pytest.approx(true, rel=0.01)


@pytest.mark.parametrize("shape", SHAPES)
async def test_sql_and_python_agree_to_a_billionth(shape: str, db: Database, sql: asyncpg.Connection) -> None:
    draw, store = random.Random(3), LatencyStore(db)
    groups = [[SHAPES[shape](draw) for _ in range(size)] for size in (1, 2, 17, 400, 3_000)]
    parts = [part("s", NOON + 5 * i, group) for i, group in enumerate(groups)]
    parts.append(part("alone", NOON, groups[4]))
    await write(store, parts)
    await stand_at(sql, NOON + 60)
    qs = [0, 1e-6, 0.01, 1 / 3, 0.5, 0.9, 0.95, 0.99, 0.999, 1 - 1e-9, 1]
    low, high = min(map(min, groups)), max(map(max, groups))
    kept = [unpack(sums_of(one).numbers, one.digest.low, one.digest.high) for one in parts]
    means, weights = (list(chain.from_iterable(column)) for column in zip(*kept[:5], strict=True))
    alone = quantiles(*kept[5], min(groups[4]), max(groups[4]), qs)
    expected = {"s": quantiles(means, weights, low, high, qs), "alone": alone}
    for series, answers in expected.items():
        found = [await sql.fetchval("select pipeline.percentile($1, $2)", series, q) for q in qs]
        assert found == pytest.approx(answers, rel=1e-9)


async def test_there_is_no_percentile_without_data(sql: asyncpg.Connection) -> None:
    assert await sql.fetchval("select pipeline.percentile('nothing', 0.99)") is None


async def test_a_quantile_outside_0_to_1_is_refused_with_the_reason(sql: asyncpg.Connection) -> None:
    for q in (99.0, -1.0, float("nan"), None):
        with pytest.raises(asyncpg.InvalidParameterValueError, match="between 0 and 1"):
            await sql.fetchval("select pipeline.percentile('s', $1)", q)


async def test_an_underscore_in_a_name_is_no_wildcard(db: Database, sql: asyncpg.Connection) -> None:
    await write(LatencyStore(db), [part("a_b", NOON, [1.0]), part("axb", NOON, [9.0])])
    await stand_at(sql, NOON + 5)
    assert await sql.fetchval("select pipeline.percentile('a_b', 1)") == 1.0


async def test_the_table_of_series_gives_exact_counts(db: Database, sql: asyncpg.Connection) -> None:
    store = LatencyStore(db)
    await write(store, [part("a", NOON, [1.0, 3.0], errors=1), part("a", NOON + 5, [8.0]), part("b", NOON, [2.0])])
    await stand_at(sql, NOON + 10)
    rows = await sql.fetch("select * from pipeline.latency('1 hour')")
    assert [tuple(row) for row in rows] == [
        ("a", 3, 4.0, 3.0, pytest.approx(7.5), pytest.approx(7.9), 8.0, 1),
        ("b", 1, 2.0, 2.0, 2.0, 2.0, 2.0, 0),
    ]


async def test_several_writers_flush_the_same_windows_at_once(db: Database, sql: asyncpg.Connection) -> None:
    stores = [LatencyStore(db) for _ in range(6)]
    parts = [part(f"s{i}", NOON, [float(i), 5.0]) for i in range(50)]
    await asyncio.gather(*(write(store, parts) for store in stores for _ in range(3)))
    await stand_at(sql, NOON + 5)
    rows = await sql.fetch("select count from pipeline.latency('1 minute')")
    assert [row["count"] for row in rows] == [6 * 3 * 2] * 50


async def test_writing_parts_again_changes_nothing(db: Database, sql: asyncpg.Connection) -> None:
    store = LatencyStore(db)
    numbered = store.number([part("a", NOON, [1.0]), part("b", NOON, [1.0])])
    await store.flush(numbered)
    await store.flush(numbered)
    await write(store, [])
    await stand_at(sql, NOON + 5)
    assert await sql.fetchval("select sum(count) from pipeline.latency('1 hour')") == 2


async def roll_up(dsn: str, *, at_once: int = 1) -> int:
    """Roll up in sessions of their own, which see the present of the database; how many windows were rolled up."""
    async with Database(dsn) as db:
        return sum(await asyncio.gather(*(LatencyStore(db).roll_up() for _ in range(at_once))))


async def test_rolling_up_keeps_every_count_exactly_and_late_data_too(
    db: Database, sql: asyncpg.Connection
) -> None:
    store, draw = LatencyStore(db), random.Random(9)
    midnight = NOON - NOON % 86_400
    written = 0
    for start in range(midnight, midnight + 4 * 3_600, 300):
        await write(store, [part("a", start + 5 * i, [draw.random() * 9], errors=1) for i in range(3)])
        written += 3
    for at, late in ((midnight + 4 * 3_600, 0), (midnight + 5 * 3_600, 7), (midnight + 86_400 + 20, 11)):
        await stand_at(sql, at - 61)
        async with Database(db.dsn) as present:
            await write(
                LatencyStore(present), [part("a", midnight + 605 + 5 * i, [1.0], errors=1) for i in range(late)]
            )
        written += late
        await stand_at(sql, at)
        assert await roll_up(db.dsn or "", at_once=3) > 0
        await roll_up(db.dsn or "")  # three that take turns may all find the lock taken
        for over in ("1 day 1 minute", "2 days", "8 days", "60 days"):  # at three different levels
            [row] = await sql.fetch("select count, errors from pipeline.latency($1::text::interval)", over)
            assert tuple(row) == (written, written), over
    for later in (400, 4_000, 100_000):  # what was late is gathered for as long as the next window lasts
        await stand_at(sql, at + later)
        await roll_up(db.dsn or "", at_once=3)
        await roll_up(db.dsn or "")
    levels = await sql.fetch("select seconds, sum(count) as n from pipeline.timing_part group by 1 order by 1")
    assert [tuple(row) for row in levels] == [(seconds, written) for seconds in (60, 300, 3_600, 86_400)]


async def test_an_open_window_is_not_rolled_up(db: Database, sql: asyncpg.Connection) -> None:
    await write(LatencyStore(db), [part("a", NOON, [1.0])])
    await stand_at(sql, NOON + 69)  # the minute ended nine seconds ago, within the grace
    assert await roll_up(db.dsn or "") == 0
    await stand_at(sql, NOON + 70)
    assert await roll_up(db.dsn or "") == 1


async def test_pruning_leaves_what_the_next_level_does_not_contain(db: Database, sql: asyncpg.Connection) -> None:
    async def prune() -> int:
        async with Database(db.dsn) as present:
            return await LatencyStore(present).prune()

    await write(LatencyStore(db), [part("a", NOON, [1.0])])
    await stand_at(sql, NOON + 29 * 86_400)
    assert await prune() == 0
    await stand_at(sql, NOON + 70)
    assert await roll_up(db.dsn or "") == 1
    await stand_at(sql, NOON + 29 * 86_400)
    assert await prune() == 1  # the batch
    assert await roll_up(db.dsn or "") == 3
    assert await prune() == 2  # 1 min and 5 min; the hour is kept a day longer
    assert await sql.fetchval("select pipeline.percentile('a', 0.5, '60 days')") == 1.0
    await stand_at(sql, NOON + 399 * 86_400)
    assert await prune() == 1
    await stand_at(sql, NOON + 401 * 86_400)
    assert await prune() == 1
    for table in ("batch", "roll", "part"):
        assert await sql.fetchval(f"select count(*) from pipeline.timing_{table}") == 0


async def test_a_role_with_usage_alone_can_record_and_read(sql: asyncpg.Connection) -> None:
    role = f"app_{random.randrange(10**12)}"
    await sql.execute(f"create role {role}; grant usage on schema pipeline to {role}")
    try:
        await sql.execute(f"set role {role}")
        await sql.execute("select pipeline.record_timing('a', 1), pipeline.record_timings('a', '{1}')")
        assert await sql.fetchval("select pipeline.percentile('a', 0.5)") is None
        assert await sql.fetch("select * from pipeline.latency()") == []
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await sql.fetch("select * from pipeline.timing_part")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await sql.fetch("select * from pipeline.timing_summary('{1}', '{1}', now(), now(), 5, 5, '{0}')")
    finally:
        await sql.execute(f"reset role; drop owned by {role}; drop role {role}")


async def test_no_batch_of_whoever_may_use_the_schema_holds_up_the_roll_up(
    db: Database, sql: asyncpg.Connection
) -> None:
    [series] = await sql.fetch("select id from pipeline.timing_ids('{a}', '{span}', '{a}', '{\"{}\"}')")
    good = (NOON, series["id"], 2, 3.0, 1.0, 2.0, 0, 0, 0, 3, [0, 1, 2])
    call = """
        select pipeline.write_timings(gen_random_uuid()::text, 1, $1::float8, array[$2::int], array[$3::bigint],
            array[$4::float8], array[$5::float8], array[$6::float8], array[$7::bigint], array[$8::bigint],
            array[$9::bigint], array[$10::int], $11::smallint[])
    """
    nan, inf = float("nan"), float("inf")
    for place, value in (
        (0, inf), (0, -inf), (0, nan), (0, None), (1, None), (2, 0), (2, 2**62), (2, None), (3, nan), (3, 1e308),
        (4, nan), (4, 2.5), (5, inf), (6, -1), (6, 3), (7, 3), (8, 2**62), (9, 2), (9, 50), (9, -50), (9, None),
        (10, [3, 1, 1]), (10, [-7, 1, 1]), (10, [0, 1, None]), (10, [0, 1, 1, 1]), (10, []),
    ):  # fmt: skip
        with pytest.raises(asyncpg.InvalidParameterValueError, match="cannot be read"):
            await sql.execute(call, *good[:place], value, *good[place + 1 :])
    with pytest.raises(asyncpg.InvalidParameterValueError, match="cannot be read"):
        await sql.execute(call, *good[:9], 4, [1, 1, 2, 3])
    await sql.execute(call, *good)
    await sql.execute(call, *good[:9], 101, [1] + [9] * 50 + [0] * 50)  # centroids that count nothing
    await stand_at(sql, NOON + 600)
    assert await LatencyStore(db).roll_up() == 2
    assert await sql.fetchval("select sum(count) from pipeline.timing_1m") == 4


async def test_labels_make_the_same_name_in_sql_and_in_python(sql: asyncpg.Connection) -> None:
    for labels in ({}, {"b": 1, "a": "eu", "B": True}, {"x": None}):
        name = await sql.fetchval("select pipeline.series_name('s', $1::jsonb)", json.dumps(labels))
        assert name == series_name("s", labels)


async def test_windows_of_many_series_are_written_in_rows_of_500(db: Database, sql: asyncpg.Connection) -> None:
    windows = Windows(lambda: NOON + 15)
    for i in range(3_000):
        windows.series(f"series{i % 1_000}").add_at(i % 7, NOON + i % 15)
    await write(LatencyStore(db), windows.take(None))
    await stand_at(sql, NOON + 15)
    assert await sql.fetchval("select sum(count) from pipeline.latency('1 hour')") == 3_000
    rows = await sql.fetch("select start, cardinality(series) as size from pipeline.timing_batch")
    assert [row["size"] for row in rows] == [500] * 6


async def test_what_lies_ahead_is_not_read_before_its_time(db: Database, sql: asyncpg.Connection) -> None:
    names = [f"s{i}" for i in range(9)]  # many series are read in another way than few
    await write(LatencyStore(db), [part(name, at, [1.0]) for name in names for at in (NOON, NOON + 3_600)])
    await stand_at(sql, NOON + 10)
    for over in ("1 minute", "10 minutes", "1 day"):
        assert await sql.fetchval("select count from pipeline.timing_totals('s1', $1::text::interval)", over) == 1
        assert await sql.fetchval("select sum(count) from pipeline.latency($1::text::interval)", over) == 9
    await stand_at(sql, NOON + 3_610)
    assert await sql.fetchval("select count from pipeline.timing_totals('s1', '2 hours')") == 2


async def test_a_step_that_no_number_holds_is_refused_with_the_reason(sql: asyncpg.Connection) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match="does not fit"):
        await sql.fetch("select * from pipeline.timing_history('s', '1 hour', '1000 years')")
