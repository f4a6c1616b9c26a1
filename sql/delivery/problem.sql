-- problem: notes why a notification was not accepted and is tried again; after five minutes of that our own alert begins
-- $1 text: the notification
-- $2 text: the problem
-- locks: the row, and the channel's
with noted as (
    update pipeline.alert_notification
    set problem = $2
    where id = $1::text::uuid and state <> 'told'
    returning channel, at < pipeline.now() - interval '5 minutes' as long
),
health as (
    update pipeline.alert_channel as c
    set problem = $2
    from noted
    where c.name = noted.channel and noted.long
    returning c.name, c.problem
)
select pipeline.raise_alert(
    'pgreflex delivery failed', format('channel %s: %s', name, problem), 'critical', jsonb_build_object('channel', name)
)
from health
