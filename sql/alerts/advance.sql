-- advance: notes how far a rule was judged, how it fared, and what its counters said
-- $1 bigint: the rule
-- $2 float8: the end of the window, in seconds since the epoch
-- $3 text: the problem, or an empty text
-- $4 int: how many instances the window had
-- $5 float8: how long it took, in milliseconds
-- $6 jsonb: the counters by instance; null where the metric has none
-- $7 float8: when they were read, in seconds since the epoch
-- locks: the row, which lock_rule holds
update pipeline.alert_progress
set judged_until = to_timestamp($2::float8), problem = nullif($3::text, ''), judged_at = pipeline.now(), instances = $4,
    took_ms = $5, counters = coalesce($6::jsonb, '{}'), counted_at = to_timestamp($7::float8)
where rule_id = $1
