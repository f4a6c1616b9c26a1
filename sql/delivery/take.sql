-- take: a notification that is still to be sent, counting the attempt; no row when it was told. One that was given up is sent
-- when somebody runs its job again.
-- $1 text: the notification
-- locks: the row
update pipeline.alert_notification
set attempts = attempts + 1
where id = $1::text::uuid and state <> 'told'
returning id::text, channel, body::text, attempts, extract(epoch from pipeline.now() - at)::float8 as age
