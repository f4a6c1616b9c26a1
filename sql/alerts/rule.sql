-- rule: one enabled rule, and how far it was judged
-- $1 bigint: the rule
-- locks: none
select
    r.id, r.name, r.metric, r.series, r.sources, r.labels, r.query, extract(epoch from r.over)::int as seconds, r.comparison,
    r.threshold, r.clear_threshold, r.need, r.keep_firing, r.hold_max, r.min_samples, r.max_instances, r.severity,
    r.message, r.runbook, r.revision, p.counters,
    extract(epoch from p.counted_at)::float8 as counted_at,
    extract(epoch from p.judged_until)::float8 as judged_until,
    extract(epoch from pipeline.now())::float8 as now
from pipeline.alert_rule as r
join pipeline.alert_progress as p on p.rule_id = r.id
where r.id = $1 and r.enabled
