-- lock_rule_name: a rule for whoever is about to change it: which version it is
-- $1 text: its name
-- locks: its row
select r.xmin::text as version from pipeline.alert_rule as r where r.name = $1 for update
