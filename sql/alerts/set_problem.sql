-- set_problem: notes why a rule could not be judged
-- $1 bigint: the rule
-- $2 text: the problem
-- locks: the row
update pipeline.alert_progress set problem = $2 where rule_id = $1
