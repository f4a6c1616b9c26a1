-- notifications: what was sent or is being sent, the newest first
-- $1 float8: the span, in seconds
-- $2 text: a channel, or null for all
-- $3 text: a rule that they speak of, or null
-- $4 text: an instance of it that they speak of, or null
-- $5 bigint: how many at most
-- locks: none
-- index: alert_notification_at
select n.id::text as id, n.channel, extract(epoch from n.at)::float8 as at, n.state, n.reason, n.groups,
    jsonb_array_length(n.members) as alerts, n.attempts, extract(epoch from n.ended_at)::float8 as ended_at, n.problem, n.job
from pipeline.alert_notification as n
where n.at > pipeline.now() - make_interval(secs => $1)
  and ($2::text is null or n.channel = $2)
  and ($3::text is null or $3 = any(n.groups))
  and ($4::text is null or n.members @> jsonb_build_array(jsonb_build_object('rule', $3::text, 'instance', $4::text)))
order by n.at desc
limit $5
