-- What a rule can be about. kind: `timing` is judged on stored windows, also late; `gauge` and `counter` (told as change per
-- minute) are looked at when a window closes; `local` is known to the daemon that leads alone. pipeline/core/alert_metric.py
-- says how each is had; a test compares the two.
create or replace function pipeline.alert_metrics()
returns table (metric text, kind text, unit text, about text)
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    values
        ('latency.p50', 'timing', 'ms', 'median of a series in the window'),
        ('latency.p95', 'timing', 'ms', '95th percentile of a series in the window'),
        ('latency.p99', 'timing', 'ms', '99th percentile of a series in the window'),
        ('latency.mean', 'timing', 'ms', 'mean of a series in the window'),
        ('latency.max', 'timing', 'ms', 'slowest of a series in the window'),
        ('latency.count', 'timing', 'events', 'timings of a series in the window'),
        ('latency.error_rate', 'timing', '0 to 1', 'share of a series that failed in the window'),
        ('latency.regression', 'timing', 'times', 'p95 of the window, by the median of that of the same hour on the seven days before'),
        ('slo.burn_1h', 'gauge', 'times', 'how fast an objective''s error budget burns, over 1 hour and over 5 minutes'),
        ('slo.burn_6h', 'gauge', 'times', 'the same over 6 hours and 30 minutes'),
        ('slo.burn_1d', 'gauge', 'times', 'the same over 1 day and 2 hours'),
        ('slo.burn_3d', 'gauge', 'times', 'the same over 3 days and 6 hours'),
        ('jobs.failed', 'gauge', 'jobs', 'jobs of a queue that failed for good in the window'),
        ('jobs.queue_age', 'gauge', 's', 'how long the oldest job of a queue that may run has waited'),
        ('cache.hit_ratio', 'local', '0 to 1', 'hits of all caches by their reads'),
        ('feed.lag', 'local', 'ms', '99th percentile of the time from a write to its delivery'),
        ('feed.deaf', 'local', '0 or 1', 'a process whose listener is dead or deaf'),
        ('db.long_transaction', 'gauge', 's', 'age of the oldest open transaction of a client'),
        ('db.connections', 'gauge', '0 to 1', 'connections by how many there may be'),
        ('db.replication_lag', 'gauge', 's', 'how far a standby is behind'),
        ('db.slot_bytes', 'gauge', 'bytes', 'log that a replication slot keeps'),
        ('db.wraparound_age', 'gauge', 'transactions', 'age of the oldest transaction id of a database'),
        ('db.notify_queue', 'gauge', '0 to 1', 'how full the queue of NOTIFY is'),
        ('db.deadlocks', 'counter', 'per minute', 'deadlocks in this database'),
        ('db.growth', 'counter', 'bytes per minute', 'by how much this database grows'),
        ('db.wal_ratio', 'gauge', 'times', 'write-ahead log on disk, by max_wal_size'),
        ('disk.free', 'local', '0 to 1', 'free part of the disk that the data is on, where the daemon is on the server''s host'),
        ('alerts.broken_rules', 'gauge', '0 or 1', 'a rule that cannot be judged'),
        ('alerts.lost', 'counter', 'per minute', 'alerts that triggers of alert_on could not raise'),
        ('sql', 'query', '', 'what a query of one''s own returns')
$$;

-- The series that a rule means and that may have timings since p_from. p_pattern: a series, or with % a LIKE pattern.
-- p_labels: what the labels have to contain. p_sources: null for all.
create or replace function pipeline.alert_series(p_pattern text, p_labels jsonb, p_sources text[], p_from timestamptz)
returns int[]
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select array_agg(k.id)
    from pipeline.timing_series as k
    where (k.series = p_pattern or (strpos(p_pattern, '%') > 0 and k.series like p_pattern))
      and k.labels @> p_labels
      and (p_sources is null or k.source = any(p_sources))
      and k.last_at >= p_from - interval '65 minutes'
$$;
revoke execute on function pipeline.alert_series(text, jsonb, text[], timestamptz) from public;

-- One row for each of these series that has timings in the window of p_seconds that begins at p_from. The coarsest parts that
-- fit into the window are read.
create or replace function pipeline.alert_timings(
    p_pattern text, p_labels jsonb, p_sources text[], p_from timestamptz, p_seconds int
) returns table (
    series text, labels jsonb, count bigint, errors bigint, sum double precision, high double precision,
    quantiles double precision[]
)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select s.series, s.labels, m.count, m.errors, m.sum, m.high, m.quantiles
    from (select pipeline.alert_series(p_pattern, p_labels, p_sources, p_from) as ids) as f
    cross join lateral (
        select case
            when p_seconds % 3600 = 0 then 3600 when p_seconds % 300 = 0 then 300 when p_seconds % 60 = 0 then 60 else 5
        end as level
    ) as l
    cross join lateral pipeline.timing_summary(
        f.ids, f.ids, p_from, p_from + make_interval(secs => p_seconds), l.level, l.level, array[0.5, 0.95, 0.99]
    ) as m
    join pipeline.timing_series as s on s.id = m.grp
$$;
revoke execute on function pipeline.alert_timings(text, jsonb, text[], timestamptz, int) from public;

-- The same with the digests themselves, where p_digests: for many series the caller reads them faster. lows, highs, sizes: of
-- each digest, and how many numbers it has; centroids: these numbers, in the binary form of the elements of an array.
create or replace function pipeline.alert_digests(
    p_pattern text, p_labels jsonb, p_sources text[], p_from timestamptz, p_seconds int, p_digests bool
) returns table (
    series text, labels jsonb, count bigint, errors bigint, sum double precision, low double precision, high double precision,
    lows double precision[], highs double precision[], sizes int[], centroids bytea
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set jit = off
set plan_cache_mode = force_custom_plan  -- a plan for ten series takes four times as long for ten thousand
as $$
#variable_conflict use_column
declare
    v_ids constant int[] := pipeline.alert_series(p_pattern, p_labels, p_sources, p_from);
    v_level constant int := case
        when p_seconds % 3600 = 0 then 3600 when p_seconds % 300 = 0 then 300 when p_seconds % 60 = 0 then 60 else 5
    end;
begin
    return query
    select k.series, k.labels, m.count, m.errors, m.sum, m.low, m.high, m.lows, m.highs, m.sizes, m.centroids
    from (
        select t.series, sum(t.count)::bigint as count, sum(t.errors)::bigint as errors,
            sum(case when t.sum < 1e-290 then 0 else t.sum end) as sum, min(t.low) as low, max(t.high) as high,
            array_agg(t.low) filter (where p_digests) as lows, array_agg(t.high) filter (where p_digests) as highs,
            array_agg(cardinality(t.centroids)) filter (where p_digests) as sizes,
            -- without the 20 bytes of each array's head
            string_agg(substr(array_send(t.centroids), 21), '') filter (where p_digests) as centroids
        from pipeline.timing_stored(v_ids, p_from, p_from + make_interval(secs => p_seconds), v_level) as t
        group by t.series
    ) as m
    join pipeline.timing_series as k on k.id = m.series;
end
$$;
revoke execute on function pipeline.alert_digests(text, jsonb, text[], timestamptz, int, bool) from public;
