-- outcome: how a job ended; no row while it has not, or when nothing is known of it
-- $1 bigint: job   $2 float8: Unix seconds before which it cannot have ended, so that older days need not be read
-- locks: none
select a.state, a.result, a.error, a.attempt, extract(epoch from a.finished_at)::float8 as finished_at
from pipeline.job_archive a
where a.id = $1 and a.finished_at >= to_timestamp($2::float8)
order by a.finished_at desc
limit 1
