-- Percentiles for whoever may use the schema.

-- The value at quantile `q` (0 to 1) of a series over the last `over`, in milliseconds; null when there is no data,
-- also for a series that nobody has written. A bare name means all label sets of that name, merged; labels: only those
-- that have these.
create or replace function pipeline.percentile(
    series text, q double precision, over interval default '1 hour', labels jsonb default null
) returns double precision
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_since timestamptz := pipeline.timing_since(percentile.over, 'percentile');
    v_ids int[];
begin
    if percentile.q is null or not percentile.q between 0 and 1 then
        raise exception 'percentile: q must lie between 0 and 1, not %', coalesce(percentile.q::text, 'null')
            using errcode = '22023', hint = 'The 99th percentile is 0.99.';
    end if;
    perform pipeline.timing_check_labels(percentile.labels, 'percentile');
    v_ids := pipeline.timing_find(percentile.series, percentile.labels);
    return (
        select s.quantiles[1]
        from pipeline.timing_level(percentile.over) as l
        cross join lateral pipeline.timing_summary(
            v_ids, array_fill(0, array[cardinality(v_ids)]), v_since, 'infinity', l.level, l.edge, array[percentile.q]
        ) as s
    );
end
$$;

-- Totals and percentiles of a series over the last `over`, durations in milliseconds; no row when there is no data. A bare
-- name means all label sets of that name, merged. slow: how many took longer than the threshold of who timed them. rows:
-- how many rows the queries returned or changed.
create or replace function pipeline.timing_totals(
    series text, over interval default '1 hour', labels jsonb default null
) returns table (
    count bigint, total double precision, mean double precision, p50 double precision, p95 double precision,
    p99 double precision, min double precision, max double precision, errors bigint, slow bigint, rows bigint
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_since timestamptz := pipeline.timing_since(timing_totals.over, 'timing_totals');
    v_ids int[];
begin
    perform pipeline.timing_check_labels(timing_totals.labels, 'timing_totals');
    v_ids := pipeline.timing_find(timing_totals.series, timing_totals.labels);
    return query
    select s.count, s.sum, s.sum / s.count, s.quantiles[1], s.quantiles[2], s.quantiles[3], s.low, s.high, s.errors,
        s.over_count, s.row_count
    from pipeline.timing_level(timing_totals.over) as l
    cross join lateral pipeline.timing_summary(
        v_ids, array_fill(0, array[cardinality(v_ids)]), v_since, 'infinity', l.level, l.edge, array[0.5, 0.95, 0.99]
    ) as s;
end
$$;

-- The series that are known, in order. only_name: only these, bare or with braces. last_at: when it was last written to, up
-- to an hour behind.
create or replace function pipeline.timing_series_list(only_name text default null)
returns table (
    series text, source text, name text, labels jsonb, first_at timestamptz, last_at timestamptz
)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select s.series, s.source, s.name, s.labels, s.first_at, s.last_at
    from pipeline.timing_series as s
    where only_name is null or s.name = only_name or s.series = only_name
    order by s.series
$$;

-- Every series over the last `over`, in milliseconds, the busiest first.
create or replace function pipeline.latency(over interval default '1 hour')
returns table (
    series text, count bigint, mean double precision, p50 double precision, p95 double precision,
    p99 double precision, max double precision, errors bigint
)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select t.series, t.count, t.mean, t.p50, t.p95, t.p99, t.max, t.errors
    from pipeline.timing_top(latency.over, 'calls', null, 'series', null, null, null, 'latency') as t
    order by t.count desc, t.series
$$;
