"""/metrics: it parses, it says what the status says, and it says nothing of what is unknown."""

from __future__ import annotations

import re
from pathlib import Path

import aiohttp
import msgspec
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families

from pipeline.core.status import (
    CacheStatus,
    FeedStatus,
    JobsStatus,
    Quantiles,
    QueueStatus,
    SeriesStatus,
    Status,
)
from tests.web.conftest import Source

Client = aiohttp.ClientSession
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


async def families(http: Client) -> list[Metric]:
    async with http.get("/metrics") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return list(text_string_to_metric_families(await answer.text()))


async def samples(http: Client) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in await families(http)
        for sample in family.samples
    }


async def test_the_figures_of_the_status_are_there_in_base_units(http: Client) -> None:
    found = await samples(http)
    expected = {
        ("pgreflex_build_info", (("version", "0.1.0"),)): 1,
        ("pgreflex_ready", ()): 1,
        ("pgreflex_resident_bytes", ()): 91_226_112,
        ("pgreflex_feed_connected", ()): 1,
        ("pgreflex_feed_leading", ()): 1,
        ("pgreflex_feed_asleep", ()): 0,
        ("pgreflex_events_total", ()): 4_182_377,
        ("pgreflex_event_delivery_seconds", (("quantile", "0.99"),)): 0.0112,
        ("pgreflex_watched_tables", ()): 3,
        ("pgreflex_watched_tables_with_problems", ()): 1,
        ("pgreflex_cache_hit_ratio", ()): 0.978,
        ("pgreflex_cache_hits_total", ()): 9_120_331,
        ("pgreflex_cache_age_bound_seconds", ()): 0.31,
        ("pgreflex_cache_checks_total", ()): 12_480,
        ("pgreflex_cache_violations_total", ()): 0,
        ("pgreflex_cache_fresh_ratio", ()): 12_480 / 12_481,
        ("pgreflex_cache_gone_total", (("cause", "size"),)): 1_204,
        ("pgreflex_cache_refused_total", (("reason", "old"),)): 6,
        ("pgreflex_cache_namespace_reads_total", (("how", "hits"), ("namespace", "query"))): 20_000,
        ("pgreflex_cache_namespace_entries", (("namespace", "(others)"),)): 4,
        ("pgreflex_series_seconds", (("quantile", "0.95"), ("series", "http GET /orders"))): 0.031,
        ("pgreflex_series_max_seconds", (("series", "http GET /orders"),)): 1.84,
        ("pgreflex_series_errors", (("series", "orders.update"),)): 3,
        ("pgreflex_timing_series", ()): 12,
        ("pgreflex_timings_total", (("end", "overflowed"),)): 40,
        ("pgreflex_sessions_active", (("wait", "Lock"),)): 1,
        ("pgreflex_sessions_blocked", ()): 1,
        ("pgreflex_sessions_hidden", ()): 2,
        ("pgreflex_longest_transaction_seconds", ()): 62.5,
        ("pgreflex_longest_idle_in_transaction_seconds", ()): 60.0,
        ("pgreflex_statements", ()): 812,
        ("pgreflex_statement_evictions_total", ()): 3,
        ("pgreflex_alerts", (("severity", "critical"), ("state", "firing"))): 1,
        ("pgreflex_alerts", (("severity", "warning"), ("state", "pending"))): 1,
        ("pgreflex_alerts", (("severity", "info"), ("state", "firing"))): 0,
        ("pgreflex_alert_rule_problems", ()): 2,
        ("pgreflex_alert_notifications_waiting", (("channel", "slack"),)): 3,
        ("pgreflex_alert_notifications_failed_24h", (("channel", "slack"),)): 1,
        ("pgreflex_jobs", (("queue", "mail"), ("state", "ready"))): 1840,
        ("pgreflex_queue_paused", (("queue", "reports"),)): 1,
        ("pgreflex_queue_oldest_ready_seconds", (("queue", "mail"),)): 312.4,
        ("pgreflex_queue_draining", (("queue", "mail"),)): 1,
        ("pgreflex_queue_failed_24h", (("queue", "default"),)): 31,
        ("pgreflex_jobs_finished_total", ()): 1_204_882,
        ("pgreflex_jobs_rescued_total", ()): 2,
        ("pgreflex_pool_connections", (("pool", "main"), ("process", "web-1:12"), ("state", "active"))): 10,
        ("pgreflex_pool_waiting", (("pool", "main"), ("process", "web-1:12"))): 7,
        ("pgreflex_pool_timeouts_total", (("pool", "main"), ("process", "web-1:12"))): 3,
        ("pgreflex_pool_wait_seconds", (("pool", "main"), ("process", "web-1:12"), ("quantile", "0.95"))): 0.21,
        ("pgreflex_jobs_cancelled_total", ()): 4,
        ("pgreflex_jobs_expired_total", ()): 5,
        ("pgreflex_job_run_seconds", (("quantile", "0.5"),)): 0.014,
        ("pgreflex_service_up", (("service", "feed"),)): 1,
        ("pgreflex_service_restarts_total", (("service", "jobs"),)): 2,
    }
    assert {key: found.get(key) for key in expected} == pytest.approx(expected)


async def test_what_is_unknown_is_absent(http: Client, source: Source, bare_status: Status) -> None:
    source.answer = msgspec.structs.replace(
        bare_status,
        feed=FeedStatus(),
        cache=CacheStatus(),
        jobs=JobsStatus(queues=(QueueStatus("mail"),)),
        series=(SeriesStatus("orders.insert", Quantiles(p50=1.0, count=1)),),
    )
    names = {name for name, _ in await samples(http)}
    unknown = {
        "pgreflex_resident_bytes",
        "pgreflex_feed_asleep",
        "pgreflex_feed_sequence",
        "pgreflex_feed_backlog_bytes",
        "pgreflex_feed_outbox_full",
        "pgreflex_event_delivery_seconds",
        "pgreflex_cache_hit_ratio",
        "pgreflex_cache_age_bound_seconds",
        "pgreflex_cache_fresh_ratio",
        "pgreflex_cache_namespace_entries",
        "pgreflex_series_max_seconds",
        "pgreflex_queue_oldest_ready_seconds",
        "pgreflex_queue_failed_24h",
        "pgreflex_job_wait_seconds",
    }
    assert not names & unknown
    quantiles = [labels for name, labels in await samples(http) if name == "pgreflex_series_seconds"]
    assert quantiles == [(("quantile", "0.5"), ("series", "orders.insert"))]


async def test_a_part_that_does_not_run_has_no_metrics(http: Client, source: Source, bare_status: Status) -> None:
    source.answer = bare_status
    names = {name for name, _ in await samples(http)}
    assert not {name for name in names if re.search("feed|event|cache|job|queue", name)}
    assert "pgreflex_ready" in names


async def test_names_follow_the_conventions(http: Client) -> None:
    for family in await families(http):
        assert family.documentation.endswith("."), family.name
        assert not re.search("milli|_ms|kilo", family.name)
        for sample in family.samples:
            assert sample.name.startswith("pgreflex_")
            assert sample.name.endswith("_total") == (family.type == "counter"), sample.name


async def test_every_metric_is_in_the_manual(http: Client) -> None:
    manual = (Path(__file__).parents[2] / "docs" / "http.md").read_text()
    for family in await families(http):
        for sample in family.samples:
            assert f"`{sample.name.removeprefix('pgreflex_')}`" in manual, sample.name


async def test_no_metric_is_told_twice(http: Client) -> None:
    async with http.get("/metrics") as answer:
        lines = [line.rpartition(" ")[0] for line in (await answer.text()).splitlines() if line[0] != "#"]
    assert len(lines) == len(set(lines))


async def test_openmetrics_is_spoken_to_those_who_ask_for_it(http: Client) -> None:
    async with http.get("/metrics", headers={"Accept": OPENMETRICS}) as answer:
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
        text = await answer.text()
    assert text.endswith("# EOF\n")
    names = {family.name for family in openmetrics_parser.text_string_to_metric_families(text)}
    assert {"pgreflex_build", "pgreflex_events", "pgreflex_event_delivery_seconds"} <= names


async def test_labels_are_escaped(http: Client, source: Source, bare_status: Status) -> None:
    name = 'checkout{region="eu"}\n\\'
    source.answer = msgspec.structs.replace(bare_status, series=(SeriesStatus(name, Quantiles(p50=1.0, count=1)),))
    assert ("pgreflex_series_samples", (("series", name),)) in await samples(http)
