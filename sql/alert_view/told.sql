-- told: how an instance stands with each channel
-- $1 text: the kind
-- $2 text: the rule
-- $3 text: the instance
-- $4 bigint: the episode
-- locks: none
select c.name as channel, c.kind, t.change = 'passed' as passed,
    case when t.change = 'firing' then extract(epoch from t.told_at)::float8 end as told_at, n.attempts,
    coalesce(n.problem, c.problem) as problem
from pipeline.alert_channel as c
left join pipeline.alert_told as t
    on t.channel = c.name and t.kind = $1 and t.rule = $2 and t.instance = $3 and t.episode = $4
left join pipeline.alert_group as g on g.channel = c.name and g.name = $2
left join pipeline.alert_notification as n on n.id = g.open
order by c.name
