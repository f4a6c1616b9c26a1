-- richest: the accounts of a branch that hold the most
-- $1 int: the branch
-- locks: none
select aid, abalance as balance from pgbench_accounts where bid = $1 order by abalance desc limit 10
