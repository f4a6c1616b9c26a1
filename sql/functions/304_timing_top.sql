-- Which series, or which queries, took the most.

-- The greatest groups of series over the last p_over. p_per: what a group is: `series`, `name` (all label sets of a
-- name, merged) or `fingerprint` (of queries, likewise). p_by: by what they are ordered, downwards: total, calls,
-- errors, mean, max, p50, p95 or p99. p_most: how many; null is all. p_source, p_name, p_labels: which series alone are
-- looked at; null is any. share: of the time of all of these, 0 to 1.
-- Totals are read first and digests only of the groups that are returned, unless the order is by a percentile.
create or replace function pipeline.timing_top(
    p_over interval, p_by text, p_most int, p_per text, p_source text, p_name text, p_labels jsonb, p_asker text
) returns table (
    series text, source text, name text, labels jsonb, count bigint, total double precision, mean double precision,
    p50 double precision, p95 double precision, p99 double precision, max double precision, errors bigint,
    slow bigint, rows bigint, share double precision, first_at timestamptz
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_since timestamptz := pipeline.timing_since(p_over, p_asker);
    v_level record := pipeline.timing_level(p_over);
    v_ranked bool := p_by in ('p50', 'p95', 'p99');
    v_qs double precision[] := array[0.5, 0.95, 0.99];
    v_found int[];
    v_ids int[];
    v_groups int[];
begin
    perform pipeline.timing_check_labels(p_labels, p_asker);
    if p_by is null or p_by not in ('total', 'calls', 'errors', 'mean', 'max', 'p50', 'p95', 'p99') then
        raise exception '%: cannot order by %', p_asker, coalesce(left(p_by, 50), 'null')
            using errcode = '22023', hint = 'One of total, calls, errors, mean, max, p50, p95, p99.';
    end if;
    if p_most < 1 then
        raise exception '%: most must be 1 or more, not %', p_asker, p_most using errcode = '22023';
    end if;
    if p_name is not null or p_labels is not null then
        v_found := pipeline.timing_find(p_name, p_labels);
    end if;
    select array_agg(s.id order by s.id), array_agg(s.grp order by s.id)
    into v_ids, v_groups
    from (
        select s.id, min(s.id) over (
            partition by s.source, s.name, case p_per
                when 'series' then s.series
                when 'fingerprint' then coalesce(q.moved_to, s.labels ->> 'fingerprint', 'other')
            end
        ) as grp
        from pipeline.timing_series as s
        left join pipeline.query as q on p_per = 'fingerprint' and q.fingerprint = s.labels ->> 'fingerprint'
        where s.last_at >= v_since - interval '65 minutes'  -- it is up to an hour behind
          and (p_source is null or s.source = p_source)
          and (v_found is null or s.id = any(v_found))
    ) as s;
    return query
    with counted as (
        select t.*, t.sum / nullif(sum(t.sum) over (), 0) as share
        from pipeline.timing_summary(
            v_ids, v_groups, v_since, 'infinity', v_level.level, v_level.edge,
            case when v_ranked then v_qs else '{}' end
        ) as t
    ),
    chosen as materialized (
        select t.*
        from counted as t
        order by case p_by
            when 'total' then t.sum
            when 'calls' then t.count
            when 'errors' then t.errors
            when 'mean' then t.sum / t.count
            when 'max' then t.high
            else t.quantiles[array_position(array['p50', 'p95', 'p99'], p_by)]
        end desc, t.sum desc, t.grp
        limit p_most
    ),
    measured as (
        select t.grp, t.quantiles
        from chosen as t
        where v_ranked
        union all
        select q.grp, q.quantiles
        from (
            select array_agg(i.id) as ids, array_agg(i.grp) as groups
            from unnest(v_ids, v_groups) as i (id, grp)
            where i.grp in (select t.grp from chosen as t)
        ) as i
        cross join lateral pipeline.timing_summary(
            i.ids, i.groups, v_since, 'infinity', v_level.level, v_level.edge, v_qs
        ) as q
        where not v_ranked
    ),
    seen as (
        select i.grp, min(s.first_at) as first_at
        from unnest(v_ids, v_groups) as i (id, grp)
        join pipeline.timing_series as s on s.id = i.id
        group by i.grp
    )
    select case when p_per = 'series' then s.series else s.name end, s.source, s.name,
        case when p_per <> 'name' then s.labels end, t.count, t.sum, t.sum / t.count,
        m.quantiles[1], m.quantiles[2], m.quantiles[3], t.high, t.errors, t.over_count, t.row_count, t.share,
        n.first_at
    from chosen as t
    join pipeline.timing_series as s on s.id = t.grp
    join measured as m on m.grp = t.grp
    join seen as n on n.grp = t.grp
    order by case p_by
        when 'total' then t.sum
        when 'calls' then t.count
        when 'errors' then t.errors
        when 'mean' then t.sum / t.count
        when 'max' then t.high
        else m.quantiles[array_position(array['p50', 'p95', 'p99'], p_by)]
    end desc, t.sum desc, t.grp;
end
$$;

revoke execute on function pipeline.timing_top(interval, text, int, text, text, text, jsonb, text) from public;

-- The greatest series over the last `over`: one row each, durations in milliseconds. only_source, only_name
-- (bare, or a series with its braces) and only_labels leave the others out. per: `name` merges all label sets of a name.
create or replace function pipeline.top_series(
    over interval default '1 hour', by text default 'total', most int default 20, only_source text default null,
    only_name text default null, only_labels jsonb default null, per text default 'series'
) returns table (
    series text, source text, name text, labels jsonb, count bigint, total double precision, mean double precision,
    p50 double precision, p95 double precision, p99 double precision, max double precision, errors bigint,
    slow bigint, rows bigint, share double precision, first_at timestamptz
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if top_series.per is null or top_series.per not in ('series', 'name') then
        raise exception 'top_series: per must be series or name, not %', coalesce(left(top_series.per, 50), 'null')
            using errcode = '22023';
    end if;
    return query select t.* from pipeline.timing_top(
        top_series.over, top_series.by, top_series.most, top_series.per, top_series.only_source,
        top_series.only_name, top_series.only_labels, 'top_series'
    ) as t;
end
$$;

-- The queries that took the most over the last `over`, one row for each fingerprint, durations in milliseconds.
-- labels: only calls with these, such as '{"endpoint": "/cart"}'. share: of the time of all queries, 0 to 1. The
-- fingerprint `other` stands for all queries beyond the bound on series.
create or replace function pipeline.slow_queries(
    over interval default '1 hour', by text default 'total', most int default 20, labels jsonb default null
) returns table (
    fingerprint text, query text, calls bigint, total double precision, mean double precision, p50 double precision,
    p95 double precision, p99 double precision, max double precision, errors bigint, rows bigint,
    share double precision
)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select f.fingerprint, q.text, t.count, t.total, t.mean, t.p50, t.p95, t.p99, t.max, t.errors, t.rows, t.share
    from pipeline.timing_top(
        slow_queries.over, slow_queries.by, slow_queries.most, 'fingerprint', 'query', 'query', slow_queries.labels,
        'slow_queries'
    ) with ordinality as t (
        series, source, name, labels, count, total, mean, p50, p95, p99, max, errors, slow, rows, share, first_at, place
    )
    cross join lateral (
        select coalesce(pipeline.fingerprint_now(t.labels ->> 'fingerprint'), 'other') as fingerprint
    ) as f
    left join pipeline.query as q on q.fingerprint = f.fingerprint
    order by t.place
$$;

-- The texts of queries, of those fingerprints that are known.
create or replace function pipeline.query_texts(fingerprints text[])
returns table (fingerprint text, query text)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select q.fingerprint, q.text from pipeline.query as q where q.fingerprint = any(query_texts.fingerprints)
$$;
