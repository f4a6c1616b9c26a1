-- Objectives and the burning of their error budgets.

-- How many events an objective had over the last p_over, and how many of them were bad. An event that failed and was slow as
-- well counts twice, up to all events: parts do not tell which those are.
create or replace function pipeline.slo_events(
    p_slo pipeline.slo, p_over interval, out events double precision, out bad double precision
)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(sum(w.count), 0), coalesce(sum(least(w.count, w.errors + case
        when p_slo.latency_ms is null or w.high <= p_slo.latency_ms then 0
        when w.low > p_slo.latency_ms then w.count
        else (
            select coalesce(sum(c.weight), 0) from unnest(w.means, w.weights) as c (mean, weight)
            where c.mean > p_slo.latency_ms
        )
    end)), 0)
    from pipeline.timing_level(p_over) as l
    cross join lateral pipeline.timing_span(
        (
            select array_agg(k.id)
            from pipeline.timing_series as k
            where (k.series = p_slo.series or k.name = p_slo.series or (strpos(p_slo.series, '%') > 0 and k.series like p_slo.series))
              and k.labels @> p_slo.labels
        ),
        pipeline.now() - p_over, 'infinity', l.level, l.edge, p_slo.latency_ms is not null
    ) as w
$$;
revoke execute on function pipeline.slo_events(pipeline.slo, interval) from public;

-- How fast an objective burns its budget over the last p_over: 1 is as fast as it may. Null without events.
create or replace function pipeline.slo_burn(
    p_slo pipeline.slo, p_over interval, out burn double precision, out events double precision
)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select e.bad / nullif(e.events, 0) / (1 - p_slo.objective), e.events
    from pipeline.slo_events(p_slo, p_over) as e
$$;
revoke execute on function pipeline.slo_burn(pipeline.slo, interval) from public;

-- Sets an objective, or changes the one of this name. Needs rights on the table.
create or replace function pipeline.slo_set(
    name text,
    series text,
    objective double precision,
    latency_ms double precision default null,
    labels jsonb default '{}',
    min_events int default 100,
    period interval default '30 days',
    enabled bool default true
) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if not coalesce(slo_set.objective > 0 and slo_set.objective < 1, false) then
        raise exception 'objective %: the share of good events lies between 0 and 1, not at %',
            slo_set.name, coalesce(slo_set.objective::text, 'null')
            using errcode = '22023', hint = 'Three nines are 0.999.';
    elsif coalesce(slo_set.name, '') = '' or coalesce(slo_set.series, '') = '' then
        raise exception 'an objective needs a name and a series' using errcode = '22023';
    elsif not coalesce(slo_set.period between interval '1 day' and interval '90 days', false) then
        raise exception 'objective %: its period lies between 1 and 90 days', slo_set.name using errcode = '22023';
    elsif slo_set.latency_ms <= 0 or slo_set.latency_ms in ('NaN', 'Infinity') then
        raise exception 'objective %: latency_ms must be above 0', slo_set.name using errcode = '22023';
    end if;
    insert into pipeline.slo as s (name, series, objective, latency_ms, labels, min_events, period, enabled)
    values ($1, $2, $3, $4, $5, $6, $7, $8)
    on conflict on constraint slo_pkey do update set
        series = excluded.series, objective = excluded.objective, latency_ms = excluded.latency_ms,
        labels = excluded.labels, min_events = excluded.min_events, period = excluded.period, enabled = excluded.enabled;
end
$$;
revoke execute on function pipeline.slo_set(
    text, text, double precision, double precision, jsonb, int, interval, bool
) from public;

-- How every objective stands. budget_left: the part of the period's error budget that is left; below 0 it is spent.
-- burn_*: how fast it burns over that time; 1 spends it exactly in the period.
create or replace function pipeline.slo_status()
returns table (
    name text, series text, objective double precision, period interval, events double precision, bad double precision,
    good double precision, budget_left double precision, burn_1h double precision, burn_6h double precision,
    burn_1d double precision, burn_3d double precision
)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select s.name, s.series, s.objective, s.period, e.events, e.bad, 1 - e.bad / nullif(e.events, 0),
        1 - e.bad / nullif(e.events, 0) / (1 - s.objective), b1.burn, b2.burn, b3.burn, b4.burn
    from pipeline.slo as s
    cross join lateral pipeline.slo_events(s, s.period) as e
    cross join lateral pipeline.slo_burn(s, interval '1 hour') as b1
    cross join lateral pipeline.slo_burn(s, interval '6 hours') as b2
    cross join lateral pipeline.slo_burn(s, interval '1 day') as b3
    cross join lateral pipeline.slo_burn(s, interval '3 days') as b4
    where s.enabled
    order by s.name
$$;
