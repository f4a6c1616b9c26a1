-- Reading what is kept of timings. Everything that reads them does it through these functions.

-- The digests of some series in batches from p_from to p_to; p_open: only those that are not rolled up. A batch holds hundreds
-- of series in one value, so a few are picked out by their places, and of many all are looked at.
create or replace function pipeline.timing_in_batches(
    p_ids int[], p_from timestamptz, p_to timestamptz, p_open bool
) returns table (start timestamptz, digest pipeline.timing_digest)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    if cardinality(p_ids) <= 8 then
        return query
        select b.start, b.digests[p.place]
        from pipeline.timing_batch as b
        cross join lateral (
            select s.place from unnest(b.series) with ordinality as s (id, place) where s.id = any(p_ids)
        ) as p
        where b.start >= p_from and b.start < p_to and not (p_open and b.rolled);
    else
        return query
        select b.start, d::pipeline.timing_digest
        from pipeline.timing_batch as b
        cross join unnest(b.digests) as d
        where b.start >= p_from and b.start < p_to and not (p_open and b.rolled) and d.series = any(p_ids);
    end if;
end
$$;
revoke execute on function pipeline.timing_in_batches(int[], timestamptz, timestamptz, bool) from public;

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
    v_step constant interval := make_interval(secs => p_level);
    v_from constant timestamptz :=
        date_bin(v_step, greatest(p_from, pipeline.now() - interval '402 days'), timestamptz 'epoch');
    -- what a clock that was set back has left ahead counts when its time comes
    v_to constant timestamptz := least(p_to, pipeline.now() + interval '1 minute');
    v_starts constant timestamptz[] := array(
        select g.start
        from generate_series(v_from, v_to, v_step) as g (start)
        where g.start < v_to and p_level > 5
    );
begin
    return query
    -- of a few series each window is looked up, of many whole windows are read
    select p.series, p.start, p.count, p.sum, p.low, p.high, p.errors, p.over_count, p.row_count, p.centroids
    from pipeline.timing_part as p
    where cardinality(p_ids) <= 8 and p.seconds = p_level and p.start = any(v_starts) and p.series = any(p_ids)
    union all
    select p.series, p.start, p.count, p.sum, p.low, p.high, p.errors, p.over_count, p.row_count, p.centroids
    from pipeline.timing_part as p
    where cardinality(p_ids) > 8 and p.seconds = p_level and p.start >= v_from and p.start < v_to
      and p.series + 0 = any(p_ids)
    union all
    select p.series, p.start, p.count, p.sum, p.low, p.high, p.errors, p.over_count, p.row_count, p.centroids
    from pipeline.timing_roll as r
    join pipeline.timing_part as p on p.seconds = r.seconds and p.start = r.start and p.part = r.part
    where r.seconds < p_level and not r.rolled and r.start >= v_from and r.start < v_to and p.series = any(p_ids)
    union all
    select (b.digest).series, b.start, (b.digest).count, (b.digest).sum, (b.digest).low, (b.digest).high,
        (b.digest).errors, (b.digest).over_count, (b.digest).row_count, (b.digest).centroids
    from pipeline.timing_in_batches(p_ids, v_from, v_to, p_level > 5) as b;
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
    select p.series, p.start, p.count, p.sum, p.low, p.high, p.errors, p.over_count, p.row_count,
        (
            select array_agg(
                least(
                    greatest(
                        case
                            when u.code = -32768 then 0
                            else (1024 + ((u.code + 32768) & 1023)) * power(2::float8, ((u.code + 32768) >> 10) - 32)
                        end,
                        p.low
                    ),
                    p.high
                )
            )
            from unnest(p.centroids[2 : 1 + n.size]) as u (code)
        ),
        case p.centroids[1]
            when 0 then array_fill(1::float8, array[n.size])
            when 1 then (
                select array_agg(case when w.weight < 0 then w.weight * -32768::float8 else w.weight end)
                from unnest(p.centroids[2 + n.size :]) as w (weight)
            )
            else (
                select array_agg(
                    (((p.centroids[2 + n.size + i / 2]::int + 32768) >> (8 * (i % 2))) & 255)::float8
                )
                from generate_series(0, n.size - 1) as i
            )
        end
    from pipeline.timing_stored(p_ids, p_from, p_to, p_level) as p
    cross join lateral (
        select case p.centroids[1]
            when 0 then cardinality(p.centroids) - 1
            when 1 then (cardinality(p.centroids) - 1) / 2
            else (cardinality(p.centroids) - 1) * 2 / 3
        end as size
    ) as n;
end
$$;
revoke execute on function pipeline.timing_parts(int[], timestamptz, timestamptz, int) from public;
