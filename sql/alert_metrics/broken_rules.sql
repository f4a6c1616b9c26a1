-- broken_rules: the rules that cannot be judged, with the reason
-- locks: none
select jsonb_build_object('rule', r.name) as labels, (p.problem is not null)::int::float8 as value, 1::bigint as samples,
    coalesce(p.problem, '') as detail
from pipeline.alert_rule as r
join pipeline.alert_progress as p on p.rule_id = r.id
where r.enabled
