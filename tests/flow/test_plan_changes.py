"""Changes of plans: told with the latency before and after, in SQL and over HTTP."""

from __future__ import annotations

import json

import asyncpg
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from pipeline.cli.plan_lines import plans
from pipeline.core.digest import Digest
from pipeline.core.window import Part, Series
from pipeline.db.connection import Database
from pipeline.db.explain import Explained
from pipeline.db.latency import LatencyStore
from pipeline.db.plans import PlanChange, PlanStore, StoredPlan
from pipeline.web.plans import PlansApi
from pipeline.web.problems import errors_as_problems
from tests.time_kit import stand_at

NOON = 1_800_000_000
QUERY = "a" * 16
OLD = "b" * 16  # the same query by older rules
OTHER = "c" * 16


def plan(index: str | None, cost: float = 1.5) -> Explained:
    scan = {
        "Node Type": "Seq Scan",
        "Relation Name": "orders",
        "Alias": "o",
        "Total Cost": cost,
        "Filter": "(a = $1)",
    }
    found = {**scan, "Node Type": "Index Scan", "Index Name": index} if index else scan
    return Explained({"Node Type": "Limit", "Plans": [found]}, {"work_mem": "64MB"}, "generic")


async def test_a_change_is_told_with_the_latency_before_and_after(
    sql: asyncpg.Connection, db: Database, dsn: str
) -> None:
    timings = LatencyStore(db)

    async def timed(fingerprint: str, at: int, values: list[float]) -> None:
        text = f'query{{fingerprint="{fingerprint}"}}'
        series = Series(text, "query", "query", {"fingerprint": fingerprint})
        await timings.flush(timings.number([Part(series, at, Digest(values), 0, 0)]))

    async def planned(fingerprint: str, at: int, explained: Explained) -> str | None:
        await stand_at(sql, at)
        async with Database(dsn) as then:
            return await PlanStore(then).save(fingerprint, explained, 1200.0)

    async def changes(over: float, limit: int = 20, fingerprint: str | None = None) -> list[PlanChange]:
        async with Database(dsn) as then:
            return await PlanStore(then).changes(over, limit, fingerprint=fingerprint)

    await sql.execute(
        "insert into pipeline.query values ($1, 1, 'ok', 'select $1', null, now(), now()),"
        " ($2, 0, 'ok', 'select $1', $1, now(), now())",
        QUERY,
        OLD,
    )
    indexed = "Limit > Index Scan using by_a on orders"
    assert await planned(QUERY, NOON - 7200, plan("by_a")) is None
    assert await planned(QUERY, NOON - 3600, plan("by_a", cost=99)) is None, "the costs alone are no change"
    assert await planned(OTHER, NOON - 600, plan("by_a")) is None, "the first plan is no change"
    assert await planned(QUERY, NOON - 600, plan(None)) == indexed
    await timed(OLD, NOON - 900, [1.0] * 50)
    await timed(QUERY, NOON - 700, [1.0] * 49 + [3.0])
    await timed(QUERY, NOON - 500, [1500.0, 1700.0])
    await timed(OTHER, NOON - 500, [9.0])
    await stand_at(sql, NOON)
    [change] = await changes(3600.0)
    assert (change.fingerprint, change.query, change.at) == (QUERY, "select $1", NOON - 600)
    assert (change.plan_before, change.plan_after) == (indexed, "Limit > Seq Scan on orders")
    assert (change.calls_before, change.p50_ms_before, change.calls_after) == (100, 1.0, 2)
    assert change.p95_ms_before == pytest.approx(1.0, abs=0.01)
    assert change.p50_ms_after == 1600.0
    assert await changes(300.0) == []
    assert await changes(3600.0, fingerprint=OTHER) == []

    # back again, a minute later: the slow plan is now the one before
    assert await planned(QUERY, NOON - 60, plan("by_a")) == "Limit > Seq Scan on orders"
    await stand_at(sql, NOON)
    back, there = await changes(3600.0, fingerprint=QUERY)
    assert (back.plan_after, back.calls_before, back.calls_after, back.p50_ms_after) == (indexed, 2, 0, None)
    assert there == change
    assert await changes(3600.0, 1) == [back]
    runs = await PlanStore(db).plans(QUERY)
    assert [(run.times, run.last_at) for run in runs] == [(1, NOON - 60), (1, NOON - 600), (2, NOON - 3600)]
    assert runs[1].text == (
        "Limit  (cost=0.00..0.00 rows=0 width=0)\n"
        "  ->  Seq Scan on orders o  (cost=0.00..1.50 rows=0 width=0)\n"
        "        Filter: (a = $1)\n"
        "Settings: work_mem = '64MB'"
    )

    app = web.Application(middlewares=[errors_as_problems])
    then = Database(dsn)
    PlansApi(then).add_to(app.router)
    async with then, TestClient(TestServer(app)) as client:

        async def get(parameters: str) -> tuple[int, str]:
            async with client.get(f"/api/v1/plans?{parameters}") as answer:
                return answer.status, await answer.text()

        status, text = await get(f"fingerprint={QUERY}&limit=2")
        told = json.loads(text)
        assert (status, len(told["plans"]), told["asked"]) == (200, 2, None)
        assert told["plans"][1]["plan"]["Plans"][0]["Filter"] == "(a = $1)"
        assert told["plans"][1]["text"] == runs[1].text
        assert await get(f"fingerprint={QUERY}&format=text") == (200, "\n\n".join(run.text for run in runs) + "\n")
        assert await get(f"fingerprint={'d' * 16}&format=text") == (200, "")
        told = json.loads((await get("over=1h"))[1])
        assert [one["plan_after"] for one in told["changes"]] == [indexed, "Limit > Seq Scan on orders"]
        wrong = ("fingerprint=x", "format=text", f"fingerprint={QUERY}&format=xml", f"fingerprint={QUERY}&over=1h",
                 "over=x", "limit=0", "other=1")  # fmt: skip
        for parameters in wrong:
            assert (await get(parameters))[0] == 400, parameters


def test_the_command_line_shows_the_present_plan_and_its_changes() -> None:
    now = StoredPlan(
        "0" * 16, "Limit", "generic", msgspec.Raw(b"{}"), "Limit\n  ->  Seq Scan", {}, 3, 1.0, NOON - 60.0, NOON
    )
    change = PlanChange(NOON, QUERY, "select $1", "Index Scan", "Seq Scan", 0, None, None, 2, 1.5, 1600.0)
    assert plans([now], [change], 40) == [
        "",
        "generic plan, seen 3 times from 2027-01-15 07:59:00 to 2027-01-15 08:00:00",
        "  Limit",
        "    ->  Seq Scan",
        "",
        "changes of its plan",
        "  2027-01-15 08:00:00  no calls -> 2 calls, p50 1.5 ms, p95 1.60 s",
        "    - Index Scan",
        "    + Seq Scan",
    ]
    assert plans([], [change], 40) == []
