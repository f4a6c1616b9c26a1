-- enqueue: adds one job through the same function that applications call
-- $1 text: task   $2 jsonb: args   $3 text: queue   $4 int: priority, the lower number runs first
-- $5 float8: run at, Unix seconds, or null   $6 int: attempts at most   $7 float8: seconds one run may take, or null
-- locks: none
select pipeline.enqueue($1, $2::jsonb, $3, $4::int, to_timestamp($5::float8), $6::int, make_interval(secs => $7::float8))
