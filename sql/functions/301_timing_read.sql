-- What every reading of timings goes through: which series are meant, which parts answer a span, and how totals and
-- quantiles come out of these. Parts are read through pipeline.timing_parts only. The rule for a quantile is the one
-- of pipeline/core/digest.py, operation by operation, so that both give the same number.

-- How a span is read: parts of `level`, and at its beginning, where it cuts through a part, of the finer `edge`. So
-- a span is answered from a hundred parts for each series at most, and begins within an edge of where it should.
-- The edges are those that are still kept at that distance.
create or replace function pipeline.timing_level(p_over interval, out level int, out edge int)
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    select l.level, l.edge
    from (
        values (interval '3 minutes', 5, 5), ('15 minutes', 60, 5), ('3 hours', 300, 60), ('40 hours', 3600, 300),
            ('29 days', 86400, 3600), (p_over, 86400, 86400)
    ) as l (upto, level, edge)
    where p_over <= l.upto
    order by l.level, l.edge
    limit 1
$$;

-- The beginning of the last p_over; an error where that is no span. Nothing is older than 400 days.
create or replace function pipeline.timing_since(p_over interval, p_asker text) returns timestamptz
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if p_over is null or p_over <= interval '0' then
        raise exception '%: over must be longer than nothing, not %', p_asker, coalesce(p_over::text, 'null')
            using errcode = '22023', hint = 'The last hour is interval ''1 hour''.';
    end if;
    return pipeline.now() - least(p_over, interval '401 days');
end
$$;

-- An error unless p_labels is a JSON object or null.
create or replace function pipeline.timing_check_labels(p_labels jsonb, p_asker text) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
    if jsonb_typeof(p_labels) <> 'object' then
        raise exception '%: labels must be a JSON object, not %', p_asker, left(p_labels::text, 50)
            using errcode = '22023', hint = 'Such as ''{"region": "eu"}''.';
    end if;
end
$$;

-- The series that p_series means: with braces one of them, a bare name all label sets of that name, name{} the one without
-- labels, and null all. p_labels: only those that have these labels; a fingerprint means also those that it had under older
-- rules.
create or replace function pipeline.timing_find(p_series text, p_labels jsonb) returns int[]
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(array_agg(s.id), '{}')
    from pipeline.timing_series as s
    where (
            p_series is null or s.series = p_series or s.name = p_series
            or s.series = left(p_series, -2) and right(p_series, 2) = '{}'
        )
        and (
            p_labels is null or s.labels @> p_labels
            or s.labels @> (p_labels - 'fingerprint') and s.labels ->> 'fingerprint' in (
                select q.fingerprint from pipeline.query as q where q.moved_to = p_labels ->> 'fingerprint'
            )
        )
$$;

-- The parts of series in [p_from, p_to): those of p_level, and of p_edge where p_from cuts through one of them.
-- p_digests: whether the centroids are wanted; they are most of the work.
create or replace function pipeline.timing_span(
    p_ids int[], p_from timestamptz, p_to timestamptz, p_level int, p_edge int, p_digests bool
) returns table (
    series int, start timestamptz, count bigint, sum double precision, low double precision, high double precision,
    errors bigint, over_count bigint, row_count bigint, means double precision[], weights double precision[]
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_begin timestamptz := date_bin(make_interval(secs => p_level), p_from, timestamptz 'epoch');
    v_span record;
begin
    if p_edge < p_level and v_begin < p_from then
        v_begin := v_begin + make_interval(secs => p_level);
    end if;
    for v_span in
        select p_from as since, least(v_begin, p_to) as upto, p_edge as level where p_from < v_begin
        union all
        select v_begin, p_to, p_level where v_begin < p_to
    loop
        if p_digests then
            return query select * from pipeline.timing_parts(p_ids, v_span.since, v_span.upto, v_span.level);
        else
            return query
            select s.series, s.start, s.count, s.sum, s.low, s.high, s.errors, s.over_count, s.row_count,
                null::float8[], null::float8[]
            from pipeline.timing_stored(p_ids, v_span.since, v_span.upto, v_span.level) as s;
        end if;
    end loop;
end
$$;

-- Totals and quantiles of groups of series. p_groups: the group of each of p_ids; the digests of a group are pooled
-- and read as one. p_step: with it, one row for each group and step, `slot` being the step's number since 1970;
-- without it slot is 0. p_edge: as timing_level says; the same as p_level for a span that begins at a window.
-- p_quantiles: between 0 and 1; with none, no digest is looked at.
create or replace function pipeline.timing_summary(
    p_ids int[], p_groups int[], p_from timestamptz, p_to timestamptz, p_level int, p_edge int,
    p_quantiles double precision[], p_step interval default null
) returns table (
    grp int, slot bigint, count bigint, sum double precision, low double precision, high double precision,
    errors bigint, over_count bigint, row_count bigint, quantiles double precision[]
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set jit = off  -- compiling would take ten times as long as reading
set plan_cache_mode = force_custom_plan  -- a plan for ten series takes four times as long for ten thousand
as $$
#variable_conflict use_column
declare
    v_step double precision := extract(epoch from p_step);
begin
    return query
    with part as materialized (
        select g.grp, coalesce(floor(extract(epoch from f.start)::float8 / v_step), 0)::bigint as slot,
            f.count, f.sum, f.low, f.high, f.errors, f.over_count, f.row_count, f.means, f.weights
        from pipeline.timing_span(p_ids, p_from, p_to, p_level, p_edge, cardinality(p_quantiles) > 0) as f
        join unnest(p_ids, p_groups) as g (series, grp) on g.series = f.series
    ),
    total as (
        -- dividing what is next to nothing is an error in Postgres, and one absurd value must not hide a series
        select p.grp, p.slot, sum(p.count)::bigint as count,
            sum(case when p.sum < 1e-290 then 0 else p.sum end) as sum, min(p.low) as low, max(p.high) as high,
            sum(p.errors)::bigint as errors, sum(p.over_count)::bigint as over_count,
            sum(p.row_count)::bigint as row_count
        from part as p
        group by p.grp, p.slot
    ),
    centroid as (
        select p.grp, p.slot, c.mean, c.weight, sum(c.weight) over ordered as upto,
            lead(c.mean) over ordered as next_mean, lead(c.weight) over ordered as next_weight
        from part as p
        cross join lateral unnest(p.means, p.weights) as c (mean, weight)
        window ordered as (partition by p.grp, p.slot order by c.mean, c.weight rows unbounded preceding)
    ),
    -- the centroid that stands just before the rank that is asked for, or the first one
    nearest as (
        select t.grp, t.slot, q.place, q.q * (t.count - 1) as target, t.low, t.high, t.count,
            c.upto - c.weight + (c.weight - 1) / 2 as rank, least(greatest(c.mean, t.low), t.high) as value,
            coalesce(c.upto + (c.next_weight - 1) / 2, t.count - 1) as next_rank,
            least(greatest(coalesce(c.next_mean, t.high), t.low), t.high) as next_value
        from centroid as c
        join total as t on t.grp = c.grp and t.slot = c.slot
        cross join unnest(p_quantiles) with ordinality as q (q, place)
        where (c.upto - c.weight + (c.weight - 1) / 2 <= q.q * (t.count - 1) or c.upto = c.weight)
          and (q.q * (t.count - 1) < c.upto + (c.next_weight - 1) / 2 or c.next_weight is null)
    ),
    answer as (
        select n.grp, n.slot, array_agg(
            case
                when n.next_value - n.low < 1e-290 then n.next_value
                when n.target < n.rank then least(n.low + (n.value - n.low) * (n.target / n.rank), n.value)
                when n.target >= n.next_rank then n.next_value
                else least(
                    n.value + (n.next_value - n.value) * ((n.target - n.rank) / (n.next_rank - n.rank)), n.next_value
                )
            end
            order by n.place
        ) as quantiles
        from nearest as n
        group by n.grp, n.slot
    )
    select t.grp, t.slot, t.count, t.sum, t.low, t.high, t.errors, t.over_count, t.row_count, a.quantiles
    from total as t
    left join answer as a on a.grp = t.grp and a.slot = t.slot;
end
$$;
revoke execute on function pipeline.timing_level(interval) from public;
revoke execute on function pipeline.timing_since(interval, text) from public;
revoke execute on function pipeline.timing_check_labels(jsonb, text) from public;
revoke execute on function pipeline.timing_span(int[], timestamptz, timestamptz, int, int, bool) from public;
revoke execute on function pipeline.timing_find(text, jsonb) from public;
revoke execute on function pipeline.timing_summary(
    int[], int[], timestamptz, timestamptz, int, int, double precision[], interval
) from public;
