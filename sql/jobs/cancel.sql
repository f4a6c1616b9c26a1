-- cancel: ends jobs that have not ended, also those that run; returns the ids of those that it ended
-- $1 bigint[]: jobs   $2 text: why, or null
-- locks: the jobs
select pipeline.cancel_jobs($1::bigint[], $2)
