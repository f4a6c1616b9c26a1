"""The percentiles that rules are judged on are those that SQL tells."""

from __future__ import annotations

import json
from random import Random

import asyncpg

from pipeline.core.digest import Digest
from pipeline.core.window import Part, Series
from pipeline.db.alert_timings import readings_of
from pipeline.db.connection import Database
from pipeline.db.latency import LatencyStore
from tests.alert_kit import NOON
from tests.time_kit import stand_at


async def test_a_rule_is_judged_on_the_percentiles_that_sql_tells(dsn: str, sql: asyncpg.Connection) -> None:
    await stand_at(sql, NOON + 62.0)
    random = Random(7)
    parts = []
    for n in range(120):  # more than are read at once
        series = Series(f'q{{n="{n}"}}', "query", "q", {"n": str(n)})
        for start in range(NOON, NOON + 60, random.choice((5, 20, 60))):
            many = random.choice((1, 2, 3, 40, 700, 70_000 if n == 5 else 90))
            values = [random.choice((0.0, 4.0, random.lognormvariate(2, 2))) for _ in range(many)]
            parts.append(Part(series, start, Digest(values), errors=many // 3))
    async with Database(dsn) as database:
        store = LatencyStore(database)
        await store.flush(store.number(parts))
        told = await database.fetch("alert_metrics/timings", "q%", json.dumps({}), None, float(NOON), 60, True)
        found = {
            metric: {one.instance: one.value for one in await readings_of(told, f"latency.{metric}")}
            for metric in ("p50", "p95", "p99", "mean", "max", "count", "error_rate")
        }
        bare = await database.fetch("alert_metrics/timings", "q%", json.dumps({}), None, float(NOON), 60, False)
        without = {one.instance: one.value for one in await readings_of(bare, "latency.error_rate")}
    rows = await sql.fetch("select * from pipeline.alert_timings('q%', '{}', null, to_timestamp($1), 60)", NOON)

    assert len(rows) == 120
    assert without == found["error_rate"]
    for row in rows:
        name = row["series"]
        assert [found[metric][name] for metric in ("p50", "p95", "p99")] == row["quantiles"]
        assert found["count"][name] == row["count"]
        assert found["max"][name] == row["high"]
        assert abs(found["mean"][name] - row["sum"] / row["count"]) <= 1e-9 * row["high"]
        assert found["error_rate"][name] == row["errors"] / row["count"]
