-- enqueue_on_insert: a job for every tenth row of pgbench's history, in the writer's transaction
-- $1 text: the task
-- locks: SHARE ROW EXCLUSIVE on the table, taken gently
select pipeline.enqueue_on('pgbench_history', 'insert', $1, share => 0.1)
