-- again: what fires, was told long ago, and nobody has acknowledged; one page, in the order of the key
-- $1 text: the channel
-- $2 text[]: groups that have to wait
-- $3 float8: after how many seconds a channel is told again
-- $4 text: after this kind
-- $5 text: and this rule
-- $6 text: and this instance
-- $7 bigint: how many at most
-- locks: none
select s.kind, s.rule, s.instance, s.state, s.bad, s.good, s.silent, s.nodata, s.episode,
    extract(epoch from s.active_at)::float8 as active_at, extract(epoch from s.fired_at)::float8 as fired_at,
    extract(epoch from s.resolved_at)::float8 as resolved_at, s.severity, s.message, s.value, s.threshold, s.revision,
    s.labels, extract(epoch from t.told_at)::float8 as told_at
from pipeline.alert_told as t
join pipeline.alert_state as s
    on s.kind = t.kind and s.rule = t.rule and s.instance = t.instance and s.episode = t.episode and s.state = 'firing'
where t.channel = $1 and t.change = 'firing' and t.told_at <= pipeline.now() - make_interval(secs => $3)
  and t.rule <> all($2::text[]) and (t.kind, t.rule, t.instance) > ($4, $5, $6)
  and not exists (
      select
      from pipeline.alert_ack as a
      where a.kind = s.kind and a.rule = s.rule and a.instance = s.instance and a.episode = s.episode
  )
order by t.kind, t.rule, t.instance
limit $7
