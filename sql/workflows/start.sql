-- start: adds the jobs of a workflow, all or none, through the same function that applications call
-- $1 text: name   $2 jsonb: jobs   $3 text: what becomes of a job when one that it needs does not finish
-- locks: none
select pipeline.start_workflow($1, $2::jsonb, $3)
