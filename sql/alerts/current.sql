-- current: the instances that are not inactive, the gravest first
-- locks: none
select kind, rule, instance, state, bad, good, silent, nodata, episode, extract(epoch from active_at)::float8 as active_at,
    extract(epoch from fired_at)::float8 as fired_at, extract(epoch from resolved_at)::float8 as resolved_at,
    severity, message, value, threshold, revision, labels
from pipeline.alert_state
where state <> 'resolved' or resolved_at > pipeline.now() - interval '15 minutes'
order by array_position(array['firing', 'pending', 'resolved'], state),
    array_position(array['critical', 'warning', 'info'], severity), rule, instance
limit 500
