-- untold: what fires, was not told to a channel in this episode and nobody has acknowledged; one page, in the order of the key
-- $1 text: the channel
-- $2 text[]: groups that have to wait
-- $3 text: after this kind
-- $4 text: and this rule
-- $5 text: and this instance
-- $6 bigint: how many at most
-- locks: none
select s.kind, s.rule, s.instance, s.state, s.bad, s.good, s.silent, s.nodata, s.episode,
    extract(epoch from s.active_at)::float8 as active_at, extract(epoch from s.fired_at)::float8 as fired_at,
    extract(epoch from s.resolved_at)::float8 as resolved_at, s.severity, s.message, s.value, s.threshold, s.revision,
    s.labels
from pipeline.alert_state as s
where s.state = 'firing' and s.rule <> all($2::text[]) and (s.kind, s.rule, s.instance) > ($3, $4, $5)
  and not exists (
      select
      from pipeline.alert_told as t
      where t.channel = $1 and t.kind = s.kind and t.rule = s.rule and t.instance = s.instance and t.episode = s.episode
        and (t.change = 'firing' or t.severity = s.severity)
  )
  and not exists (
      select
      from pipeline.alert_ack as a
      where a.kind = s.kind and a.rule = s.rule and a.instance = s.instance and a.episode = s.episode
  )
order by s.kind, s.rule, s.instance
limit $6
