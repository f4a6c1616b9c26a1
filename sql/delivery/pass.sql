-- pass: notes episodes of which a channel is not told, so that they are not looked at again
-- $1 text: the channel
-- $2 text[]: kinds
-- $3 text[]: rules
-- $4 text[]: instances
-- $5 bigint[]: episodes
-- locks: the rows
insert into pipeline.alert_told (channel, kind, rule, instance, episode, change, told_at)
select $1, k.kind, k.rule, k.instance, k.episode, 'passed', pipeline.now()
from unnest($2::text[], $3::text[], $4::text[], $5::bigint[]) as k (kind, rule, instance, episode)
on conflict (channel, kind, rule, instance) do update set
    episode = excluded.episode, change = excluded.change, told_at = excluded.told_at
where alert_told.change = 'passed'
