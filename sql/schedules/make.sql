-- make: a job for each of these times that has none; returns how many were made
-- $1 text: schedule   $2 float8[]: times, Unix seconds
-- locks: none, unless another transaction makes the same run
select pipeline.make_runs($1, array(select to_timestamp(t) from unnest($2::float8[]) as t))
