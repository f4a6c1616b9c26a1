-- Plans as people and programs look at them.

-- The plans that a query had, the newest first; a fingerprint means also those that it had under older rules. From
-- first_at to last_at it was the plan whenever somebody looked, `times` times. slowest: milliseconds, of the runs that
-- were the reasons to look.
create or replace function pipeline.query_plans(fingerprint text, most int default 20) returns table (
    first_at timestamptz, last_at timestamptz, times int, kind text, shape text, summary text, plan json,
    settings jsonb, slowest double precision
)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select p.first_at, p.last_at, p.times, p.kind, p.shape, p.summary, p.plan, p.settings, p.slowest_ms
    from pipeline.plan as p
    where p.fingerprint = query_plans.fingerprint or p.fingerprint in (
        select q.fingerprint from pipeline.query as q where q.moved_to = query_plans.fingerprint
    )
    order by p.first_at desc, p.id desc
    limit query_plans.most
$$;

-- The queries that got another plan in the last `over`, the newest first, with their latency under the plan before
-- and after, in milliseconds: over a day at most on each side, and no longer than that plan held. `at` is when the
-- plan was first seen, which may be up to an hour after it changed. fingerprint: of one query only.
create or replace function pipeline.plan_changes(
    over interval default '1 day', most int default 20, fingerprint text default null
) returns table (
    at timestamptz, changed text, query text, plan_before text, plan_after text,
    calls_before bigint, p50_before double precision, p95_before double precision,
    calls_after bigint, p50_after double precision, p95_after double precision
)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    with change as (
        select p.first_at as at, pipeline.fingerprint_now(p.fingerprint) as fingerprint,
            before.summary as plan_before, p.summary as plan_after,
            greatest(before.first_at, p.first_at - interval '1 day') as since,
            least(next.first_at, p.first_at + interval '1 day', pipeline.now()) as upto
        from pipeline.plan as p
        cross join lateral (
            select b.summary, b.first_at
            from pipeline.plan as b
            where b.fingerprint = p.fingerprint and (b.first_at, b.id) < (p.first_at, p.id)
            order by b.first_at desc, b.id desc
            limit 1
        ) as before
        left join lateral (
            select n.first_at
            from pipeline.plan as n
            where n.fingerprint = p.fingerprint and (n.first_at, n.id) > (p.first_at, p.id)
            order by n.first_at, n.id
            limit 1
        ) as next on true
        where p.first_at > pipeline.timing_since(plan_changes.over, 'plan_changes')
          and (plan_changes.fingerprint is null or p.fingerprint = plan_changes.fingerprint
              or p.fingerprint in (
                  select q.fingerprint from pipeline.query as q where q.moved_to = plan_changes.fingerprint
              ))
        order by p.first_at desc, p.id desc
        limit plan_changes.most
    )
    select c.at, c.fingerprint, q.text, c.plan_before, c.plan_after,
        coalesce(b.count, 0), b.quantiles[1], b.quantiles[2], coalesce(a.count, 0), a.quantiles[1], a.quantiles[2]
    from change as c
    left join pipeline.query as q on q.fingerprint = c.fingerprint
    cross join lateral (
        select pipeline.timing_find('query', jsonb_build_object('fingerprint', c.fingerprint)) as ids
    ) as s
    -- the finest level that is still kept at that distance, so that little of one side counts for the other
    cross join lateral pipeline.timing_level(pipeline.now() - c.since) as l
    left join lateral pipeline.timing_summary(
        s.ids, array_fill(1, array[cardinality(s.ids)]), c.since, c.at, l.edge, l.edge, array[0.5, 0.95]::float8[]
    ) as b on true
    left join lateral pipeline.timing_summary(
        s.ids, array_fill(1, array[cardinality(s.ids)]), c.at, c.upto, l.edge, l.edge, array[0.5, 0.95]::float8[]
    ) as a on true
    order by c.at desc
$$;
