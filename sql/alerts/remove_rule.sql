-- remove_rule: deletes a rule; what it had firing is resolved
-- $1 text: its name
-- locks: its row
delete from pipeline.alert_rule where name = $1 returning id
