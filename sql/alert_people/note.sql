-- note: writes down what was found out
-- $1 text: the rule
-- $2 text: the note
-- $3 text: the instance, or null
-- $4 text: who
-- locks: none
select pipeline.alert_note($1, $2, $3, $4)
