-- Reading timings. The rule for a quantile is the one of pipeline/core/digest.py, operation by operation, so that
-- both give the same number.

-- The level that answers a span with at most a few hundred parts for each series and writer.
create or replace function pipeline.latency_level(p_over interval) returns int
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    select case
        when p_over <= interval '15 minutes' then 5
        when p_over <= interval '3 hours' then 60
        when p_over <= interval '1 day' then 300
        when p_over <= interval '7 days' then 3600
        else 86400
    end
$$;

-- One row for each series that has timings in [p_from, p_to), the start widened to a whole window of p_level.
-- p_like: whether p_series is a LIKE pattern. p_quantiles: which quantiles, each between 0 and 1.
create or replace function pipeline.latency_summary(
    p_series text, p_like bool, p_from timestamptz, p_to timestamptz, p_level int, p_quantiles double precision[]
) returns table (
    series text, count bigint, sum double precision, low double precision, high double precision,
    errors bigint, over_count bigint, quantiles double precision[]
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    with part as materialized (
        select s.series, p.count, p.sum, p.low, p.high, p.errors, p.over_count, p.means, p.weights
        from pipeline.timing_parts(
            (
                select array_agg(k.id)
                from pipeline.timing_series as k
                where k.series = p_series or (p_like and k.series like p_series)
            ),
            p_from, p_to, p_level
        ) as p
        join pipeline.timing_series as s on s.id = p.series
    ),
    total as (
        select p.series, sum(p.count)::bigint as count, sum(p.sum) as sum, min(p.low) as low, max(p.high) as high,
            sum(p.errors)::bigint as errors, sum(p.over_count)::bigint as over_count
        from part as p
        group by p.series
    ),
    knot as (
        select p.series,
            sum(c.weight) over (
                partition by p.series order by c.mean, c.weight rows unbounded preceding
            ) - c.weight + (c.weight - 1) / 2 as rank,
            least(greatest(c.mean, t.low), t.high) as value
        from part as p
        join total as t on t.series = p.series
        cross join lateral unnest(p.means, p.weights) as c (mean, weight)
        union all
        select t.series, 0, t.low from total as t
        union all
        select t.series, t.count - 1, t.high from total as t
    ),
    segment as (
        select k.series, k.rank, k.value, lead(k.rank) over o as next_rank, lead(k.value) over o as next_value
        from knot as k
        window o as (partition by k.series order by k.rank, k.value)
    ),
    answer as (
        select s.series, array_agg(
            case
                when s.next_rank is null then s.value
                else least(
                    s.value + (s.next_value - s.value) * ((q.q * (t.count - 1) - s.rank) / (s.next_rank - s.rank)),
                    s.next_value
                )
            end
            order by q.place
        ) as quantiles
        from segment as s
        join total as t on t.series = s.series
        join unnest(p_quantiles) with ordinality as q (q, place)
            on s.rank <= q.q * (t.count - 1) and (q.q * (t.count - 1) < s.next_rank or s.next_rank is null)
        group by s.series
    )
    select t.series::text, t.count, t.sum, t.low, t.high, t.errors, t.over_count, a.quantiles
    from total as t
    join answer as a on a.series = t.series;
end
$$;
revoke execute on function pipeline.latency_summary(text, bool, timestamptz, timestamptz, int, double precision[]) from public;

-- The value at quantile q (0 to 1) of a series over the last `over`, in milliseconds; null when there is no data.
-- The span is widened to whole windows: 5 s up to 15 minutes, 1 min up to 3 h, 5 min up to a day, 1 h up to a
-- week, then a day. No daemon is needed.
create or replace function pipeline.percentile(series text, q double precision, over interval default '1 hour')
returns double precision
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if percentile.q is null or not percentile.q between 0 and 1 then
        raise exception 'percentile: q must lie between 0 and 1, not %', coalesce(percentile.q::text, 'null')
            using errcode = '22023', hint = 'The 99th percentile is 0.99.';
    end if;
    return (
        select s.quantiles[1]
        from pipeline.latency_summary(
            percentile.series, false, pipeline.now() - percentile.over, 'infinity',
            pipeline.latency_level(percentile.over), array[percentile.q]
        ) as s
    );
end
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
    select s.series, s.count, s.sum / s.count, s.quantiles[1], s.quantiles[2], s.quantiles[3], s.high, s.errors
    from pipeline.latency_summary(
        '%', true, pipeline.now() - latency.over, 'infinity', pipeline.latency_level(latency.over),
        array[0.5, 0.95, 0.99]
    ) as s
    order by s.count desc, s.series
$$;
