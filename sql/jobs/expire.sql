-- expire: ends jobs that have not begun in time; returns how many
-- locks: the jobs and lanes, SKIP LOCKED
select pipeline.expire_jobs()
