"""The timings that rules are judged on, as Postgres tells them.

Owns: the rows of sql/alert_metrics/timings.sql. Must not know rules, or what follows from a timing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pipeline.core.alert_metric import Reading, Timing
from pipeline.core.pooled import Pooled, pooled_quantiles
from pipeline.db.alert_rows import labels_of
from pipeline.db.connection import Record

QUANTILES = (0.5, 0.95, 0.99)
PERCENTILES = ("latency.p50", "latency.p95", "latency.p99")
AT_ONCE = 100  # series; reading one takes some 50 microseconds


async def readings_of(rows: Sequence[Record], metric: str) -> list[Reading]:
    """What each series says of a metric. Many are read in a thread, so that others are judged meanwhile."""
    if len(rows) <= AT_ONCE:
        return _readings(rows, metric)
    return await asyncio.to_thread(_readings, rows, metric)


def _readings(rows: Sequence[Record], metric: str) -> list[Reading]:
    return [_timing(row).reading(metric) for row in rows]


def _timing(row: Record) -> Timing:
    count, sent = row["count"], row["centroids"]
    quantiles = [0.0, 0.0, 0.0]
    if sent is not None:
        pooled = Pooled(count, row["low"], row["high"], row["lows"], row["highs"], row["sizes"], sent)
        quantiles = pooled_quantiles(pooled, QUANTILES)
    p50, p95, p99 = quantiles
    labels = labels_of(row["labels"])
    return Timing(row["series"], count, row["errors"], row["sum"] / count, p50, p95, p99, row["high"], labels)
