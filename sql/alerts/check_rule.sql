-- check_rule: what is wrong with a rule now; null when nothing is
-- $1 text: its name
-- locks: none
select pipeline.alert_rule_check($1)
