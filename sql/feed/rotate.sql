-- rotate: empties the resting tables when it is time to turn; true means: turn now
-- $1 bigint: the term
-- $2 bigint: the number of the last batch
-- $3 text: the position that the feed has reached
-- $4 bigint: turn when the tables hold this many bytes
-- $5 float8: or when they have been written for this many seconds
-- locks: ACCESS EXCLUSIVE on the resting tables, for at most 100 ms of waiting
select pipeline.rotate($1, $2, $3::text::pg_snapshot, $4, make_interval(secs => $5))
