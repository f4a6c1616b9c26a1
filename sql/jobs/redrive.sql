-- redrive: lets jobs run again that have ended but not finished, and delayed ones at once; returns their ids
-- $1 bigint[]: jobs
-- locks: see the function
select pipeline.retry_jobs($1::bigint[])
