-- rules: the rules that are judged, and how far they were, the one that was judged the longest ago first
-- locks: none
select
    r.id, r.name, r.metric, extract(epoch from r.over)::int as seconds,
    extract(epoch from p.judged_until)::float8 as judged_until,
    extract(epoch from pipeline.now())::float8 as now
from pipeline.alert_rule as r
join pipeline.alert_progress as p on p.rule_id = r.id
where r.enabled
order by p.judged_until, r.id
