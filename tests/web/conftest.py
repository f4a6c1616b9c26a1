"""A status as a busy process would tell it, and a server on a real socket that serves it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from pipeline.core.status import (
    ActivityStatus,
    AlertCount,
    AlertingStatus,
    AlertStatus,
    CacheStatus,
    ChannelStatus,
    FeedStatus,
    JobsStatus,
    NamespaceFigures,
    PoolStatus,
    Quantiles,
    QueryStatus,
    QueueStatus,
    SeriesStatus,
    ServiceHealth,
    StatementsStatus,
    Status,
    TimingsStatus,
    WatchStatus,
)
from pipeline.runtime import Health
from pipeline.web.server import WebServer
from pipeline.web.source import Liveness

NOW = 1_790_000_000.0


class Source:
    """A process that says what the test wants it to say."""

    def __init__(self, status: Status) -> None:
        self.answer: Status | Exception = status
        self.hangs = False
        self.asked = 0
        self.draining = False
        self.services = {service.name: Health(service.ok, service.detail) for service in status.services}

    async def status(self) -> Status:
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def live(self) -> Liveness:
        return Liveness(draining=self.draining, services=self.services)


@pytest.fixture
def busy_status() -> Status:
    """Everything known, one alert firing, one watch with a problem."""
    return Status(
        version="0.1.0",
        process="pgreflex@db1:4711",
        at=NOW,
        started_at=NOW - 273_840,
        ready=True,
        draining=False,
        database="shop on db1.internal:5432 (PostgreSQL 18.1)",
        resident_bytes=91_226_112,
        services=(
            ServiceHealth("web", True, "listens on http://127.0.0.1:8787/"),
            ServiceHealth("feed", True, "leading, 3 listeners"),
            ServiceHealth("jobs", True, "12 of 32 slots busy", restarts=2),
            ServiceHealth("alerts", True),
        ),
        feed=FeedStatus(
            connected=True,
            leading=True,
            asleep=False,
            epoch="7420/1/1789726160/3",
            seq=88_213,
            events_total=4_182_377,
            events_per_second=1_284.5,
            batches_total=88_213,
            bells_total=412,
            flushes_total=1,
            reconnects_total=1,
            backlog_bytes=65_536,
            outbox_full=False,
            write_to_delivery=Quantiles(1.84, 4.61, 11.2, count=77_070, window_seconds=60),
            watches=(
                WatchStatus("public.orders", ("id",), timing=True),
                WatchStatus("public.order_lines", ("order_id", "line"), timing=True),
                WatchStatus("public.stock", ("sku",), timing=False, problem="trigger pipeline_row is disabled"),
            ),
        ),
        cache=CacheStatus(
            entries=18_204,
            bytes=41_943_040,
            max_bytes=67_108_864,
            hits_total=9_120_331,
            misses_total=204_771,
            bypassed_total=312,
            refused_fills_total=96,
            invalidations_total=188_240,
            evictions_total=1_204,
            flushes_total=1,
            hit_ratio=0.978,
            age_bound_seconds=0.31,
            saved_seconds_total=41_207.5,
            gone={"changed": 188_240, "size": 1_204, "expired": 71},
            refused={"changed": 90, "old": 6},
            checks_total=12_480,
            fresh_within_1s_total=12_480,
            fresh_within_60s_total=12_480,
            uncheckable_total=3,
            fresh_within_1s=12_480 / 12_481,
            namespaces=(
                NamespaceFigures(
                    "shop.orders.load_order", 12_400, 30_000_000, 8_000_331, 150_771, 12, 300, 90, 38_200.5
                ),
                NamespaceFigures(
                    "shop.customers.addresses_of_customer",
                    5_000,
                    11_000_000,
                    1_100_000,
                    50_000,
                    0,
                    12,
                    6,
                    3_000.25,
                ),
                NamespaceFigures("query", 800, 940_000, 20_000, 4_000, saved_seconds_total=6.5),
                NamespaceFigures("", 4, 3_040, 0, 0),
            ),
        ),
        timings=TimingsStatus(series=12, added_total=88_000, rejected_total=3, overflowed_total=40),
        series=(
            SeriesStatus("orders.insert", Quantiles(0.42, 1.9, 6.3, 12_840, 300), errors=0, max_ms=41.0),
            SeriesStatus(
                'query{fingerprint="3fb2c07a11d94e5b"}', Quantiles(2.1, 12.0, 31.0, 80_022, 300), source="query"
            ),
            SeriesStatus("orders.update", Quantiles(0.61, 2.4, 9.8, 8_113, 300), errors=3, max_ms=122.0),
            SeriesStatus("http GET /orders", Quantiles(8.1, 31.0, 84.0, 31_377, 300), errors=11, max_ms=1_840.0),
        ),
        queries=(
            QueryStatus(
                "3fb2c07a11d94e5b",
                "select o.id, o.status, l.sku from orders o join order_lines l on l.order_id = o.id"
                " where o.customer_id = $1 and o.status = any($2) <b>and</b> l.sku like $3 order by o.id desc"
                " limit $4",
                Quantiles(2.1, 12.0, 31.0, 80_022, 300),
                0,
                412.0,
                311_000.0,
                0.62,
            ),
            QueryStatus(
                "90aa17c3b1f2d4e6",
                "update stock\n   set left = left - $1\n where sku = $2",
                Quantiles(0.9, 4.0, 1_810.0, 9_120, 300),
                12,
                2_400.0,
                99_000.0,
                0.2,
            ),
            QueryStatus("other", None, Quantiles(8.0, 9.0, 10.0, 31, 300), 0, 11.0, 250.0, 0.0005),
        ),
        alerts=(
            AlertStatus(
                "orders-insert-p95",
                "firing",
                "critical",
                NOW - 192,
                "p95 of orders.insert over 5 minutes is too high",
                value=61.2,
                threshold=50.0,
                instance='orders.insert{region="eu"}',
                unit="ms",
                runbook="https://wiki.example.org/slow-orders",
                acknowledged="ann",
                held="silence 3",
            ),
            AlertStatus(
                "mail-queue-age",
                "pending",
                "warning",
                NOW - 41,
                "the oldest mail waits",
                312.0,
                300.0,
                unit="s",
                runbook="javascript:alert(1)",
            ),
        ),
        alerting=AlertingStatus(
            (AlertCount("firing", "critical", 1), AlertCount("pending", "warning", 1)),
            2,
            (ChannelStatus("slack", 3, 1, "slack answered 503"), ChannelStatus("log", 0, 0)),
        ),
        jobs=JobsStatus(
            queues=(
                QueueStatus("default", ready=210, delayed=18, running=12, oldest_ready_seconds=0.8, failed_24h=31),
                QueueStatus("mail", ready=1_840, delayed=0, running=10, oldest_ready_seconds=312.4, draining=True),
                QueueStatus("reports", ready=4, paused=True, oldest_ready_seconds=5_400.0),
            ),
            finished_total=1_204_882,
            failed_total=31,
            retried_total=812,
            rescued_total=2,
            cancelled_total=4,
            expired_total=5,
            per_second=642.0,
            wait=Quantiles(3.1, 12.0, 44.0, 38_520, 60),
            run=Quantiles(14.0, 88.0, 240.0, 38_520, 60),
        ),
        statements=StatementsStatus(NOW - 20, 812, 0, 3),
        activity=ActivityStatus(NOW - 1, 42, 2, {"running": 3, "Lock": 1}, 1, 62.5, 60.0),
        pools=(
            PoolStatus(
                "main",
                1,
                10,
                total=10,
                active=10,
                waiting=7,
                acquired_total=48_210,
                timeouts_total=3,
                opened_total=12,
                rolled_back_total=1,
                longest_held_seconds=4.2,
                wait=Quantiles(0.0, 210.0, 4_800.0, 812, 60),
                held=Quantiles(3.0, 41.0, 4_200.0, 812, 60),
                process="web-1:12",
            ),
        ),
    )


@pytest.fixture
def bare_status() -> Status:
    """A process that knows nothing but itself."""
    return Status(
        version="0.1.0", process="pgreflex@db1:4711", at=NOW, started_at=NOW - 5, ready=True, draining=False
    )


@pytest.fixture
def source(busy_status: Status) -> Source:
    return Source(busy_status)


Serve = Callable[..., Awaitable[WebServer]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts servers as the supervisor would, on any free port; stops them at the end."""
    begun: list[tuple[WebServer, asyncio.Task[None]]] = []

    async def start(source: Any, **options: Any) -> WebServer:
        server = WebServer(source, **{"port": 0, **options})
        await server.start()
        begun.append((server, asyncio.create_task(server.run())))
        return server

    yield start
    for server, task in begun:
        await server.stop()
        await asyncio.wait_for(task, 0.5)  # also in tests whose source hangs


@pytest.fixture
async def server(serve: Serve, source: Source) -> WebServer:
    return await serve(source)


@pytest.fixture
async def http(server: WebServer) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of `server`."""
    async with aiohttp.ClientSession(server.url) as session:
        yield session
