-- prune: deletes workflows that ended $1 seconds ago or before, a bounded number of them; returns how many
-- $1 float8: seconds
-- locks: the workflows, SKIP LOCKED
select pipeline.prune_workflows(make_interval(secs => $1))
