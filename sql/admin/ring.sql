-- ring: sends a notification, to see whether it arrives
-- $1 text: the channel
-- $2 text: the payload
-- locks: the notification queue, at commit
select pg_notify($1, $2)
