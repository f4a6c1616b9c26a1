-- over: what a channel was told that fires, and does no longer, or in another episode; with what is still known of it
-- $1 text: the channel
-- $2 text[]: groups that have to wait
-- $3 text[]: groups that have to wait unless nothing of them fires any more that was told
-- $4 bigint: how many at most
-- locks: none
select t.kind, t.rule, t.instance, t.episode, t.severity, extract(epoch from t.told_at)::float8 as told_at,
    coalesce(s.message, '') as message, coalesce(s.labels, '{}') as labels, extract(epoch from s.resolved_at)::float8 as resolved_at,
    f.episode is not null as again
from pipeline.alert_told as t
left join pipeline.alert_state as s on s.kind = t.kind and s.rule = t.rule and s.instance = t.instance and s.state = 'resolved'
left join pipeline.alert_state as f on f.kind = t.kind and f.rule = t.rule and f.instance = t.instance and f.state = 'firing'
where t.channel = $1 and t.change = 'firing' and t.rule <> all($2::text[]) and f.episode is distinct from t.episode
  and t.rule <> all(array( -- asked once, not for each row: there may be 100,000
      select distinct o.rule
      from pipeline.alert_told as o
      join pipeline.alert_state as l on l.kind = o.kind and l.rule = o.rule and l.instance = o.instance and l.state = 'firing'
      where o.channel = $1 and o.change = 'firing' and o.rule = any($3::text[])
  ))
order by f.episode is not null, t.told_at
limit $4
