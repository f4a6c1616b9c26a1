-- channels: those that daemons were configured with during the last seven days, and how each fares
-- locks: none
select c.channel, c.kind, c.open as waiting, extract(epoch from c.told_at)::float8 as told_at, c.problem,
    (
        select count(*)
        from pipeline.alert_notification as n
        where n.channel = c.channel and n.state = 'failed' and n.at > pipeline.now() - interval '24 hours'
    ) as failed,
    extract(epoch from c.seen_at)::float8 as seen_at
from pipeline.alert_channels() as c
order by c.channel
