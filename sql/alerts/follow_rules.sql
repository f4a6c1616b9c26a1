-- follow_rules: makes the rules that came from a configuration be these; returns what could not be written, and why
-- $1 jsonb: the rules
-- locks: advisory (1885697639, 32), and the rows
select name, problem from pipeline.follow_alert_rules($1)
