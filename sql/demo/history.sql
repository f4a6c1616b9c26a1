-- history: what was written to an account last; there is no index for it, so it slows down as the history grows
-- $1 int: the account
-- locks: none
select delta, mtime from pgbench_history where aid = $1 order by mtime desc limit 10
