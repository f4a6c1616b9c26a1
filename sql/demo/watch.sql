-- watch: reports every change of pgbench's accounts, branches and history
-- locks: SHARE ROW EXCLUSIVE on the three tables, taken gently
select
    pipeline.watch('pgbench_accounts', keys => '{aid}', timing => true),
    pipeline.watch('pgbench_branches', keys => '{bid}', timing => true),
    pipeline.watch('pgbench_history', keys => '{}', timing => true)
