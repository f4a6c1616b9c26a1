-- test: tells a channel something; returns the id of the notification
-- $1 text: the channel
-- $2 text: who
-- locks: none
select pipeline.alert_test($1, $2)::text
