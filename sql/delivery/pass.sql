-- pass: notes episodes of which a channel is not told, so that they are not looked at again
-- $1 text: the channel
-- $2 text[]: kinds
-- $3 text[]: rules
-- $4 text[]: instances
-- $5 bigint[]: episodes
-- $6 text[]: severities; when one changes, the channel may be told after all
-- locks: the rows
insert into pipeline.alert_told (channel, kind, rule, instance, episode, change, severity, told_at)
select $1, k.kind, k.rule, k.instance, k.episode, 'passed', k.severity, pipeline.now()
from unnest($2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[]) as k (kind, rule, instance, episode, severity)
on conflict (channel, kind, rule, instance) do update set
    episode = excluded.episode, change = excluded.change, severity = excluded.severity, told_at = excluded.told_at
where alert_told.change = 'passed'
