-- told: a notification was accepted, or given up: what it spoke of is noted once, its groups may be told the rest, and the alert
-- of our own on the channel ends or begins
-- $1 text: the notification
-- $2 text: told or failed
-- $3 text: the problem, or an empty text
-- locks: the rows
with was as (
    select id, channel, groups, members, state
    from pipeline.alert_notification
    where id = $1::text::uuid and state <> 'told'
    for update
),
ended as (
    update pipeline.alert_notification as n
    set state = $2, ended_at = pipeline.now(), problem = nullif($3, '')
    from was
    where n.id = was.id
),
member as (
    select w.channel, m.*
    from was as w
    cross join jsonb_to_recordset(w.members) as m (
        kind text, rule text, instance text, episode bigint, change text, severity text
    )
    where w.state = 'open'
),
noted as (
    insert into pipeline.alert_told as t (channel, kind, rule, instance, episode, change, severity, told_at)
    select channel, kind, rule, instance, episode, 'firing', severity, pipeline.now()
    from member
    where change = 'firing'
    on conflict (channel, kind, rule, instance) do update set
        episode = excluded.episode, change = excluded.change, severity = excluded.severity, told_at = excluded.told_at
),
forgotten as (
    delete from pipeline.alert_told as t
    using member as m
    where m.change = 'resolved' and t.channel = m.channel and t.kind = m.kind and t.rule = m.rule
      and t.instance = m.instance and t.episode = m.episode
),
freed as (
    update pipeline.alert_group as g
    set open = null, told_at = pipeline.now()
    from was
    where g.channel = was.channel and g.name = any(was.groups) and g.open = was.id
),
health as (
    update pipeline.alert_channel as c
    set problem = case $2 when 'failed' then $3 end
    from was
    where c.name = was.channel and ($2 = 'failed' or c.problem is not null)
    returning c.name, c.problem
)
select case
    when problem is null then pipeline.resolve_alert('pgreflex delivery failed', jsonb_build_object('channel', name))
    else pipeline.raise_alert(
        'pgreflex delivery failed', format('channel %s: %s', name, problem), 'critical', jsonb_build_object('channel', name)
    )
end
from health
