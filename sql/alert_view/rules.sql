-- rules: rules as they were written, and how they fare
-- $1 text: the name of one, or null for all
-- locks: none
select r.name, r.xmin::text as version, r.metric, m.unit, r.series, r.sources, r.labels::text as labels, r.query, extract(epoch from r.over)::int as over_seconds,
    r.comparison, r.threshold, r.clear_threshold, r.need, r.keep_firing, r.hold_max, r.min_samples, r.max_instances, r.severity,
    r.message, r.runbook, r.enabled, r.origin, h.health, h.problem, h.instances,
    case when p.judged_at is not null then extract(epoch from p.judged_until)::float8 end as judged_until,
    extract(epoch from p.judged_at)::float8 as judged_at, h.took_ms,
    (select count(*) from pipeline.alert_state as s where s.kind = 'metric' and s.rule = r.name and s.state = 'firing') as firing,
    (select count(*) from pipeline.alert_state as s where s.kind = 'metric' and s.rule = r.name and s.state = 'pending') as pending,
    extract(epoch from pipeline.now())::float8 as now
from pipeline.alert_rule as r
join pipeline.alert_rules() as h on h.name = r.name
join pipeline.alert_progress as p on p.rule_id = r.id
left join pipeline.alert_metrics() as m on m.metric = r.metric
where $1::text is null or r.name = $1
order by r.name
