-- How the timings of a series are spread.

-- How many timings of a series took how long over the last `over`. A row counts what took longer than `above` and at
-- most `upto` milliseconds; the first one also what took 0. Without `bounds` they are 1, 2, 5, 10, ... as far as there
-- are timings. With `bounds` (ascending) the last row has no upto and counts what took longer than all of them.
-- The counts add up to the number of timings exactly. Where a bound lies within a digest's centroid, what is on
-- either side of it is an estimate; of few timings, of which each has a centroid of its own, it is exact.
-- share: of all timings, 0 to 1.
create or replace function pipeline.latency_histogram(
    series text, over interval default '1 hour', bounds double precision[] default null, labels jsonb default null
) returns table (above double precision, upto double precision, count bigint, share double precision)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_column
declare
    v_since timestamptz := pipeline.timing_since(latency_histogram.over, 'latency_histogram');
    v_ids int[];
    v_level record := pipeline.timing_level(latency_histogram.over);
    v_edge timestamptz;
begin
    perform pipeline.timing_check_labels(latency_histogram.labels, 'latency_histogram');
    if cardinality(latency_histogram.bounds) = 0 or cardinality(latency_histogram.bounds) > 1000
        or exists (
            select from (
                select b.bound, lag(b.bound) over (order by b.place) as before
                from unnest(latency_histogram.bounds) with ordinality as b (bound, place)
            ) as b
            where b.bound is null or b.bound = 'NaN' or b.bound = 'Infinity' or b.bound < 0 or b.bound <= b.before
        )
    then
        raise exception 'latency_histogram: bounds must be 1 to 1,000 numbers of milliseconds, ascending, not %',
            left(latency_histogram.bounds::text, 100)
            using errcode = '22023', hint = 'Such as ''{10, 100, 1000}''.';
    end if;
    v_ids := pipeline.timing_find(latency_histogram.series, latency_histogram.labels);
    return query
    with part as materialized (
        select p.* from pipeline.timing_span(v_ids, v_since, 'infinity', v_level.level, v_level.edge, true) as p
    ),
    total as (
        select sum(p.count)::bigint as count, min(p.low) as low, max(p.high) as high from part as p having count(*) > 0
    ),
    -- from the greatest bound below every timing to the least one below none
    usual as (
        select array_agg(b.bound order by b.bound) as bounds
        from total as t
        cross join lateral (
            select s.bound, lead(s.bound) over o as next, lag(s.bound) over o as before
            from (
                select (d.digit * power(10::numeric, e.exponent))::float8 as bound
                from generate_series(-3, 13) as e (exponent)
                cross join unnest(array[1, 2, 5]) as d (digit)
            ) as s
            window o as (order by s.bound)
        ) as b
        where (b.next >= t.low or b.next is null) and (b.before < t.high or b.before is null)
    ),
    chosen as (
        select coalesce(latency_histogram.bounds, u.bounds) as bounds from usual as u
    ),
    centroid as (
        select c.weight, sum(c.weight) over ordered as upto, least(greatest(c.mean, t.low), t.high) as value,
            lead(c.weight) over ordered as next_weight,
            least(greatest(coalesce(lead(c.mean) over ordered, t.high), t.low), t.high) as next_value
        from part as p
        cross join total as t
        cross join lateral unnest(p.means, p.weights) as c (mean, weight)
        window ordered as (order by c.mean, c.weight rows unbounded preceding)
    ),
    -- the line of which pipeline.timing_summary reads the quantiles, piece by piece
    piece as (
        select c.upto - c.weight + (c.weight - 1) / 2 as rank, c.value,
            coalesce(c.upto + (c.next_weight - 1) / 2, t.count - 1) as next_rank, c.next_value
        from centroid as c
        cross join total as t
        union all
        select 0, t.low, (c.weight - 1) / 2, c.value
        from centroid as c
        cross join total as t
        where c.upto = c.weight
    ),
    counted as (
        select b.place, b.bound, case
            when b.bound < t.low then 0
            when b.bound >= t.high then t.count
            else floor(p.rank + (b.bound - p.value) / (p.next_value - p.value) * (p.next_rank - p.rank))::bigint + 1
        end as upto
        from chosen as h
        cross join total as t
        cross join lateral unnest(h.bounds) with ordinality as b (bound, place)
        left join piece as p on p.value <= b.bound and b.bound < p.next_value
        union all
        select cardinality(h.bounds) + 1, null, t.count
        from chosen as h
        cross join total as t
        where latency_histogram.bounds is not null
    )
    select r.above, r.bound, r.count, r.count::float8 / t.count
    from (
        select c.place, c.bound, coalesce(lag(c.bound) over o, 0) as above,
            c.upto - coalesce(lag(c.upto) over o, 0) as count
        from counted as c
        window o as (order by c.place)
    ) as r
    cross join total as t
    where latency_histogram.bounds is not null or r.bound >= t.low
    order by r.place;
end
$$;
