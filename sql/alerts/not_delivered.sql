-- not_delivered: notes why a sink did not accept a notice, and when it is tried again
-- $1 text: the notice
-- $2 text: the sink
-- $3 float8: the pause, in seconds
-- $4 text: the reason
-- locks: the row
update pipeline.alert_delivery
set next_try_at = pipeline.now() + make_interval(secs => $3), problem = $4
where notice = $1::text::uuid and sink = $2 and delivered_at is null
