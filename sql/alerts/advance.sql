-- advance: notes how far a rule was judged, and what is wrong with it
-- $1 bigint: the rule
-- $2 float8: the end of the last judged window, in seconds since the epoch
-- $3 text: the problem, or an empty text
-- locks: the row, which lock_rule holds
update pipeline.alert_progress
set judged_until = to_timestamp($2::float8), problem = nullif($3::text, '')
where rule_id = $1
