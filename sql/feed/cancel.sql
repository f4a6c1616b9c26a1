-- cancel: ends the statement that another of our sessions is waiting in
-- $1 int: the process id of that session
-- locks: none
select pg_cancel_backend($1)
