-- unack: takes an acknowledgement back; returns how many there were
-- $1 text: the rule
-- $2 text: the instance, or null for all
-- $3 text: who
-- locks: rows of alert_ack
select pipeline.alert_unack($1, $2, $3)
