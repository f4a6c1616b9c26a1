-- trouble: says why a schedule that lock_due has locked cannot run, and when to try again
-- $1 text: schedule   $2 text: why   $3 float8: seconds
-- locks: the row
update pipeline.schedule set problem = $2, next_at = pipeline.now() + make_interval(secs => $3) where name = $1
