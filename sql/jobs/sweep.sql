-- sweep: hands out jobs that became visible below the mark of their lane; see the function
-- $1 text: queue   $2 bigint: how many at most   $3 bigint: worker   $4 float8: seconds between two sweeps of a lane
-- $5 float8: seconds after which everything below the mark is searched
-- locks: the lanes in which it found something, SKIP LOCKED
select s.* from pipeline.sweep($1, $2, $3, $4::float8, $5::float8) s
