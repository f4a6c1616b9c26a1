-- advance: moves the mark of a schedule that lock_due has locked
-- $1 text: schedule   $2 float8: the new mark   $3 float8: the next time   $4 float8: the newest run, or null
-- $5 bigint: how many times got no run
-- locks: the row
update pipeline.schedule as s
set until = greatest(s.until, to_timestamp($2)),
    next_at = to_timestamp($3),
    last_at = greatest(s.last_at, to_timestamp($4)),
    skipped = s.skipped + $5,
    problem = null
where s.name = $1
