-- branch: what a branch holds
-- $1 int: the branch
-- locks: none
select bbalance as balance from pgbench_branches where bid = $1
