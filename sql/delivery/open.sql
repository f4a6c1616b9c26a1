-- open: begins to tell: the notification, its groups, and the job that sends it; returns the notification
-- $1 text: the channel
-- $2 text[]: the groups
-- $3 text: the reason: new, resolved or repeat
-- $4 jsonb: what is sent
-- $5 jsonb: the instances it speaks of
-- locks: the groups' rows
with made as (
    select gen_random_uuid() as id
),
told as (
    insert into pipeline.alert_notification (id, channel, groups, reason, body, members, at, job)
    select id, $1, $2::text[], $3, $4::jsonb, $5::jsonb, pipeline.now(), pipeline.enqueue_notification(id, $1)
    from made
    returning id
),
grouped as (
    insert into pipeline.alert_group as g (channel, name, open)
    select $1, name, made.id from made cross join unnest($2::text[]) as name
    on conflict (channel, name) do update set open = excluded.open
)
select id::text from told
