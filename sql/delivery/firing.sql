-- firing: what fires, the gravest first; for inhibition
-- $1 bigint: how many at most
-- locks: none
select kind, rule, instance, state, bad, good, silent, nodata, episode, extract(epoch from active_at)::float8 as active_at,
    extract(epoch from fired_at)::float8 as fired_at, extract(epoch from resolved_at)::float8 as resolved_at,
    severity, message, value, threshold, revision, labels
from pipeline.alert_state
where state = 'firing'
order by array_position(array['critical', 'warning', 'info'], severity), fired_at
limit $1
