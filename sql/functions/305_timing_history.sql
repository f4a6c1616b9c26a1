-- How a series went over time.

-- The step of a history of p_over: the one that is given, or the shortest that makes at most 60. An error where it is
-- no multiple of a window that is still kept at the beginning of p_over, or would make more than 1,500.
create or replace function pipeline.timing_step(p_over interval, p_step interval, out step int, out level int)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    v_over double precision := extract(epoch from p_over);
    v_step double precision := extract(epoch from p_step);
    v_kept text;
begin
    -- a level that ends up beside the step: what it is kept for, less what a roll-up may be behind
    select s.step, l.level
    into step, level
    from (
        values (5, 15 * 60), (60, 47 * 3600), (300, 6.9 * 86400), (3600, 29.9 * 86400), (86400, 401 * 86400)
    ) as l (level, kept)
    join unnest(
        case
            when v_step is not null then array[v_step]
            else array[5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400, 172800, 604800]
        end
    ) as s (step) on s.step between 1 and 401 * 86400 and mod(s.step::numeric, l.level) = 0
    where least(v_over, 400 * 86400) <= l.kept and least(v_over, 400 * 86400) / s.step <= case when v_step is null then 60 else 1500 end
    order by s.step, l.level desc
    limit 1;
    if step is null then
        v_kept := case
            when v_over <= 15 * 60 then '5 seconds'
            when v_over <= 47 * 3600 then '1 minute'
            when v_over <= 6.9 * 86400 then '5 minutes'
            when v_over <= 29.9 * 86400 then '1 hour'
            else '1 day'
        end;
        raise exception 'timing_history: a step of % does not fit a span of %', p_step, p_over
            using errcode = '22023',
            hint = format('For this span it is a multiple of %s, and there are at most 1,500 of them.', v_kept);
    end if;
end
$$;

-- A series in steps over the last `over`, the oldest first and the open one last; steps without timings have a count
-- of 0 and no percentiles. A bare name means all label sets of that name, merged in each step; labels: only those
-- that have these.
create or replace function pipeline.timing_history(
    series text, over interval default '1 hour', step interval default null, labels jsonb default null
) returns table (
    at timestamptz, count bigint, errors bigint, mean double precision, p50 double precision, p95 double precision,
    p99 double precision, max double precision
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_since timestamptz := pipeline.timing_since(timing_history.over, 'timing_history');
    v_step record := pipeline.timing_step(timing_history.over, timing_history.step);
    v_ids int[];
begin
    perform pipeline.timing_check_labels(timing_history.labels, 'timing_history');
    v_ids := pipeline.timing_find(timing_history.series, timing_history.labels);
    return query
    select p.at, coalesce(p.count, 0), coalesce(p.errors, 0), p.sum / p.count, p.quantiles[1], p.quantiles[2],
        p.quantiles[3], p.high
    from pipeline.timing_points(v_ids, array_fill(0, array[cardinality(v_ids)]), v_since, v_step.step, v_step.level) as p
    order by p.at;
end
$$;

-- For each group of series (see timing_summary) one row a step, from p_since until now, also where there are no timings.
create or replace function pipeline.timing_points(
    p_ids int[], p_groups int[], p_since timestamptz, p_step int, p_level int
) returns table (
    grp int, at timestamptz, count bigint, sum double precision, high double precision, errors bigint,
    quantiles double precision[]
)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    with step as (
        select n
        from generate_series(
            floor(extract(epoch from p_since) / p_step)::bigint, floor(extract(epoch from pipeline.now()) / p_step)::bigint
        ) as n
    ),
    found as (
        select s.*
        from pipeline.timing_summary(
            p_ids, p_groups, to_timestamp(floor(extract(epoch from p_since) / p_step) * p_step), 'infinity', p_level, p_level,
            array[0.5, 0.95, 0.99], make_interval(secs => p_step)
        ) as s
    )
    select g.grp, to_timestamp(step.n * p_step), f.count, f.sum, f.high, f.errors, f.quantiles
    from step
    cross join (select distinct grp from unnest(p_groups) as u (grp)) as g
    left join found as f on f.slot = step.n and f.grp = g.grp
    order by g.grp, step.n
$$;
revoke execute on function pipeline.timing_step(interval, interval) from public;
revoke execute on function pipeline.timing_points(int[], int[], timestamptz, int, int) from public;
