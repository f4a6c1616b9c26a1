-- log_lines: what a job has logged, in order
-- $1 bigint: job   $2 bigint: so many lines are known   $3 int: so many more
-- locks: none
select l.attempt, extract(epoch from l.at)::float8 as at, l.level, l.message
from pipeline.job_log l
where l.job = $1
order by l.at, l.attempt, l.tableoid, l.ctid
offset $2::bigint
limit $3::int
