"""/api/v1/performance and /api/v1/series on a real database: what they answer, and to whom."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import asyncpg
import pytest

from pipeline.core.window import Windows
from pipeline.db.connection import Database
from pipeline.db.job_view import view_database
from pipeline.db.latency import LatencyStore
from pipeline.web.access import Tokens
from pipeline.web.performance import PerformanceApi
from tests.web.conftest import Serve, Source

Client = aiohttp.ClientSession
VIEWER = "viewer-" + "v" * 20
QUERY = "ab" * 8


@pytest.fixture
async def http(
    dsn: str, db: Database, sql: asyncpg.Connection, serve: Serve, source: Source
) -> AsyncIterator[Client]:
    now = await sql.fetchval("select extract(epoch from now())::float8")
    windows = Windows(lambda: now)
    for route, times in (("/cart", (1.0, 3.0)), ("/pay", (50.0, 60.0, 70.0))):
        for ms in times:
            windows.series("http", {"route": route}, "http").add_at(ms, now - 30)
    windows.series("render").add_at(5.0, now - 90)
    windows.series("query", {"fingerprint": QUERY, "endpoint": "/pay"}, "query").add_at(40.0, now - 30, rows=3)
    store = LatencyStore(db)
    await store.flush(store.number(windows.take(None)))
    await sql.execute(
        "insert into pipeline.query (fingerprint, version, kind, text, first_at, last_at)"
        " values ($1, 1, 'ok', 'select <b>$1</b>', now(), now())",
        QUERY,
    )
    async with view_database(dsn, purpose="view") as views:
        server = await serve(source, tokens=Tokens(viewer=VIEWER), performance=PerformanceApi(views))
        async with Client(server.url, headers={"Authorization": f"Bearer {VIEWER}"}) as session:
            yield session


async def get(http: Client, path: str, status: int = 200) -> Any:
    async with http.get(path) as answer:
        assert answer.status == status, await answer.text()
        assert answer.headers["Cache-Control"] == "no-store"
        return await answer.json(content_type=None)


async def test_the_summary_merges_the_label_sets_of_each_name(http: Client) -> None:
    told = await get(http, "/api/v1/performance")
    assert (told["metric"], told["over_seconds"], told["by"]) == ("summary", 3_600, "total")
    assert [(one["name"], one["source"], one["count"]) for one in told["names"]] == [
        ("http", "http", 5), ("query", "query", 1), ("render", "span", 1),
    ]  # fmt: skip
    assert (told["names"][0]["p50_ms"], told["names"][0]["max_ms"], told["names"][0]["labels"]) == (50, 70, None)
    one = await get(http, "/api/v1/performance?over=5m&by=calls&limit=1&label=route=/cart")
    assert [(one["name"], one["count"]) for one in one["names"]] == [("http", 2)]


async def test_slow_queries_come_with_their_texts(http: Client) -> None:
    told = await get(http, "/api/v1/performance?metric=slow_queries&by=p99")
    [query] = told["queries"]
    assert (query["fingerprint"], query["query"]) == (QUERY, "select <b>$1</b>")
    assert (query["calls"], query["rows"]) == (1, 3)
    assert (query["p50_ms"], query["share"]) == (40, 1)
    assert (await get(http, "/api/v1/performance?metric=slow_queries&label=endpoint=/x"))["queries"] == []


async def test_series_are_told_one_by_one_and_drawn_on_request(http: Client) -> None:
    told = await get(http, "/api/v1/series?source=http")
    assert [one["series"] for one in told["series"]] == ['http{route="/pay"}', 'http{route="/cart"}']
    assert "points" not in told["series"][0]
    [one] = (await get(http, "/api/v1/series?name=http&label=route=/cart&over=10m&step=1m"))["series"]
    assert len(one["points"]) == 11
    assert sum(point["count"] for point in one["points"]) == 2
    assert {point["p95_ms"] is None for point in one["points"] if not point["count"]} == {True}
    [one] = (await get(http, "/api/v1/series?name=render&step=auto"))["series"]
    assert sum(point["count"] for point in one["points"]) == 1
    assert (await get(http, "/api/v1/series?name=nothing&step=auto"))["series"] == []


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("performance?metric=speed", "there is no metric speed"),
        ("performance?over=0", "over is no span"),
        ("performance?over=-5m", "over is no span"),
        ("performance?over=nan", "over is no span"),
        ("performance?over=99999d", "over is no span"),
        ("performance?by=speed", "cannot order by speed"),
        ("performance?limit=0", "limit is a whole number"),
        ("performance?limit=1001", "limit is a whole number"),
        ("performance?limit=%C2%B2", "limit is a whole number"),
        ("performance?limit=1&limit=2", "limit is given twice"),
        ("performance?label=region", "a label has no name or no value"),
        ("performance?label=a=%00", "a zero byte"),
        ("performance?what=x", "there is no parameter what"),
        ("series?name=%00", "a zero byte"),
        ("series?step=0", "step is no span"),
        ("series?step=7s", "does not fit"),
        ("series?step=1m&limit=101", "limit is a whole number from 1 to 100"),
    ],
)
async def test_a_parameter_that_cannot_be_meant_is_answered_by_the_reason(
    http: Client, path: str, reason: str
) -> None:
    told = await get(http, f"/api/v1/{path}", 400)
    assert reason in told["detail"]
    assert told["code"] == "usage"
    assert told["hint"]


async def test_reading_needs_the_viewer_token(http: Client) -> None:
    for path in ("/api/v1/performance", "/api/v1/series"):
        async with http.get(path, headers={"Authorization": "Bearer wrong"}) as answer:
            assert answer.status == 401
