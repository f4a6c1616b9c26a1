-- lock_branch: locks the row that each of pgbench's transactions updates
-- locks: FOR UPDATE on one row of pgbench_branches
select bid from pgbench_branches where bid = 1 for update
