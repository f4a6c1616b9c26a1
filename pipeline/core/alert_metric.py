"""What a rule can be about: the metrics, how each is had, and what a reading of one says.

Owns: the registry, labels of a series by its name, change per minute of counters. Must not know rules, the state
machine, or how a statement is sent. pipeline.alert_metrics() tells users the same names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Literal, TypeAlias

import msgspec

from pipeline.core.window import series_name

MAX_INSTANCE = 1_000  # characters of the labels, as in raise_alert
MAX_INSTANCE_BYTES = 1_200  # an index of Postgres takes 2,700, of which a rule's name may need 800
MAX_DETAIL = 1_000

Kind: TypeAlias = Literal["timing", "gauge", "counter", "local", "query"]


class Metric(msgspec.Struct, frozen=True):
    """One metric. kind: as pipeline.alert_metrics() says. statement: its file below sql/, where it has one.

    args: what the statement takes: `series` (pattern, labels, sources, start, seconds), `window` (end, seconds),
    or numbers of its own. gone_is_good: an instance that a reading does not name any more has ended well, as a
    queue that is empty; elsewhere nothing is known of it, and no data is not good news.
    """

    kind: Kind
    statement: str = ""
    args: Literal["series", "window"] | tuple[float, ...] = ()
    gone_is_good: bool = False


_HOUR, _DAY = 3_600.0, 86_400.0
_TIMINGS = ("p50", "p95", "p99", "mean", "max", "count", "error_rate")
METRICS: dict[str, Metric] = {
    **{f"latency.{name}": Metric("timing", "alert_metrics/timings", "series") for name in _TIMINGS},
    "latency.regression": Metric("timing", "alert_metrics/regression", "series"),
    "slo.burn_1h": Metric("gauge", "alert_metrics/burn", (_HOUR, 300.0)),
    "slo.burn_6h": Metric("gauge", "alert_metrics/burn", (6 * _HOUR, 1_800.0)),
    "slo.burn_1d": Metric("gauge", "alert_metrics/burn", (_DAY, 2 * _HOUR)),
    "slo.burn_3d": Metric("gauge", "alert_metrics/burn", (3 * _DAY, 6 * _HOUR)),
    "jobs.failed": Metric("gauge", "alert_metrics/jobs_failed", "window", gone_is_good=True),
    "jobs.queue_age": Metric("gauge", "alert_metrics/queue_age", gone_is_good=True),
    "cache.hit_ratio": Metric("local"),
    "feed.lag": Metric("local"),
    "feed.deaf": Metric("local", gone_is_good=True),
    "db.long_transaction": Metric("gauge", "alert_metrics/long_transaction"),
    "db.connections": Metric("gauge", "alert_metrics/connections"),
    "db.replication_lag": Metric("gauge", "alert_metrics/replication_lag"),
    "db.slot_bytes": Metric("gauge", "alert_metrics/slot_bytes", gone_is_good=True),
    "db.wraparound_age": Metric("gauge", "alert_metrics/wraparound_age", gone_is_good=True),
    "db.notify_queue": Metric("gauge", "alert_metrics/notify_queue"),
    "db.deadlocks": Metric("counter", "alert_metrics/deadlocks"),
    "db.growth": Metric("counter", "alert_metrics/growth"),
    "db.wal_ratio": Metric("gauge", "alert_metrics/wal_ratio"),
    "disk.free": Metric("local"),
    "alerts.broken_rules": Metric("gauge", "alert_metrics/broken_rules", gone_is_good=True),
    "alerts.lost": Metric("counter", "alert_metrics/lost"),
    "sql": Metric("query", gone_is_good=True),
}


class Reading(msgspec.Struct, frozen=True):
    """What a metric says of one instance in one window. value: None, nothing is known. samples: how many
    events it stands for. detail: for the message.
    """

    instance: str
    value: float | None
    labels: dict[str, str] = {}
    samples: int = 1
    detail: str = ""


class Timing(msgspec.Struct, frozen=True):
    """One series in one window; durations in milliseconds."""

    series: str
    count: int
    errors: int
    mean: float
    p50: float
    p95: float
    p99: float
    max: float
    labels: dict[str, str] = {}

    def reading(self, metric: str) -> Reading:
        """The figure that `latency.<name>` names."""
        name = metric.removeprefix("latency.")
        value = self.errors / self.count if name == "error_rate" else float(getattr(self, name))
        return Reading(instance_name(self.series), value, self.labels, self.count)


def instance_name(text: str) -> str:
    """The name of an instance: its series, or its labels as one text. A hash ends one that is too long."""
    if len(text) <= MAX_INSTANCE_BYTES // 4 or len(text.encode()) <= MAX_INSTANCE_BYTES:
        return text
    mark = blake2b(text.encode(), digest_size=8).hexdigest()
    return f"{text.encode()[: MAX_INSTANCE_BYTES - 17].decode(errors='ignore')}~{mark}"


def reading_of(row: Mapping[str, object]) -> Reading:
    """A row of a query of the user's: `value` and `detail`, and all other columns are labels.

    Raises ValueError for a value that is no number, and for labels that are too long to be a name.
    """
    value, detail = row.get("value"), row.get("detail")
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        raise ValueError("its column value is no number")  # noqa: TRY004 - of the data, not of the program
    labels = {name: label_text(one) for name, one in row.items() if name not in ("value", "detail")}
    instance = series_name("", labels)
    if len(instance) > MAX_INSTANCE:
        raise ValueError(f"the labels of a row are longer than {MAX_INSTANCE} characters")
    return Reading(
        instance_name(instance),
        None if value is None else float(value),
        labels,
        detail=label_text(detail)[:MAX_DETAIL],
    )


def label_text(value: object) -> str:
    """A value as a label has it: texts as they are, everything else as JSON."""
    if value is None or isinstance(value, str):
        return value or ""
    return msgspec.json.encode(value).decode()


def matching(readings: Sequence[Reading], labels: Mapping[str, str]) -> list[Reading]:
    """Those whose labels contain these."""
    return [one for one in readings if labels.items() <= one.labels.items()]


def per_minute(readings: Sequence[Reading], before: Mapping[str, float], seconds: float | None) -> list[Reading]:
    """What counters have grown by in a minute. before: what they said `seconds` ago, by instance.

    Nothing is known of one that was not there, that fell (the server was started anew), or without a before.
    """
    told = []
    for one in readings:
        last = before.get(one.instance)
        value = None
        if one.value is not None and last is not None and seconds and one.value >= last:
            value = (one.value - last) * 60 / seconds
        told.append(msgspec.structs.replace(one, value=value))
    return told
