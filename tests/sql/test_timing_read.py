"""Reading timings in SQL: what a name means, spans, totals, histograms, histories, slow queries, mistakes."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence

import asyncpg
import pytest

from pipeline.core.centroids import pack
from pipeline.core.series import usable
from pipeline.db.connection import Database
from pipeline.db.latency import LatencyStore
from pipeline.db.timing_view import TimingViews
from pipeline.errors import Busy
from tests.sql.test_latency import NOON, part, roll_up, write
from tests.time_kit import stand_at

QS = (0.0, 0.25, 0.5, 0.95, 0.99, 1.0)


async def store(
    db: Database,
    name: str,
    values: Sequence[float],
    *,
    labels: Mapping[str, object] | None = None,
    source: str = "span",
    at: int = NOON,
    errors: int = 0,
    rows: int = 0,
) -> None:
    one = part(name, at, list(values), errors=errors)
    one.series, one.rows = usable(name, labels, source)[0], rows
    await write(LatencyStore(db), [one])


async def exactly(sql: asyncpg.Connection, values: Sequence[float]) -> list[float]:
    found: list[float] = await sql.fetchval(
        "select percentile_cont($2::float8[]) within group (order by v) from unnest($1::float8[]) as v",
        list(values),
        list(QS),
    )
    return found


async def test_a_name_reads_the_union_of_its_label_sets_and_never_a_mean_of_percentiles(
    db: Database, sql: asyncpg.Connection
) -> None:
    fast = [float(ms) for ms in range(1, 100)]
    slow = [1_000.0 * ms for ms in range(1, 12)]
    await store(db, "pay", fast, labels={"region": "eu", "kind": "card"})
    await store(db, "pay", slow, labels={"region": "us"}, at=NOON + 5)
    await store(db, "pay", [7.0])
    await stand_at(sql, NOON + 10)

    async def read(series: str, labels: Mapping[str, str] | None = None) -> list[float]:
        given = None if labels is None else json.dumps(labels)
        call = "select pipeline.percentile($1, $2, labels => $3::jsonb)"
        return [await sql.fetchval(call, series, q, given) for q in QS]

    # a mean is exact to one part in 2,048, and so is what lies between two
    assert await read("pay") == pytest.approx(await exactly(sql, [*fast, *slow, 7.0]), rel=1 / 2_048)
    p95s = [(await read('pay{kind="card",region="eu"}'))[3], (await read('pay{region="us"}'))[3]]
    assert p95s == pytest.approx([(await exactly(sql, fast))[3], (await exactly(sql, slow))[3]], rel=1 / 2_048)
    assert abs((await read("pay"))[3] - sum(p95s) / 2) > 200  # which is 5,297
    assert await read("pay", {"region": "us"}) == pytest.approx(await exactly(sql, slow), rel=1 / 2_048)
    assert await read("pay", {}) == await read("pay")
    assert await read("pay{}") == [7.0] * len(QS)
    assert await read("pay", {"region": "asia"}) == [None] * len(QS)
    [row] = await sql.fetch("select * from pipeline.timing_totals('pay')")
    assert (row["count"], row["min"], row["max"]) == (111, 1.0, 11_000.0)
    assert row["total"] == pytest.approx(sum(fast) + sum(slow) + 7)
    known = await sql.fetch("select series, labels from pipeline.timing_series_list('pay')")
    assert [row["series"] for row in known] == ["pay", 'pay{kind="card",region="eu"}', 'pay{region="us"}']


async def test_a_span_begins_where_it_should_whatever_is_rolled_up(db: Database, sql: asyncpg.Connection) -> None:
    ages = [20, 70, 280, 297, 900, 3_000, 3_700, 7_400, 9_000, 40_000, 90_000, 200_000, 700_000, 3_000_000]
    for age in ages:
        await store(db, "a", [float(age)], at=NOON - age, errors=1)
    await stand_at(sql, NOON + 2)
    spans = [60, 290, 600, 1_200, 3_600, 7_300, 30_000, 86_400, 120_000, 400_000, 2_000_000, 8_000_000]
    edges = [5, 5, 5, 60, 60, 60, 300, 300, 300, 3_600, 3_600, 86_400]

    async def check() -> None:
        for span, edge in zip(spans, edges, strict=True):
            row = await sql.fetchrow("select * from pipeline.timing_totals('a', make_interval(secs => $1))", span)
            count = 0 if row is None else row["count"]
            # what is older than the span by less than an edge may be in it
            assert sum(age + 2 < span for age in ages) <= count <= sum(age + 2 < span + edge for age in ages), span
            assert row is None or (row["errors"] == count and row["max"] <= span + edge)

    await check()
    while await roll_up(db.dsn or ""):
        pass
    await check()


async def test_the_counts_of_a_histogram_add_up_and_agree_with_percentiles(
    db: Database, sql: asyncpg.Connection
) -> None:
    draw = random.Random(5)
    few = [0.0, 0.5, 1.0, 1.0, 2.0, 2.5, 30.0]
    many = [draw.lognormvariate(2, 1.5) for _ in range(20_000)]
    await store(db, "few", few)
    for place in range(10):
        await store(db, "many", many[place::10], at=NOON + 5 * place)
    await store(db, "constant", [7.0] * 1_000)
    await stand_at(sql, NOON + 60)

    async def read(series: str, bounds: list[float] | None = None) -> list[tuple[float, float, int, float]]:
        rows = await sql.fetch("select * from pipeline.latency_histogram($1, bounds => $2)", series, bounds)
        return [tuple(row) for row in rows]

    found = await read("few", [0, 1, 2, 10])
    assert [row[:3] for row in found] == [(0, 0, 1), (0, 1, 3), (1, 2, 1), (2, 10, 1), (10, None, 1)]
    assert sum(row[3] for row in found) == pytest.approx(1)
    assert [row[:3] for row in await read("constant")] == [(5.0, 10.0, 1_000)]
    usual = await read("many")
    assert sum(row[2] for row in usual) == len(many)
    assert usual[0][0] <= min(many) <= usual[0][1]
    assert usual[-1][0] < max(many) <= usual[-1][1]
    assert [upto for _, upto, _, _ in usual[:-1]] == [above for above, _, _, _ in usual[1:]]
    for above, upto, count, _share in usual:
        assert count == pytest.approx(sum(above < value <= upto for value in many), abs=200), (above, upto)
    p95 = await sql.fetchval("select pipeline.percentile('many', 0.95)")
    assert (await read("many", [p95]))[0][2] == pytest.approx(19_000, abs=1)
    assert await read("nothing") == []


async def test_a_history_has_a_row_for_every_step(db: Database, sql: asyncpg.Connection) -> None:
    await store(db, "a", [1.0, 3.0], at=NOON - 300, errors=1)
    await store(db, "a", [9.0], labels={"b": "c"}, at=NOON - 290)
    await store(db, "a", [5.0], at=NOON)
    await stand_at(sql, NOON + 30)
    rows = await sql.fetch("select * from pipeline.timing_history('a', '7 minutes', '1 minute')")
    assert [(row["at"].timestamp() - NOON, row["count"]) for row in rows] == [
        (-420, 0), (-360, 0), (-300, 3), (-240, 0), (-180, 0), (-120, 0), (-60, 0), (0, 1),
    ]  # fmt: skip
    assert [rows[2][key] for key in ("p50", "max", "errors")] == [3.0, 9.0, 1]
    assert rows[2]["mean"] == pytest.approx(13 / 3)
    assert [rows[3][key] for key in ("p50", "max", "errors")] == [None, None, 0]
    counts = "select count(*) from pipeline.timing_history('a', $1::text::interval)"
    for over in ("1 minute", "1 hour", "3 days", "20 days", "400 days"):
        assert 10 <= await sql.fetchval(counts, over) <= 62, over
    assert [
        row["count"] for row in await sql.fetch("select * from pipeline.timing_history('a{}', '1 day', '1 day')")
    ][-1] in (1, 3)


async def test_slow_queries_are_told_by_fingerprint_with_text_and_share(
    db: Database, sql: asyncpg.Connection
) -> None:
    one, two, old = "a" * 16, "b" * 16, "c" * 16
    await store(
        db, "query", [10.0, 20.0], labels={"fingerprint": one, "endpoint": "/cart"}, source="query", rows=6
    )
    await store(db, "query", [30.0], labels={"fingerprint": one}, source="query", errors=1)
    await store(db, "query", [15.0, 500.0], labels={"fingerprint": two}, source="query")
    await store(db, "query", [425.0], labels={"fingerprint": old}, source="query")
    await store(db, "query", [1_000.0], labels={"other": "true"}, source="query")
    await store(db, "transaction", [9_999.0], source="query")
    await sql.execute(
        "insert into pipeline.query (fingerprint, version, kind, text, moved_to, first_at, last_at) values"
        " ($1, 1, 'ok', 'select $1', null, now(), now()), ($2, 1, 'ok', 'old', $3, now(), now())",
        one, old, two,
    )  # fmt: skip
    await stand_at(sql, NOON + 10)
    rows = await sql.fetch("select * from pipeline.slow_queries()")
    assert [(row["fingerprint"], row["query"], row["calls"], row["total"]) for row in rows] == [
        ("other", None, 1, 1_000.0),
        (two, None, 3, 940.0),  # and what it was under older rules
        (one, "select $1", 3, 60.0),
    ]
    assert [row["share"] for row in rows] == pytest.approx([0.5, 0.47, 0.03])
    assert [rows[2][key] for key in ("mean", "p50", "max", "errors", "rows")] == [20.0, 20.0, 30.0, 1, 6]

    async def order(by: str, most: int = 9, labels: str | None = None) -> list[str]:
        call = "select fingerprint from pipeline.slow_queries(by => $1, most => $2, labels => $3::jsonb)"
        return [row[0] for row in await sql.fetch(call, by, most, labels)]

    assert await order("errors", 1) == [one]
    assert await order("p50", 2) == ["other", two]
    assert await order("calls", 1) == [two]
    assert await order("total", labels='{"endpoint": "/cart"}') == [one]
    counted = "select count from pipeline.timing_totals('query', labels => $1)"
    assert await sql.fetchval(counted, json.dumps({"fingerprint": two})) == 3
    assert await sql.fetchval(counted, json.dumps({"fingerprint": one, "endpoint": "/cart"})) == 2


async def test_the_greatest_series_are_told_in_order(db: Database, sql: asyncpg.Connection) -> None:
    await store(db, "http", [1.0] * 8, labels={"route": "/a"}, source="http")
    await store(db, "http", [50.0, 60.0], labels={"route": "/b"}, source="http", errors=2)
    await store(db, "render", [30.0], source="span")
    await stand_at(sql, NOON + 10)

    async def top(arguments: str) -> list[str]:
        return [row["series"] for row in await sql.fetch(f"select * from pipeline.top_series({arguments})")]

    a, b = 'http{route="/a"}', 'http{route="/b"}'
    assert await top("") == [b, "render", a]
    for by in ("mean", "max", "p50", "p95", "p99"):
        assert await top(f"by => '{by}'") == [b, "render", a], by
    assert await top("by => 'calls', most => 2") == [a, b]
    assert await top("by => 'errors', most => 1") == [b]
    assert await top("only_source => 'span'") == ["render"]
    assert await top("only_name => 'http'") == [b, a]
    assert await top(f"only_name => '{a}'") == [a]
    assert await top("""only_labels => '{"route": "/a"}'""") == [a]
    [name, span] = await sql.fetch("select * from pipeline.top_series(per => 'name')")
    assert (name["series"], name["count"], name["errors"], name["labels"]) == ("http", 10, 2, None)
    assert (name["p50"], span["share"]) == (1.0, pytest.approx(30 / 148))
    await stand_at(sql, NOON + 8_000)
    assert await top("") == []


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("percentile('a', 0.5, '0')", "longer than nothing"),
        ("percentile('a', 0.5, '-1 hour')", "longer than nothing"),
        ("percentile('a', 0.5, null)", "longer than nothing"),
        ("percentile('a', 1.5)", "between 0 and 1"),
        ("percentile('a', 'NaN')", "between 0 and 1"),
        ("percentile('a', null)", "between 0 and 1"),
        ("percentile('a', 0.5, labels => '[1]')", "JSON object"),
        ("latency('-1 s')", "longer than nothing"),
        ("timing_totals('a', '0')", "longer than nothing"),
        ("slow_queries(by => 'speed')", "cannot order by speed"),
        ("slow_queries(by => null)", "cannot order by null"),
        ("slow_queries(most => 0)", "1 or more"),
        ("slow_queries(labels => '1')", "JSON object"),
        ("top_series(per => 'label')", "series or name"),
        ("latency_histogram('a', bounds => '{}')", "ascending"),
        ("latency_histogram('a', bounds => '{2, 1}')", "ascending"),
        ("latency_histogram('a', bounds => '{1, 1}')", "ascending"),
        ("latency_histogram('a', bounds => '{1, NaN}')", "ascending"),
        ("latency_histogram('a', bounds => '{-1}')", "ascending"),
        ("latency_histogram('a', bounds => '{1, null}')", "ascending"),
        ("timing_history('a', '1 hour', '0')", "does not fit"),
        ("timing_history('a', '1 hour', '-1 minute')", "does not fit"),
        ("timing_history('a', '1 hour', '7 seconds')", "does not fit"),
        ("timing_history('a', '3 days', '1 minute')", "does not fit"),
        ("timing_history('a', '8 days', '10 minutes')", "does not fit"),
        ("timing_history('a', '400 days', '1 hour')", "does not fit"),
    ],
)
async def test_a_question_that_cannot_be_meant_is_refused_with_the_reason(
    call: str, reason: str, sql: asyncpg.Connection
) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match=reason) as caught:
        await sql.fetch(f"select * from pipeline.{call}")
    assert caught.value.hint or "most" in str(caught.value) or "per" in str(caught.value)


async def test_absurd_values_and_spans_break_no_reading(db: Database, sql: asyncpg.Connection) -> None:
    await store(db, "a", [0.0, 5e-324, 5e-324, 1e-300, 1e12, 1e12])
    await store(db, "tiny", [5e-324, 5e-324, 1e-323])
    await sql.execute(
        "insert into pipeline.timing_series (series, source, name, labels, first_at, last_at)"
        " values ('wide', 'span', 'wide', '{}', now(), 'infinity')"
    )
    await sql.execute(
        "insert into pipeline.timing_batch (writer, number, start, written_at, series, digests)"
        " select gen_random_uuid(), 1, to_timestamp($1::int), now(), array[id],"
        " array[row(id, 4, 4e-323, 5e-324, 1e-323, 0, 0, 0, $2::smallint[])::pipeline.timing_digest]"
        " from pipeline.timing_series where series = 'wide'",
        NOON,
        pack([0.0], [4.0]),
    )
    await stand_at(sql, NOON + 10)
    rows = await sql.fetch("select * from pipeline.latency('100000 years')")
    assert {row["series"]: (row["count"], row["max"]) for row in rows} == {
        "a": (6, 1e12), "tiny": (3, 1e-323), "wide": (4, 1e-323),
    }  # fmt: skip
    for q in (0, 0.3, 0.5, 0.7, 1):
        for series in ("tiny", "wide"):
            assert await sql.fetchval("select pipeline.percentile($1, $2)", series, q) <= 1e-323
    for series, count in (("a", 6), ("tiny", 3), ("wide", 4)):
        found = await sql.fetchval("select sum(count) from pipeline.latency_histogram($1)", series)
        assert found == count


async def test_reading_that_takes_too_long_is_given_up_with_what_to_do(dsn: str, sql: asyncpg.Connection) -> None:
    async with Database(dsn, settings={"statement_timeout": "100ms"}) as db, sql.transaction():
        await sql.execute("lock table pipeline.timing_series in access exclusive mode")
        with pytest.raises(Busy) as caught:
            await TimingViews(db).top_series(60.0)
    assert "shorter span" in caught.value.hint
