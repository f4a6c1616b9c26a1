-- states: the instances of some rules
-- $1 text: the kind, metric or raised
-- $2 text[]: the names of the rules
-- locks: none; the caller holds the lock under which they change
select kind, rule, instance, state, bad, good, silent, nodata, episode, extract(epoch from active_at)::float8 as active_at,
    extract(epoch from fired_at)::float8 as fired_at, extract(epoch from resolved_at)::float8 as resolved_at,
    severity, message, value, threshold, revision, labels
from pipeline.alert_state
where kind = $1 and rule = any($2::text[])
