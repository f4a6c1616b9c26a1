"""/metrics: the status in the Prometheus exposition format.

Owns: names, units and labels of the metrics. Knows only the Status.

Built anew from one Status for each scrape, so nothing is kept and nothing goes stale. A figure that is
unknown is absent, never 0. Durations become seconds. The quantiles are those of the digests over their
window; a window's count is no counter, so the summaries carry no _count and the windows' sizes are gauges of
their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec
from aiohttp import hdrs, web
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from pipeline.core.status import (
    ActivityStatus,
    AlertingStatus,
    CacheStatus,
    FeedStatus,
    JobsStatus,
    NamespaceFigures,
    PoolStatus,
    Quantiles,
    SeriesStatus,
    StatementsStatus,
    Status,
    TimingsStatus,
)
from pipeline.web.source import Sampler

Labels = Mapping[str, str]


class StatusCollector(Collector):
    """The metrics of one status."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        status = self._status
        yield from _families(_process(status))
        if status.feed is not None:
            yield from _families(_feed(status.feed))
        if status.cache is not None:
            yield from _families(_cache(status.cache))
        if status.series is not None:
            yield from _families(_series(status.series))
        if status.timings is not None:
            yield from _families(_timings(status.timings))
        if status.activity is not None:
            yield from _families(_activity(status.activity))
        if status.statements is not None:
            yield from _families(_statements(status.statements))
        if status.alerting is not None:
            yield from _families(_alerting(status.alerting))
        if status.jobs is not None:
            yield from _families(_jobs(status.jobs))
        yield from _families(_pools(status.pools))


class Figure:
    """A metric in the making: its name, kind and help, and the values that are known."""

    def __init__(self, kind: str, name: str, text: str) -> None:
        self.metric = Metric(f"pgreflex_{name}", text, kind)
        self._sample = self.metric.name + {"counter": "_total", "info": "_info"}.get(kind, "")

    def add(self, value: float | None, labels: Labels | None = None) -> Figure:
        """Add one value; an unknown one is left out."""
        if value is not None:
            self.metric.add_sample(self._sample, dict(labels or {}), float(value))
        return self

    def quantiles(self, found: Quantiles, labels: Labels | None = None) -> Figure:
        """Add the known percentiles of a duration, as seconds."""
        for quantile, value in (("0.5", found.p50), ("0.95", found.p95), ("0.99", found.p99)):
            self.add(None if value is None else value / 1000, {**(labels or {}), "quantile": quantile})
        return self


def _families(figures: Iterable[Figure]) -> Iterator[Metric]:
    """The metrics of which at least one value is known."""
    return (figure.metric for figure in figures if figure.metric.samples)


def counter(name: str, text: str) -> Figure:
    return Figure("counter", name, text)


def gauge(name: str, text: str) -> Figure:
    return Figure("gauge", name, text)


def summary(name: str, text: str) -> Figure:
    return Figure("summary", name, text)


def _process(status: Status) -> Iterator[Figure]:
    yield Figure("info", "build", "The running version.").add(1, {"version": status.version})
    yield gauge("start_time_seconds", "When the process started, Unix time.").add(status.started_at)
    yield gauge("ready", "1 when every service is well and the process is not draining.").add(status.ready)
    yield gauge("draining", "1 while the process finishes what it holds.").add(status.draining)
    yield gauge("resident_bytes", "Memory of the process that is in RAM.").add(status.resident_bytes)
    up = gauge("service_up", "1 when the service is well.")
    restarts = counter("service_restarts", "How often the service was started again.")
    for service in status.services:
        up.add(service.ok, {"service": service.name})
        restarts.add(service.restarts, {"service": service.name})
    yield from (up, restarts)


def _feed(feed: FeedStatus) -> Iterator[Figure]:
    yield gauge("feed_connected", "1 while the feed is proved to be heard.").add(feed.connected)
    yield gauge("feed_leading", "1 in the process that pumps the feed.").add(feed.leading)
    yield gauge("feed_asleep", "1 while the pump waits for the doorbell.").add(feed.asleep)
    yield gauge("feed_sequence", "Number of the last batch that was heard.").add(feed.seq)
    yield gauge("feed_backlog_bytes", "Size of the outbox.").add(feed.backlog_bytes)
    yield gauge("feed_outbox_full", "1 while the outbox takes no more events.").add(feed.outbox_full)
    yield counter("events", "Events heard.").add(feed.events_total)
    yield counter("feed_batches", "Batches heard.").add(feed.batches_total)
    yield counter("feed_bells", "Wake-ups by the doorbell.").add(feed.bells_total)
    yield counter("feed_flushes", "Times that events may have been missed.").add(feed.flushes_total)
    yield counter("feed_reconnects", "Connections lost and made again.").add(feed.reconnects_total)
    delivery = feed.write_to_delivery
    yield summary("event_delivery_seconds", "From the write to the consumer.").quantiles(delivery)
    yield gauge("event_delivery_samples", "Events that the quantiles stand for.").add(delivery.count)
    broken = sum(watch.problem is not None for watch in feed.watches)
    yield gauge("watched_tables", "Tables that are watched.").add(len(feed.watches))
    yield gauge("watched_tables_with_problems", "Watched tables that may not report all.").add(broken)


def _cache(cache: CacheStatus) -> Iterator[Figure]:
    yield gauge("cache_entries", "Values in the cache.").add(cache.entries)
    yield gauge("cache_bytes", "Size of the values in the cache.").add(cache.bytes)
    yield gauge("cache_max_bytes", "Size at which values are evicted.").add(cache.max_bytes)
    yield gauge("cache_hit_ratio", "Hits by reads over the last minute.").add(cache.hit_ratio)
    yield gauge("cache_age_bound_seconds", "No read served now is older; absent: none is served.").add(
        cache.age_bound_seconds
    )
    yield counter("cache_hits", "Reads served from the cache.").add(cache.hits_total)
    yield counter("cache_misses", "Reads that had to load.").add(cache.misses_total)
    yield counter("cache_bypassed", "Reads past the cache while freshness was unproved.").add(cache.bypassed_total)
    yield counter("cache_refused_fills", "Values not stored: changed while loading.").add(
        cache.refused_fills_total
    )
    yield counter("cache_invalidations", "Values dropped because of an event.").add(cache.invalidations_total)
    yield counter("cache_evictions", "Values dropped for room.").add(cache.evictions_total)
    yield counter("cache_flushes", "Times that everything was dropped.").add(cache.flushes_total)
    yield counter("cache_stale", "Reads that were flagged as stale.").add(cache.stale_total)
    yield counter("cache_saved_seconds", "Hits times the mean load of their kind.").add(cache.saved_seconds_total)
    yield counter("cache_checks", "Hits that were read again and judged.").add(cache.checks_total)
    yield counter("cache_violations", "Hits that were wrong.").add(cache.violations_total)
    yield counter("cache_uncheckable", "Hits that were read again in vain.").add(cache.uncheckable_total)
    yield counter("cache_fresh_within_1s", "Hits judged right and proved no older.").add(
        cache.fresh_within_1s_total
    )
    yield counter("cache_fresh_within_60s", "Hits judged right and proved no older.").add(
        cache.fresh_within_60s_total
    )
    yield gauge("cache_fresh_ratio", "Share of the checks fresh within 1 s, as if one more had failed.").add(
        cache.fresh_within_1s
    )
    gone = counter("cache_gone", "Values that ended, by cause.")
    for cause, number in sorted(cache.gone.items()):
        gone.add(number, {"cause": cause})
    refused = counter("cache_refused", "Values not stored, by reason.")
    for reason, number in sorted(cache.refused.items()):
        refused.add(number, {"reason": reason})
    yield from (gone, refused)
    yield from _namespaces(cache.namespaces)


def _namespaces(spaces: Iterable[NamespaceFigures]) -> tuple[Figure, ...]:
    """At most two dozen, and the rest as one: programs may have many."""
    entries = gauge("cache_namespace_entries", "Values of the namespace.")
    size = gauge("cache_namespace_bytes", "Size of the values of the namespace.")
    reads = counter("cache_namespace_reads", "Reads of the namespace, by how they were served.")
    saved = counter("cache_namespace_saved_seconds", "Hits of the namespace times its mean load.")
    for space in spaces:
        labels = {"namespace": space.name or "(others)"}
        entries.add(space.entries, labels)
        size.add(space.bytes, labels)
        saved.add(space.saved_seconds_total, labels)
        for how in ("hits", "misses", "stale", "bypassed"):
            reads.add(getattr(space, f"{how}_total"), {**labels, "how": how})
    return entries, size, reads, saved


def _series(series: Iterable[SeriesStatus]) -> tuple[Figure, ...]:
    latency = summary("series_seconds", "Durations of a series over its window.")
    samples = gauge("series_samples", "Durations that the quantiles stand for.")
    errors = gauge("series_errors", "Failures within the window.")
    longest = gauge("series_max_seconds", "The longest duration within the window.")
    for one in series:
        labels = {"series": one.name}
        latency.quantiles(one.latency, labels)
        samples.add(one.latency.count, labels)
        errors.add(one.errors, labels)
        longest.add(None if one.max_ms is None else one.max_ms / 1000, labels)
    return latency, samples, errors, longest


def _timings(timings: TimingsStatus) -> tuple[Figure, ...]:
    figures = msgspec.structs.asdict(timings)
    series = gauge("timing_series", "Series that are alive, over all processes.").add(figures.pop("series"))
    ends = counter("timings", "Timings by what became of them.")
    for name, number in figures.items():
        ends.add(number, {"end": name.removesuffix("_total")})
    return series, ends


def _activity(activity: ActivityStatus) -> Iterator[Figure]:
    active = gauge("sessions_active", "Active sessions by what they wait for; `running`: for nothing.")
    for wait, number in sorted(activity.active.items()):
        active.add(number, {"wait": wait})
    yield active
    yield gauge("sessions_hidden", "Sessions whose doings the role may not see.").add(activity.hidden)
    yield gauge("sessions_blocked", "Sessions that wait for a lock.").add(activity.blocked)
    yield gauge("longest_transaction_seconds", "The age of the oldest transaction.").add(
        activity.longest_transaction_seconds
    )
    yield gauge("longest_idle_in_transaction_seconds", "How long a session has been idle in one.").add(
        activity.longest_idle_seconds
    )


def _statements(statements: StatementsStatus) -> Iterator[Figure]:
    yield gauge("statements", "Statements that pg_stat_statements has of the database.").add(statements.entries)
    yield counter("statement_evictions", "Times that it was full.").add(statements.evictions_total)


def _alerting(alerting: AlertingStatus) -> Iterator[Figure]:
    found = gauge("alerts", "Alerts by state and severity.")
    counts = {(one.state, one.severity): one.count for one in alerting.counts}
    for state in ("pending", "firing"):
        for severity in ("info", "warning", "critical"):
            found.add(counts.get((state, severity), 0), {"state": state, "severity": severity})
    yield found
    yield gauge("alert_rule_problems", "Rules that cannot be judged.").add(alerting.rule_problems)
    waiting = gauge("alert_notifications_waiting", "Notifications that a channel has not accepted yet.")
    failed = gauge("alert_notifications_failed_24h", "Notifications that were given up within 24 hours.")
    for channel in alerting.channels:
        waiting.add(channel.waiting, {"channel": channel.channel})
        failed.add(channel.failed, {"channel": channel.channel})
    yield waiting
    yield failed


def _jobs(jobs: JobsStatus) -> Iterator[Figure]:
    held = gauge("jobs", "Jobs by queue and state.")
    paused = gauge("queue_paused", "1 while the queue gives no jobs.")
    draining = gauge("queue_draining", "1 while the queue gives only jobs that were in line when the drain began.")
    failed = gauge("queue_failed_24h", "Jobs of the queue that have failed for good within 24 hours.")
    oldest = gauge("queue_oldest_ready_seconds", "How long the oldest job that may run has waited.")
    for queue in jobs.queues:
        labels = {"queue": queue.queue}
        for state in ("ready", "delayed", "running"):
            held.add(getattr(queue, state), {**labels, "state": state})
        paused.add(queue.paused, labels)
        draining.add(queue.draining, labels)
        failed.add(queue.failed_24h, labels)
        oldest.add(queue.oldest_ready_seconds, labels)
    yield from (held, paused, draining, failed, oldest)
    yield counter("jobs_finished", "Jobs finished by this process.").add(jobs.finished_total)
    yield counter("jobs_failed", "Jobs failed for good in this process.").add(jobs.failed_total)
    yield counter("jobs_retried", "Jobs put back for another attempt by this process.").add(jobs.retried_total)
    yield counter("jobs_rescued", "Jobs taken back from workers that died.").add(jobs.rescued_total)
    yield counter("jobs_cancelled", "Jobs that a task of this process has cancelled.").add(jobs.cancelled_total)
    yield counter("jobs_expired", "Jobs that had not begun in time, found by this process.").add(
        jobs.expired_total
    )
    yield summary("job_wait_seconds", "From ready to claimed.").quantiles(jobs.wait)
    yield gauge("job_wait_samples", "Jobs that the quantiles stand for.").add(jobs.wait.count)
    yield summary("job_run_seconds", "From claimed to finished.").quantiles(jobs.run)
    yield gauge("job_run_samples", "Jobs that the quantiles stand for.").add(jobs.run.count)


def _pools(pools: tuple[PoolStatus, ...]) -> Iterator[Figure]:
    held = gauge("pool_connections", "Connections of the pool by state.")
    most = gauge("pool_max_connections", "How many connections the pool may have.")
    waiting = gauge("pool_waiting", "Clients that wait for a connection.")
    longest = gauge("pool_longest_held_seconds", "How long the connection held longest has been held.")
    counted = {
        "acquired": counter("pool_acquired", "Connections acquired."),
        "timeouts": counter("pool_timeouts", "Clients that waited for a connection in vain."),
        "opened": counter("pool_opened", "Connections opened."),
        "failed": counter("pool_failed", "Connections that could not be opened."),
        "discarded": counter("pool_discarded", "Connections closed because they were broken."),
        "rolled_back": counter("pool_rolled_back", "Connections returned inside a transaction."),
        "leaked": counter("pool_leaked", "Connections held for too long."),
        "reclaimed": counter("pool_reclaimed", "Connections taken back that nobody could return."),
    }
    wait = summary("pool_wait_seconds", "From asking for a connection to having it.")
    hold = summary("pool_held_seconds", "From having a connection to returning it.")
    for pool in pools:
        labels = {"pool": pool.name, "process": pool.process}
        for state in ("active", "idle", "opening"):
            held.add(getattr(pool, state), {**labels, "state": state})
        most.add(pool.max_size, labels)
        waiting.add(pool.waiting, labels)
        longest.add(pool.longest_held_seconds, labels)
        for name, figure in counted.items():
            figure.add(getattr(pool, f"{name}_total"), labels)
        wait.quantiles(pool.wait, labels)
        hold.quantiles(pool.held, labels)
    yield from (held, most, waiting, longest, *counted.values(), wait, hold)


class MetricsPage:
    """GET /metrics."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def add_to(self, router: web.UrlDispatcher) -> None:
        router.add_get("/metrics", self.metrics)

    async def metrics(self, request: web.Request) -> web.Response:
        """Text format 0.0.4, or OpenMetrics where the scraper asks for it."""
        status = await self._sampler.sample()
        encode, content_type = choose_encoder(request.headers.get(hdrs.ACCEPT, ""))
        headers = {hdrs.CONTENT_TYPE: content_type, hdrs.CACHE_CONTROL: "no-store"}
        return web.Response(body=encode(StatusCollector(status)), headers=headers)
