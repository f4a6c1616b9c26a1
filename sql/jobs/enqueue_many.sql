-- enqueue_many: adds a job for each of the args, all of one task; what is null comes from the task
-- $1 text: task   $2 jsonb[]: the arguments of each   $3 text: queue   $4 int: priority   $5 float8: run at, Unix seconds
-- $6 int: attempts at most   $7 float8: seconds one run may take   $8 float8: expires at, Unix seconds
-- $9 text[]: the key of each, or null
-- locks: none
select pipeline.enqueue_many(
    $1, $2::jsonb[], $3, $4::int, to_timestamp($5::float8), $6::int, make_interval(secs => $7::float8),
    to_timestamp($8::float8), $9::text[]
)
