-- lock_branches: locks the rows of which each of pgbench's transactions updates one
-- locks: FOR UPDATE on the rows of pgbench_branches
select bid from pgbench_branches for update
