-- fail: notes why a rule could not be judged; its instances stay as they are
-- $1 bigint: the rule
-- $2 text: the problem
-- $3 float8: the end of the window that is given up, in seconds since the epoch; null where it is tried again
-- locks: the row
update pipeline.alert_progress
set problem = $2, judged_at = pipeline.now(), judged_until = greatest(judged_until, to_timestamp($3::float8))
where rule_id = $1
