-- save: writes where some instances stand now, and what happened to them on the way
-- $1 jsonb: the instances, each once; times in seconds since the epoch
-- $2 jsonb: the steps, in their order: those that changed a state, with what an instance was after each
-- locks: the instances' rows
with instance as (
    select *
    from jsonb_to_recordset($1::jsonb) as j (
        kind text, rule text, instance text, state text, bad int, good int, silent int, nodata bool, episode bigint,
        active_at float8, fired_at float8, resolved_at float8, severity text, message text, value float8,
        threshold float8, revision text, labels jsonb
    )
),
step as (
    select j.*
    from rows from (
        jsonb_to_recordset($2::jsonb) as (
            kind text, rule text, instance text, state text, episode bigint, severity text, message text, value float8,
            threshold float8, labels jsonb, before text, at float8, reason text
        )
    ) with ordinality as j (
        kind, rule, instance, state, episode, severity, message, value, threshold, labels, before, at, reason, place
    )
),
gone as (
    delete from pipeline.alert_state as s
    using instance as j
    where j.state = 'inactive' and s.kind = j.kind and s.rule = j.rule and s.instance = j.instance
),
kept as (
    insert into pipeline.alert_state (
        kind, rule, instance, state, bad, good, silent, nodata, episode, active_at, fired_at, resolved_at, severity,
        message, value, threshold, revision, labels
    )
    select kind, rule, instance, state, bad, good, silent, nodata, episode, to_timestamp(active_at),
        to_timestamp(fired_at), to_timestamp(resolved_at), severity, message, value, threshold, revision, labels
    from instance
    where state <> 'inactive'
    on conflict (kind, rule, instance) do update set
        state = excluded.state, bad = excluded.bad, good = excluded.good, silent = excluded.silent,
        nodata = excluded.nodata, episode = excluded.episode, active_at = excluded.active_at,
        fired_at = excluded.fired_at, resolved_at = excluded.resolved_at, severity = excluded.severity,
        message = excluded.message, value = excluded.value, threshold = excluded.threshold,
        revision = excluded.revision, labels = excluded.labels
)
insert into pipeline.alert_history (at, kind, rule, instance, episode, before, after, value, message, reason, labels)
select to_timestamp(at), kind, rule, instance, episode, before, state, value, message, reason, labels
from step
order by place
