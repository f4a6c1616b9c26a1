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
    """100 series: twenty minutes of 5 s, eight hours of minutes; the last two minutes are not rolled up."""
    for seconds, span in ((5, "20 minutes"), (60, "8 hours")):
        await sql.execute(
            f"""
            insert into pipeline.latency_window
            select {seconds}, 's' || s, at, 'w', 1, at < now() - interval '2 minutes', 1, 1, 1, 1, 0, 0,
                '{{1}}', '{{1}}'
            from generate_series(now() - interval '{span}', now(), interval '{seconds} seconds') as at,
                generate_series(1, 100) as s
            """
        )
    await sql.execute("analyze pipeline.latency_window")


async def test_the_roll_up_looks_only_at_what_is_not_rolled(sql: asyncpg.Connection) -> None:
    await fill(sql)
    text = statement("latency/take_unrolled")
    for place, value in ((1, "5"), (2, "60"), (3, "10.0"), (4, "2000")):
        text = text.replace(f"${place}", value)
    assert await indexes(sql, text) == {"latency_5s_start_idx1"}


async def test_the_status_reads_the_last_minutes_by_index(sql: asyncpg.Connection) -> None:
    await fill(sql)
    assert "seq latency_5s" not in await indexes(sql, statement("latency/recent").replace("$1", "60"))


async def test_a_percentile_of_one_series_reads_only_that_series(sql: asyncpg.Connection) -> None:
    await fill(sql)
    for over in ("10 minutes", "2 hours", "5 hours"):
        async with sql.transaction():
            await sql.fetchval("select pipeline.percentile('s7', 0.99, $1::text::interval)", over)
            [row] = await sql.fetch(
                "select sum(seq_tup_read) as whole, sum(idx_tup_fetch) as picked from pg_stat_xact_user_tables"
                " where relname like 'latency%'"
            )
        assert row["whole"] == 0, over
        assert row["picked"] < 3_000, over  # of 74,000; what is not rolled up is found by another index
