-- orphans: pending and firing instances whose rule was deleted or disabled
-- locks: the rows, SKIP LOCKED
select kind, rule, instance, state, bad, good, silent, nodata, episode, extract(epoch from active_at)::float8 as active_at,
    extract(epoch from fired_at)::float8 as fired_at, extract(epoch from resolved_at)::float8 as resolved_at,
    severity, message, value, threshold, revision, labels
from pipeline.alert_state as s
where s.kind = 'metric'
  and s.state <> 'resolved'
  and not exists (select from pipeline.alert_rule as r where r.name = s.rule and r.enabled)
for update of s skip locked
