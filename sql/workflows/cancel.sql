-- cancel: ends all jobs of a workflow that have not ended; false if it has ended, or there is none
-- $1 bigint: workflow
-- locks: the workflow's row
select pipeline.cancel_workflow($1)
