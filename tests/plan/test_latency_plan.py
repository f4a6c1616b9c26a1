"""What reads timings by index when there are many."""

from __future__ import annotations

import json

import asyncpg

from pipeline.db.statements import statement


async def indexes(sql: asyncpg.Connection, query: str) -> set[str]:
    """The indexes that the plan of a query uses, and `seq <table>` for each table that it reads whole."""

    def walk(node: dict[str, object]) -> set[str]:
        found = {str(node["Index Name"])} if "Index Name" in node else set()
        if node["Node Type"] == "Seq Scan":
            found.add(f"seq {node['Relation Name']}")
        for child in node.get("Plans", []):  # type: ignore[attr-defined]
            found |= walk(child)
        return found

    [[plan]] = await sql.fetch(f"explain (format json) {query}")
    return walk(json.loads(plan)[0]["Plan"])


async def fill(sql: asyncpg.Connection) -> None:
    """100 series: twenty minutes of batches, eight hours of minutes; the last two minutes are not rolled up."""
    await sql.execute(
        """
        insert into pipeline.timing_series (series, source, name, labels, first_at, last_at)
        select 's' || s, 'span', 's' || s, '{}', now(), now() from generate_series(1, 100) as s;
        insert into pipeline.timing_batch (writer, number, start, written_at, rolled, series, digests)
        select gen_random_uuid(), 1, at, now(), at < now() - interval '2 minutes', array_agg(id),
            array_agg(row(id, 1, 1, 1, 1, 0, 0, 0, '{0,0}')::pipeline.timing_digest)
        from generate_series(now() - interval '20 minutes', now(), interval '5 seconds') as at,
            pipeline.timing_series
        group by at;
        insert into pipeline.timing_roll
        select 60, at, 0, now(), at < now() - interval '8 minutes'
        from generate_series(now() - interval '8 hours', now() - interval '2 minutes', interval '1 minute') as at;
        insert into pipeline.timing_part
        select 60, id, start, 1, 1, 1, 1, 0, 0, 0, 0, '{0,0}' from pipeline.timing_roll, pipeline.timing_series;
        analyze pipeline.timing_batch, pipeline.timing_roll, pipeline.timing_part;
        """
    )


def with_values(name: str, *values: str) -> str:
    text = statement(name)
    for place, value in enumerate(values, 1):
        text = text.replace(f"${place}", value)
    return text


async def test_the_roll_up_looks_only_at_what_is_not_rolled(sql: asyncpg.Connection) -> None:
    await fill(sql)
    assert "timing_batch_open" in await indexes(sql, with_values("latency/next_batches", "10.0"))
    minute = "extract(epoch from date_trunc('minute', now()) - interval '1 minute')::float8"
    assert await indexes(sql, with_values("latency/take_batches", minute)) == {"timing_batch_open"}
    assert "timing_roll_open" in await indexes(sql, with_values("latency/next_rolls", "60", "300.0", "10.0"))
    rolls = with_values("latency/read_parts", "60", "array[now()]", "array[0]")
    assert await indexes(sql, rolls) == {"timing_1m_start_series_idx"}


async def test_a_percentile_of_one_series_reads_only_that_series(sql: asyncpg.Connection) -> None:
    await fill(sql)
    for over in ("10 minutes", "2 hours", "5 hours"):
        async with sql.transaction():
            await sql.fetchval("select pipeline.percentile('s7', 0.99, $1::text::interval)", over)
            [row] = await sql.fetch(
                "select seq_tup_read as whole, idx_tup_fetch as picked from pg_stat_xact_user_tables"
                " where relname = 'timing_1m'"
            )
        assert row["whole"] == 0, over
        assert row["picked"] < 3_000, over  # of 48,000
