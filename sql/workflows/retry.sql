-- retry: lets all jobs of a workflow run again that have ended and not finished; returns how many
-- $1 bigint: workflow
-- locks: the jobs' rows in the archive, the workflow's row
select pipeline.retry_workflow($1)
