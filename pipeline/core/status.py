"""What every part says of itself: the one source of the status page, the API and the metrics.

Owns: the shape of the status. Knows nothing of how a part finds its figures.

None always means "unknown", never zero. Counters (`*_total`) count since the process started. Durations are
milliseconds where the name ends in `_ms` and seconds where it ends in `_seconds`.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class Quantiles(msgspec.Struct, frozen=True):
    """Percentiles of a duration, in milliseconds, over the samples of `window_seconds`."""

    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    count: int = 0
    window_seconds: float | None = None


class WatchStatus(msgspec.Struct, frozen=True):
    """One watched table. problem: why its triggers may not report everything, or None."""

    table: str
    keys: tuple[str, ...]
    timing: bool
    problem: str | None = None


class FeedStatus(msgspec.Struct, frozen=True):
    """The event feed as this process sees it."""

    connected: bool = False
    leading: bool = False
    asleep: bool | None = None
    epoch: str | None = None
    seq: int | None = None
    events_total: int = 0
    events_per_second: float | None = None
    batches_total: int = 0
    bells_total: int = 0
    flushes_total: int = 0
    reconnects_total: int = 0
    backlog_bytes: int | None = None
    outbox_full: bool | None = None
    write_to_delivery: Quantiles = Quantiles()
    watches: tuple[WatchStatus, ...] = ()


class SharedStatus(msgspec.Struct):
    """One process's share in the table of values. Counters since the start.

    hits: values taken. misses: there was none. refused: rows that were too old to be
    proved. waited: loads of other processes that were waited for. stored: values written. raised: rows that were
    said to be still true. unshareable: values without a form for all processes, or too large. foreign: rows that
    could not be read. skipped: values not written, since there were too many or no room. failures: of the table.
    """

    hits: int = 0
    misses: int = 0
    refused: int = 0
    waited: int = 0
    stored: int = 0
    raised: int = 0
    unshareable: int = 0
    foreign: int = 0
    skipped: int = 0
    failures: int = 0


class NamespaceFigures(msgspec.Struct, frozen=True):
    """What is told of one cached function, or one namespace, to others. name: "" is the rest, summed up."""

    name: str
    entries: int = 0
    bytes: int = 0
    hits_total: int = 0
    misses_total: int = 0
    stale_total: int = 0
    bypassed_total: int = 0
    refused_total: int = 0
    saved_seconds_total: float = 0.0


class CacheStatus(msgspec.Struct, frozen=True):
    """One process's cache. hit_ratio is over the last minute. stale_total: reads that were flagged as stale.

    gone: entries by what ended them (size, count, expired, changed, cleared, flushed, replaced). refused: fills
    that were not stored, by reason. checks_total: hits that were read again and judged; violations_total of them
    were wrong. uncheckable_total: those of which nothing could be said. fresh_within_1s: the share that was right
    and proved to be at most a second old, as if one more had failed; None: nothing was judged yet.
    """

    entries: int = 0
    bytes: int = 0
    max_bytes: int = 0
    hits_total: int = 0
    misses_total: int = 0
    bypassed_total: int = 0
    refused_fills_total: int = 0
    invalidations_total: int = 0
    evictions_total: int = 0
    flushes_total: int = 0
    stale_total: int = 0
    saved_seconds_total: float = 0.0  # hits times the mean load of their kind
    hit_ratio: float | None = None
    age_bound_seconds: float | None = None  # every read served now is at most this old; None: serving nothing
    gone: dict[str, int] = {}
    refused: dict[str, int] = {}
    checks_total: int = 0
    fresh_within_1s_total: int = 0
    fresh_within_60s_total: int = 0
    violations_total: int = 0
    uncheckable_total: int = 0
    fresh_within_1s: float | None = None
    namespaces: tuple[NamespaceFigures, ...] = ()  # those that are asked for most


class HotKey(msgspec.Struct, frozen=True):
    """A key that is often asked for. hits: about how often it was."""

    key: str
    hits: int
    namespace: str = ""


class NamespaceStatus(msgspec.Struct, frozen=True):
    """One cached function, or one namespace, of one process. gone: entries by what ended them (size, count,
    expired, changed, cleared, flushed, replaced). refused: loads that were not stored, by reason. saved_seconds:
    hits times the mean load.
    """

    name: str
    entries: int = 0
    bytes: int = 0
    max_entries: int | None = None
    max_bytes: int | None = None
    hits_total: int = 0
    misses_total: int = 0
    stale_total: int = 0
    bypassed_total: int = 0
    refused: dict[str, int] = {}
    gone: dict[str, int] = {}
    mean_load_ms: float | None = None
    saved_seconds: float = 0.0
    hottest: tuple[HotKey, ...] = ()


class SeriesStatus(msgspec.Struct, frozen=True):
    """One series of timings, over the last few minutes. name: with its labels."""

    name: str
    latency: Quantiles
    errors: int = 0
    max_ms: float | None = None
    source: str = ""


class QueryStatus(msgspec.Struct, frozen=True):
    """One query, over the last few minutes. text: with $1 for each value, cut short; None where it is not known.
    share: of the time of all queries, 0 to 1."""

    fingerprint: str
    text: str | None
    latency: Quantiles
    errors: int = 0
    max_ms: float | None = None
    total_ms: float = 0.0
    share: float | None = None


class TimingsStatus(msgspec.Struct, frozen=True):
    """What became of the timings of some processes, in timings, since each of them started.

    series: alive now. added: counted. rejected: no duration, no usable name, or too old. overflowed: counted in
    a series "other", because there were too many. dropped: given up, while nobody wrote them. late: counted in a
    window that had been written before. ahead: of a clock that runs ahead, counted as of now. cut: names and
    labels that were too long.
    """

    series: int = 0
    added_total: int = 0
    rejected_total: int = 0
    overflowed_total: int = 0
    dropped_total: int = 0
    late_total: int = 0
    ahead_total: int = 0
    cut_total: int = 0


def sum_of_timings(several: Iterable[TimingsStatus]) -> TimingsStatus:
    """All of them together."""
    whole = [msgspec.structs.astuple(one) for one in several]
    return TimingsStatus(*(sum(figures) for figures in zip(*whole, strict=True)))


class AlertStatus(msgspec.Struct, frozen=True):
    """One alert instance that is not inactive. Times are Unix seconds. unit: of value and threshold.
    acknowledged: by whom. held: what holds telling back, such as `silence 3`.
    """

    rule: str
    state: str
    severity: str
    since: float
    message: str
    value: float | None = None
    threshold: float | None = None
    instance: str = ""
    unit: str | None = None
    runbook: str | None = None
    acknowledged: str | None = None
    held: str = ""


class AlertCount(msgspec.Struct, frozen=True):
    """How many alerts pend or fire."""

    state: str
    severity: str
    count: int


class ChannelStatus(msgspec.Struct, frozen=True):
    """A channel of alerts. waiting: notifications that it has not accepted yet; failed: given up within 24 hours.
    problem: why it has not accepted for long.
    """

    channel: str
    waiting: int
    failed: int
    problem: str | None = None


class AlertingStatus(msgspec.Struct, frozen=True):
    """Alerting as a whole, in this database. rule_problems: rules that cannot be judged."""

    counts: tuple[AlertCount, ...] = ()
    rule_problems: int = 0
    channels: tuple[ChannelStatus, ...] = ()


class QueueStatus(msgspec.Struct, frozen=True):
    """One queue. oldest_ready_seconds: how long the oldest job that may run has been waiting. paused: no job is
    handed out; draining: none that is added from now on. failed_24h: for good, within the last 24 hours."""

    queue: str
    ready: int = 0
    delayed: int = 0
    running: int = 0
    paused: bool = False
    oldest_ready_seconds: float | None = None
    draining: bool = False
    failed_24h: int | None = None


class JobsStatus(msgspec.Struct, frozen=True):
    """The job queue; totals are this process's own."""

    queues: tuple[QueueStatus, ...] = ()
    finished_total: int = 0
    failed_total: int = 0
    retried_total: int = 0
    rescued_total: int = 0
    per_second: float | None = None
    cancelled_total: int = 0
    expired_total: int = 0
    wait: Quantiles = Quantiles()
    run: Quantiles = Quantiles()


class StatementsStatus(msgspec.Struct, frozen=True):
    """pg_stat_statements as this process found it, if it looks at it. at: when it looked last.

    entries: statements of this database. hidden: those of other roles, which this one may not see.
    evictions_total: how often entries were evicted. shortcomings: what is amiss, and what to do about it.
    """

    at: float | None = None
    entries: int | None = None
    hidden: int | None = None
    evictions_total: int = 0
    shortcomings: tuple[str, ...] = ()


class BlockedSession(msgspec.Struct, frozen=True):
    """A session that waits for a lock. behind: who holds it or waits for it longest. root: who holds up all of
    them and waits for no lock; None for a prepared transaction. depth: 1 where root is behind. Texts are without
    values.
    """

    pid: int
    role: str | None
    application: str | None
    waited_seconds: float | None
    lock: str | None
    mode: str | None
    relation: str | None
    text: str | None
    behind: int
    root: int | None
    root_state: str | None
    root_role: str | None
    root_application: str | None
    root_transaction_seconds: float | None
    root_text: str | None
    depth: int


class ActivityStatus(msgspec.Struct, frozen=True):
    """The sessions of this database, ours left out, as this process saw them last. at: Unix seconds.

    hidden: sessions whose doings the role may not see. active: by the type of what they wait for, `running` for
    none. blocked: sessions that wait for a lock. longest_idle_seconds: idle in a transaction. Figures are of the
    sessions that are seen, and None where none is found and some are hidden.
    """

    at: float | None = None
    sessions: int = 0
    hidden: int = 0
    active: dict[str, int] = {}
    blocked: int | None = None
    longest_transaction_seconds: float | None = None
    longest_idle_seconds: float | None = None
    blocked_sessions: tuple[BlockedSession, ...] = ()


class ServiceHealth(msgspec.Struct, frozen=True):
    """One service of this process, as its supervisor sees it."""

    name: str
    ok: bool
    detail: str = ""
    restarts: int = 0


class PoolStatus(msgspec.Struct, frozen=True):
    """One connection pool of one process. Connections: total = idle + active + those being checked. waiting: who
    stands in line. timeouts_total: who stood there in vain. failed_total: connections that could not be opened.
    discarded_total: those closed because they were broken. rolled_back_total: those given back inside a
    transaction. leaked_total: those held for longer than leak_after. reclaimed_total: those taken back because
    nobody could give them back any more. wait, held: of the last minute. process: set where several are shown.
    """

    name: str
    min_size: int = 0
    max_size: int = 0
    total: int = 0
    idle: int = 0
    active: int = 0
    waiting: int = 0
    opening: int = 0
    acquired_total: int = 0
    timeouts_total: int = 0
    opened_total: int = 0
    failed_total: int = 0
    discarded_total: int = 0
    rolled_back_total: int = 0
    leaked_total: int = 0
    reclaimed_total: int = 0
    longest_held_seconds: float | None = None
    wait: Quantiles = Quantiles()
    held: Quantiles = Quantiles()
    process: str = ""


class Status(msgspec.Struct, frozen=True):
    """Everything that one process can tell, at one moment. Times are Unix seconds."""

    version: str
    process: str
    at: float
    started_at: float
    ready: bool
    draining: bool
    services: tuple[ServiceHealth, ...] = ()
    database: str | None = None
    resident_bytes: int | None = None
    feed: FeedStatus | None = None
    cache: CacheStatus | None = None
    series: tuple[SeriesStatus, ...] = ()
    queries: tuple[QueryStatus, ...] = ()  # those that took the most time
    timings: TimingsStatus | None = None
    alerts: tuple[AlertStatus, ...] = ()
    alerting: AlertingStatus | None = None
    jobs: JobsStatus | None = None
    statements: StatementsStatus | None = None
    pools: tuple[PoolStatus, ...] = ()
    activity: ActivityStatus | None = None
