-- list: the instances that are not inactive, or were resolved lately, the gravest first
-- $1 text[]: states, or null for all
-- $2 text[]: severities, or null for all
-- $3 text: a rule, or null for all
-- $4 text: an instance, or null for all
-- $5 bigint: how many at most
-- locks: none
select s.kind, s.rule, s.instance, s.labels::text as labels, s.state, s.severity, s.message, s.value, s.threshold,
    r.comparison, m.unit, r.runbook, s.revision, s.nodata, s.bad, s.good, s.silent, r.need, r.keep_firing, s.episode,
    extract(epoch from s.active_at)::float8 as active_at, extract(epoch from s.fired_at)::float8 as fired_at,
    extract(epoch from s.resolved_at)::float8 as resolved_at,
    extract(epoch from case s.state when 'firing' then s.fired_at when 'resolved' then s.resolved_at else s.active_at end)::float8
        as since,
    k.made_by as ack_by, extract(epoch from k.at)::float8 as ack_at, k.note as ack_note,
    extract(epoch from pipeline.now())::float8 as now
from pipeline.alert_state as s
left join pipeline.alert_rule as r on s.kind = 'metric' and r.name = s.rule
left join pipeline.alert_ack as k
    on k.kind = s.kind and k.rule = s.rule and k.instance = s.instance and k.episode = s.episode
left join pipeline.alert_metrics() as m on m.metric = r.metric
where (s.state <> 'resolved' or s.resolved_at > pipeline.now() - interval '15 minutes')
  and ($1::text[] is null or s.state = any($1::text[]))
  and ($2::text[] is null or s.severity = any($2::text[]))
  and ($3::text is null or s.rule = $3)
  and ($4::text is null or s.instance = $4)
order by array_position(array['firing', 'pending', 'resolved'], s.state),
    array_position(array['critical', 'warning', 'info'], s.severity), s.rule, s.instance
limit $5
