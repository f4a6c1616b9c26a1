-- What is kept of some series in [p_from, p_to), the start widened to a whole window of p_level: digests, every timing in
-- exactly one of them. None is coarser than p_level (5, 60, 300, 3600 or 86400 seconds); what is not rolled up yet comes from
-- finer levels. p_ids: of pipeline.timing_series. The centroids are as they are stored: totals do not need them.
create or replace function pipeline.timing_stored(
    p_ids int[], p_from timestamptz, p_to timestamptz, p_level int
) returns table (
    series int, start timestamptz, count bigint, sum double precision, low double precision, high double precision,
    errors bigint, over_count bigint, row_count bigint, centroids smallint[]
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_from timestamptz := case
        when isfinite(p_from) then date_bin(make_interval(secs => p_level), p_from, timestamptz 'epoch') else p_from
    end;
begin
    return query
    select p.series, p.start, p.count, p.sum, p.low, p.high, p.errors, p.over_count, p.row_count, p.centroids
    from pipeline.timing_part as p
    where p.seconds = p_level and p.series = any(p_ids) and p.start >= v_from and p.start < p_to
    union all
    select p.series, p.start, p.count, p.sum, p.low, p.high, p.errors, p.over_count, p.row_count, p.centroids
    from pipeline.timing_roll as r
    join pipeline.timing_part as p on p.seconds = r.seconds and p.start = r.start and p.part = r.part
    where r.seconds < p_level and not r.rolled and r.start >= v_from and r.start < p_to and p.series = any(p_ids)
    union all
    select d.series, b.start, d.count, d.sum, d.low, d.high, d.errors, d.over_count, d.row_count, d.centroids
    from pipeline.timing_batch as b
    cross join unnest(b.digests) as d
    where (p_level = 5 or not b.rolled) and b.start >= v_from and b.start < p_to
      and b.series && p_ids and d.series = any(p_ids);
end
$$;
revoke execute on function pipeline.timing_stored(int[], timestamptz, timestamptz, int) from public;

-- The same with the centroids unpacked, as pipeline/core/centroids.py does it.
create or replace function pipeline.timing_parts(
    p_ids int[], p_from timestamptz, p_to timestamptz, p_level int
) returns table (
    series int, start timestamptz, count bigint, sum double precision, low double precision, high double precision,
    errors bigint, over_count bigint, row_count bigint, means double precision[], weights double precision[]
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    select p.series, p.start, p.count, p.sum, p.low, p.high, p.errors, p.over_count, p.row_count, c.means, c.weights
    from pipeline.timing_stored(p_ids, p_from, p_to, p_level) as p
    cross join lateral (
        select
            array_agg(
                least(
                    greatest(
                        case
                            when u.mean = -32768 then 0
                            else (1024 + ((u.mean + 32768) & 1023)) * power(2::float8, ((u.mean + 32768) >> 10) - 32)
                        end,
                        p.low
                    ),
                    p.high
                )
            ) as means,
            array_agg(case when u.weight is null then 1 when u.weight < 0 then u.weight * -32768::float8 else u.weight end)
                as weights
        from unnest(
            p.centroids[2 : 1 + (cardinality(p.centroids) - 1) / (1 + p.centroids[1])],
            p.centroids[2 + (cardinality(p.centroids) - 1) / (1 + p.centroids[1]) :]
        ) as u (mean, weight)
    ) as c;
end
$$;
revoke execute on function pipeline.timing_parts(int[], timestamptz, timestamptz, int) from public;
