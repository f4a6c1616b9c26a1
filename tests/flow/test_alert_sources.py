"""The metrics that only the daemon knows: of itself, of the feed, of caches, and of the disk that it may share."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace
from typing import Any, cast

import asyncpg
import msgspec
import pytest

from pipeline.app.alert_sources import LocalMetrics
from pipeline.app.board import CacheBoard, CacheReport, DeliveryMeter
from pipeline.core.alert_metric import METRICS
from pipeline.core.events import Batch, Event
from pipeline.core.status import CacheStatus
from pipeline.db.alert_judge import AlertJudge
from pipeline.db.connection import Database


def metrics(db: Database, *, up: bool = True) -> tuple[LocalMetrics, CacheBoard, DeliveryMeter]:
    caches, delivery = CacheBoard(), DeliveryMeter(cast(Any, SimpleNamespace(sent={})))
    follower = cast(Any, SimpleNamespace(up=up))
    return LocalMetrics(db, process="me:1", follower=follower, delivery=delivery, caches=caches), caches, delivery


def report(caches: CacheBoard, process: str, **figures: Any) -> None:
    payload = msgspec.json.encode(CacheReport(process, CacheStatus(**figures))).decode()
    caches.on_batch(cast(Batch, SimpleNamespace(events=[Event(1, "pipeline.cache", "e", payload=payload)])))


async def test_every_local_metric_is_there_and_says_nothing_where_nothing_is_known(db: Database) -> None:
    local, _, _ = metrics(db)
    assert set(local.metrics()) == {name for name, metric in METRICS.items() if metric.kind == "local"}
    assert await local.hit_ratio() == []
    assert [(one.value, one.samples) for one in await local.lag()] == [(None, 0)]


async def test_caches_and_listeners_are_told_by_their_processes(db: Database) -> None:
    local, caches, delivery = metrics(db, up=False)
    report(caches, "web:7", hits_total=30, misses_total=10, hit_ratio=0.75, age_bound_seconds=0.1)
    report(caches, "web:8", hits_total=0, misses_total=0, age_bound_seconds=None)
    [ratio] = await local.hit_ratio()
    assert (ratio.value, ratio.samples) == (0.75, 40)
    assert {one.labels["process"]: one.value for one in await local.deaf()} == {
        "me:1": 1.0,
        "web:7": 0.0,
        "web:8": 1.0,
    }
    for ms in (5.0, 7.0):
        delivery.recent.add(ms, time.monotonic())
    [lag] = await local.lag()
    assert (lag.value, lag.samples) == (7.0, 2)


async def test_the_disk_is_told_only_where_the_data_folder_is_the_server_s(
    db: Database, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await sql.fetchval("select current_setting('data_directory')")
    if not os.path.isdir(path):  # noqa: PTH112 - as cheap as it gets
        pytest.skip("the server runs on another host")
    local, _, _ = metrics(db)
    judge = AlertJudge(db, local=local.metrics())
    rule = await sql.fetchval("select id from pipeline.alert_rule where name = 'disk'")
    [free] = await judge.preview(rule)
    disk = os.statvfs(path)
    assert free.value == pytest.approx(disk.f_bavail / disk.f_blocks, abs=0.02)
    assert free.labels == {"path": path}
    monkeypatch.setattr("pipeline.app.alert_sources.Path.stat", lambda _path: os.stat("/"))  # noqa: PTH116
    assert await judge.preview(rule) == []
