-- notify_queue: how full the queue of NOTIFY is; a session that listens in an open transaction holds it up
-- locks: none
select '{}'::jsonb as labels, pg_notification_queue_usage() as value, 1::bigint as samples, '' as detail
