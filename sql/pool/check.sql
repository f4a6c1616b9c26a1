-- check: whether a connection that lay idle still answers, and still comes from a primary
-- locks: none
select pg_is_in_recovery()
