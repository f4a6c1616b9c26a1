-- saved: what an attempt of a job has saved last, or null
-- $1 bigint: job
-- locks: none
select s.saved from pipeline.job_state s where s.job = $1
