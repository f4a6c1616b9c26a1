-- Plans of slow queries, as applications write them: they have no rights on the tables.

-- Whether the caller may look for the plan of this query now: one may in an hour, over all processes.
create or replace function pipeline.claim_plan(p_fingerprint text) returns bool
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
    with turn as (
        insert into pipeline.plan_turn as t (fingerprint, at, outcome)
        values (p_fingerprint, pipeline.now(), 'asked')
        on conflict (fingerprint) do update
            set at = excluded.at, outcome = excluded.outcome, reason = ''
            where t.at <= excluded.at - interval '1 hour'
        returning 1
    )
    select exists (select from turn)
$$;

-- Write down why no plan could be had. p_outcome: 'refused' by us, 'failed' in Postgres.
create or replace function pipeline.refuse_plan(p_fingerprint text, p_outcome text, p_reason text) returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
    update pipeline.plan_turn set outcome = p_outcome, reason = left(p_reason, 500) where fingerprint = p_fingerprint
$$;

-- Write down a plan. One with the shape of the last is only counted, and takes its place if it was measured.
-- The summary of the plan before, if this one has another shape; null for the first plan and for the same.
create or replace function pipeline.save_plan(
    p_fingerprint text, p_shape text, p_summary text, p_kind text, p_plan json, p_settings jsonb, p_ms double precision
) returns text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_now constant timestamptz := pipeline.now();
    v_last pipeline.plan;
begin
    update pipeline.plan_turn set outcome = 'planned', reason = '' where fingerprint = p_fingerprint;
    select p.* into v_last
    from pipeline.plan as p
    where p.fingerprint = p_fingerprint
    order by p.first_at desc, p.id desc
    limit 1
    for update;
    if v_last.shape = p_shape then
        update pipeline.plan as p
        set last_at = greatest(p.last_at, v_now), times = p.times + 1, slowest_ms = greatest(p.slowest_ms, p_ms),
            kind = case when p_kind = 'analyzed' then p_kind else p.kind end,
            plan = case when p_kind = 'analyzed' then p_plan else p.plan end
        where p.id = v_last.id;
        return null;
    end if;
    insert into pipeline.plan (fingerprint, shape, summary, kind, plan, settings, first_at, last_at, slowest_ms)
    values (p_fingerprint, p_shape, p_summary, p_kind, p_plan, p_settings, v_now, v_now, p_ms);
    return v_last.summary;
end
$$;
