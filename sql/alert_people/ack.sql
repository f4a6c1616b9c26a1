-- ack: says that somebody is at it; returns how many alerts
-- $1 text: the rule
-- $2 text: the instance, or null for all
-- $3 text: a note
-- $4 text: who
-- locks: rows of alert_ack
select pipeline.alert_ack($1, $2, $3, $4)
