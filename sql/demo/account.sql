-- account: what an account holds
-- $1 int: the account
-- locks: none
select abalance as balance from pgbench_accounts where aid = $1
